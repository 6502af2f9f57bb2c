"""This machine: whether torch and a device can be used, and one page on what a run would find."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from tabulate import tabulate

from casl_bench.cache.code_hash import installed_version
from casl_bench.cache.maintenance import stored_in
from casl_bench.core.errors import BenchError, UsageError
from casl_bench.core.memory import GB, free_memory

EXIT_SOUND, EXIT_BROKEN = 0, 2

_PACKAGES = ("casl-bench", "torch", "torchvision", "diffusers", "open_clip_torch")

Row = tuple[str, str]


def check_torch() -> None:
    """Import torchvision; UsageError where it does not fit torch, as its own error does not say."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        # A mismatched pair says "operator torchvision::nms does not exist", or, built for
        # another C++ interface, "undefined symbol".
        pair = " and ".join(
            f"{name} {installed_version(name) or '(not installed)'}"
            for name in ("torch", "torchvision")
        )
        if any(sign in str(error) for sign in ("torchvision::", "undefined symbol")):
            raise UsageError(
                f"{pair} do not fit together",
                hint="install both from the same index with matching builds "
                "(pip install --force-reinstall torch torchvision)",
            ) from error
        raise UsageError(
            f"{pair} cannot be imported: {error}", hint="install torch and torchvision anew"
        ) from error


def resolve_device(name: str, here: bool = True) -> str:
    """A device with its number, of "cpu", "cuda:1" …; UsageError where torch cannot use it.

    One that need not be `here` may be on another machine: only its name is looked at.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"unknown device '{name}'", hint="use cpu, cuda, cuda:1 … or mps"
        ) from error
    if device.type == "cpu":
        return "cpu"
    if not here and device.type in ("cuda", "mps"):
        return "mps" if device.type == "mps" else f"cuda:{device.index or 0}"
    if device.type == "cuda" and torch.cuda.is_available():
        index = device.index or 0
        if index < torch.cuda.device_count():
            return f"cuda:{index}"
    if device.type == "mps" and torch.backends.mps.is_available():
        return "mps"
    raise UsageError(f"device '{name}' is not available here", hint="use --device cpu")


def resolve_devices(text: str, here: bool = True) -> tuple[str, ...]:
    """GPUs by number, "0,1,3" → ("cuda:0", …); UsageError where torch cannot use one of them."""
    numbers = text.replace(" ", "").split(",")
    if not all(number.isdecimal() for number in numbers) or len(set(numbers)) < len(numbers):
        raise UsageError(
            f"'{text[:40]}' is no list of GPUs", where="--devices", hint="give e.g. 0,1,2,3"
        )
    return tuple(resolve_device(f"cuda:{int(number)}", here) for number in numbers)


def doctor_page(
    device: str, cache: Path, data_root: Path | None, weights_root: Path
) -> tuple[str, int]:
    """A page on this device, cache and folders, and the exit code: 2 where torch cannot be used."""
    rows: list[Row] = [("versions", _versions())]
    try:
        check_torch()
        found = resolve_device(device)
    except BenchError as error:
        rows += [("broken", str(error)), *_places(cache, data_root, weights_root)]
        return _page(rows), EXIT_BROKEN
    rows += [*_devices(found), *_places(cache, data_root, weights_root)]
    return _page(rows), EXIT_SOUND


def _page(rows: Sequence[Row]) -> str:
    return str(tabulate(rows, tablefmt="plain", disable_numparse=True)) + "\n"


def _versions() -> str:
    found = {name: installed_version(name) or "not installed" for name in _PACKAGES}
    named = ", ".join(f"{name} {version}" for name, version in found.items())
    return f"{named}, python {platform.python_version()}"


def _devices(device: str) -> Iterator[Row]:
    import torch

    name = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "cpu", f"{name}, {cores} cores"
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        yield f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, capability {major}.{minor}"
    if not torch.cuda.device_count():
        yield "cuda", "none"
    if torch.backends.mps.is_available():
        yield "mps", "there; not tested by this project"
    yield "device", f"{device}, {free_memory(device) / GB:.1f} GB free"


def _places(cache: Path, data_root: Path | None, weights_root: Path) -> Iterator[Row]:
    size = sum(entry.bytes for entry in stored_in(cache))
    nearest = next(place for place in (cache, *cache.parents) if place.exists())
    may = "writable" if os.access(nearest, os.W_OK | os.X_OK) else "NOT writable"
    yield "cache", f"{cache}: {may}, {size / GB:.2f} GB"
    try:
        # A guest: named, not imported, so that runs know nothing of photographs.
        guest = import_module("casl_bench.photos.commands")
        yield from guest.what_is_here(data_root, weights_root)
    except (BenchError, ImportError, OSError, RuntimeError) as error:
        yield "photographs", f"cannot be looked at: {error}".splitlines()[0]
