"""One page about this machine: what a run would find here.

A line that cannot be found out says so; the other lines are printed all the same.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from pathlib import Path

from tabulate import tabulate

from casl_bench.cache.maintenance import stored_in
from casl_bench.core.errors import BenchError
from casl_bench.core.memory import GB, free_memory
from casl_bench.runs.preflight import check_torch, resolve_device

EXIT_SOUND, EXIT_BROKEN = 0, 2

_PACKAGES = ("torch", "torchvision", "diffusers", "open_clip_torch")

Row = tuple[str, str]


def doctor_page(
    device: str,
    cache: Path,
    data_root: Path | None,
    weights_root: Path,
) -> tuple[str, int]:
    """The page, and the exit code of the command.

    Args:
        device: as asked for, not resolved yet.
        cache: the cache's folder; it need not be there.
        data_root: where real data are looked for; None where none was given.
        weights_root: where weights are looked for.

    Returns:
        The page; 0, or 2 where torch or the device cannot be used.
    """
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
    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    named = ", ".join(f"{name} {version(name)}" for name in ("casl-bench", *_PACKAGES))
    return f"{named}, python {platform.python_version()}"


def _devices(device: str) -> Iterator[Row]:
    """What there is, and what it can do."""
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
    """Cache, data and weights."""
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
