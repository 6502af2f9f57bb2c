"""One page about this machine: what a run would find here, and what its U-Net passes cost.

What is broken is told in its line and does not keep the rest from being told.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tabulate import tabulate

from casl_bench.cache.store import stored_in
from casl_bench.core.errors import BenchError
from casl_bench.core.memory import GB, free_memory
from casl_bench.models.backbone import Kernels, has_cpp_compiler
from casl_bench.runs.preflight import check_torch, resolve_device

EXIT_SOUND, EXIT_BROKEN = 0, 2
PROBED = tuple(Kernels.parse(name) for name in ("channels_last", "bf16", "channels_last,bf16"))
COMPILED = Kernels(compiled=True)

_PACKAGES = ("torch", "torchvision", "diffusers", "open_clip_torch")
_PROBED_UNET = "rendered_faces"

Row = tuple[str, str]


def doctor_page(
    device: str,
    cache: Path,
    data_root: Path | None,
    weights_root: Path,
    *,
    probe: bool = True,
    compiled: bool = False,
) -> tuple[str, int]:
    """The page, and the exit code of the command.

    Args:
        device: as asked for, not resolved yet.
        cache: the cache's folder; it need not be there.
        data_root: where real data are looked for; None where nobody said.
        weights_root: where weights are looked for.
        probe: whether the shipped U-Net is timed.
        compiled: whether it is compiled, too, which takes minutes on a CPU.

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
    return _page(rows) + (f"\n{_probe_text(found, compiled)}" if probe else ""), EXIT_SOUND


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

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "cpu", f"{name}, {cores} cores, {torch.get_num_threads()} threads of a matrix product"
    yield "", _bf16_of_cpu(capabilities)
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
        yield f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, capability {major}.{minor}, {bf16}"
    if not torch.cuda.device_count():
        yield "cuda", "none"
    if torch.backends.mps.is_available():
        yield "mps", "there; not tested by this project"
    yield "device", f"{device}, {free_memory(device) / GB:.1f} GB free"
    compiler = "found" if has_cpp_compiler() else "none, so no `--kernels compiled`"
    yield "C++ compiler", compiler


def _bf16_of_cpu(capabilities: dict[str, Any]) -> str:
    """Whether the processor multiplies bfloat16 numbers itself."""
    if "amx_bf16" not in capabilities:
        return "AVX512-BF16 and AMX: this torch does not say"
    there = [
        label
        for key, label in (("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX-BF16"))
        if capabilities[key]
    ]
    return ", ".join(there) or "neither AVX512-BF16 nor AMX: bf16 is emulated, and slower"


def _places(cache: Path, data_root: Path | None, weights_root: Path) -> Iterator[Row]:
    """Cache, data and weights."""
    size = sum(entry.bytes for entry in stored_in(cache))
    nearest = next(place for place in (cache, *cache.parents) if place.exists())
    may = "writable" if os.access(nearest, os.W_OK | os.X_OK) else "NOT writable"
    yield "cache", f"{cache}: {may}, {size / GB:.2f} GB"
    try:
        yield from _of_the_real_world(data_root, weights_root)
    except (BenchError, ImportError, OSError, RuntimeError) as error:
        yield "real world", f"cannot be told: {error}".splitlines()[0]


def _of_the_real_world(data_root: Path | None, weights_root: Path) -> Iterator[Row]:
    from casl_bench.photos.domains import REAL_DATASETS, WEIGHTS, found_at

    yield "data", str(data_root) if data_root else "no folder given (--data-root)"
    yield "weights", f"{weights_root}; `casl-bench weights` tells more"
    for dataset in REAL_DATASETS:
        needed = [w for w in WEIGHTS if dataset in w.datasets]
        there = sum(found_at(weights_root, w.place) is not None for w in needed)
        folder = data_root is not None and (data_root / dataset).is_dir()
        data = "a folder of data" if folder else "no folder of data"
        yield dataset, f"{data}, {there} of {len(needed)} weights"


def _probe_text(device: str, compiled: bool) -> str:
    """A table of what the shipped U-Net costs under each setting, and what follows from it."""
    from casl_bench.domains.rendered import ASSETS
    from casl_bench.models.backbone import BACKBONES, Backbone
    from casl_bench.models.kernel_probe import GAIN, TOLERANCE, probe, recommended

    backbone: Backbone = BACKBONES.create(
        f"{_PROBED_UNET}_unet", ASSETS / _PROBED_UNET / "unet"
    ).to(device)
    found = probe(backbone, (*PROBED, COMPILED) if compiled else PROBED)
    reference = found[0]
    table = [
        (str(p.kernels), "", "", "", p.refusal)
        if p.refusal
        else (
            str(p.kernels), f"{p.ms:.1f}", f"{p.ms / reference.ms:.2f}", f"{p.deviation:.1e}",
            "pays" if p.pays(reference) else "",
        )
        for p in found
    ]  # fmt: skip
    heads = ("--kernels", "ms a pass", "time", "deviation", "")
    size = backbone.image_size
    lines = [
        f"The shipped U-Net ({size} pixels, {backbone.micro_batch} images a pass) on {device}; "
        + ("processor time; " if device == "cpu" else "")
        + "deviation of eps over its largest:",
        str(tabulate(table, heads, disable_numparse=True, colalign=("left",) + ("right",) * 3)),
    ]
    if not compiled:
        lines.append("compiled: not tried; --compile does, and takes minutes on a CPU.")
    slower = [p for p in found if p.kernels.bf16 and p.ms > reference.ms]
    if slower:
        times = min(p.ms for p in slower) / reference.ms
        lines.append(f"bf16 loses here: {times:.1f} times as slow as float32.")
    lines += [
        f"Recommended: --kernels {recommended(found)} (what pays saves {GAIN:.0%} of the time, "
        f"with a deviation of at most {TOLERANCE:g}).",
        "Other kernels make a run of their own, not to be compared with the reference's. Other "
        "U-Nets, and a busy machine, may differ.",
    ]
    return "\n".join(lines) + "\n"
