"""`--dry-run`: the cells of a run and what they cost in U-Net passes, hours at a speed, and disk.

The cost is of cards, suite and, where it can be loaded, the U-Net's form. Nothing needs the device
that the run is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from casl_bench.core.errors import BenchError, UsageError
from casl_bench.core.files import hash_json
from casl_bench.diffusion.trajectories import GB, disk_budget, store_bytes
from casl_bench.methods.method import SupportsFitKey
from casl_bench.models.unet import BackboneConfig, build_unet, decoder_half, encoder_half
from casl_bench.results.run_folder import RecordStore, damaged_cells
from casl_bench.runs.plan import (
    Cell,
    DomainIdentity,
    card_of,
    done,
    identify,
    make_method,
    null_work,
    open_domain,
    plan,
    preparation_of,
    shared_work,
    work_of_fit,
)
from casl_bench.runs.run_lock import check_run_folder
from casl_bench.runs.suites import DOWNSTREAM_IMAGES, RunConfig
from casl_bench.runs.system_info import resolve_device

FULL_SIZE_H = (512, 8, 8)
"""h of the published U-Nets for 256 pixels: assumed where a backbone is not loaded."""

GPU_PEAKS = {
    "V100": 15.7e12, "A100": 19.5e12, "RTX 3090": 35.6e12, "RTX 4090": 82.6e12, "L40S": 91.6e12,
    "H100": 66.9e12, "H200": 66.9e12,
}  # fmt: skip
"""Device → peak of float32 without TF32, FLOP/s, by its data sheet."""
GPU_SHARE = 0.4
"""Of that peak, what passes are taken to reach. Nothing was measured on a GPU: arithmetic."""
CPU_SPEED = 48.7e9
"""FLOP/s of the edit loop on one thread of an AMD EPYC: measured, see docs/performance.md."""
FULL_SIZE_FLOPS = 497e9
"""Of a pass of an image through the published DDPM for 256 pixels, by torch's `FlopCounterMode`."""

_SAE_PASSES = 2.5
"""A step and image: eps with h and with the SAE's (one encoder half, two decoder halves), and one
pass of the images regenerated with the SAE's h."""

_FLOAT = 4


@dataclass(frozen=True)
class CostEstimate:
    """U-Net calls in images, and bytes.

    Attributes:
        inversion: images inverted and regenerated once for all methods.
        fits: optimiser steps and what else a fit passes through the U-Net.
        edits: test and validation images at every strength.
        sae: what the SAE costs downstream.
        trajectories: x_t and h of the train and test images, on disk.
        others: inversions and edited images on disk, before compression.
    """

    inversion: float
    fits: float
    edits: float
    sae: float
    trajectories: int
    others: int

    @property
    def unet_calls(self) -> float:
        """Of all phases."""
        return self.inversion + self.fits + self.edits + self.sae


def estimate_cost(
    config: RunConfig,
    cells: Sequence[Cell],
    h_shapes: Mapping[str, Sequence[int]] | None = None,
) -> CostEstimate:
    """The cost of cells that are still to do; nothing that they share is taken to be there."""
    suite, fits, all_fits = config.suite, 0.0, 0.0
    known: set[str] = set()
    for cell in cells:
        method = make_method(cell.method, suite)
        work = work_of_fit(method, config)
        all_fits += work
        shared = method.fit_key() if isinstance(method, SupportsFitKey) else cell.method
        key = hash_json([cell.dataset, cell.concept.name, shared])
        fits += 0.0 if key in known else work
        known.add(key)
    datasets = [d for d in config.datasets if any(cell.dataset == d for cell in cells)]
    with_sae = [
        d
        for d in datasets
        if any(make_method(c.method, suite).info.uses_sae for c in cells if c.dataset == d)
    ]
    sae_images = min(DOWNSTREAM_IMAGES, suite.test_pool_images)
    trajectories = others = 0
    for dataset in datasets:
        image_shape = (3, *(card_of(dataset).resolution,) * 2)
        h_shape = (h_shapes or {}).get(dataset, FULL_SIZE_H)
        kept = suite.train_images + suite.test_pool_images
        trajectories += store_bytes(kept, suite.num_steps, image_shape, h_shape)
        numbers = math.prod(image_shape)
        others += 2 * _FLOAT * numbers * (kept + suite.validation_pool_images)
        # 8-bit pictures of every cell: source, reconstruction, oracle or none, and the edits.
        pictures = suite.test_images_per_concept * (3 + len(suite.effects) + 1)
        others += numbers * pictures * sum(cell.dataset == dataset for cell in cells)
    return CostEstimate(
        inversion=shared_work(config) * len(datasets) / len(config.datasets),
        fits=fits,
        edits=sum(cell.work for cell in cells) - all_fits + null_work(suite) * len(datasets),
        sae=_SAE_PASSES * sae_images * suite.num_steps * len(with_sae),
        trajectories=trajectories,
        others=others,
    )


def cost_text(
    config: RunConfig,
    cells: Sequence[Cell],
    h_shapes: Mapping[str, Sequence[int]] | None = None,
    unet_speed: float | None = None,
    flops: float = FULL_SIZE_FLOPS,
) -> str:
    """Lines of `--dry-run` on the cost of cells that are still to do.

    `unet_speed` is U-Net passes per second, in images; without one, hours are shown for named
    devices, from the `flops` of a pass. Raises UsageError if the disk budget in the environment is
    no number.
    """
    if not cells:
        return "nothing to do: no U-Net call"
    cost = estimate_cost(config, cells, h_shapes)
    total = (cost.trajectories + cost.others) / GB
    return "\n".join(
        [
            f"about {cost.unet_calls:,.0f} U-Net calls (in images): inversion "
            f"{cost.inversion:,.0f}, fits {cost.fits:,.0f}, edits {cost.edits:,.0f}, "
            f"SAE {cost.sae:,.0f}",
            f"time of these passes: {_hours(config, cost.unet_calls, flops, unet_speed)}; "
            "gradients, CLIP and scoring come on top",
            f"disk: about {total:,.1f} GB, of which trajectories {cost.trajectories / GB:,.1f} GB "
            f"(budget {disk_budget() / GB:,.0f} GB); fine-tuned weights come on top",
        ]
    )


def _hours(config: RunConfig, passes: float, flops: float, unet_speed: float | None) -> str:
    if unet_speed is not None:
        return f"{passes / unet_speed / 3600:,.1f} h at {unet_speed:g} images a second"
    if config.device == "cpu":
        hours = passes * flops / CPU_SPEED / 3600
        return (
            f"{hours:,.1f} h on one thread of a CPU (measured: {CPU_SPEED / 1e9:g} GFLOP/s on an "
            f"AMD EPYC; {flops / 1e9:,.1f} GFLOP a pass)"
        )
    each = ", ".join(
        f"{name} {passes * flops / (GPU_SHARE * peak) / 3600:,.1f} h"
        for name, peak in GPU_PEAKS.items()
    )
    return (
        f"{each} (arithmetic: {flops / 1e9:,.1f} GFLOP a pass at {GPU_SHARE:g} of the float32 peak "
        "of one GPU; none was measured)"
    )


def pass_flops(config: BackboneConfig) -> float:
    """FLOP of a pass of one image through a U-Net, counted on its description alone."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet = build_unet(config.unet)
        side = config.image_size // config.patch_size
        h, temb, skips = encoder_half(unet, torch.empty(1, unet.conv_in.in_channels, side, side), 0)
        decoder_half(unet, h, temb, skips)
    return float(counter.get_total_flops())


def _openable(config: RunConfig) -> RunConfig:
    """The config for looking at models: on the CPU where its device is on another machine."""
    try:
        resolve_device(config.device)
    except UsageError:
        return config.model_copy(update={"device": "cpu"})
    return config


def dry_run_text(config: RunConfig, unet_speed: float | None = None) -> str:
    """The matrix of cells, done and to do, and their cost, see `cost_text`; nothing is written."""
    check_run_folder(config)
    missing: list[str] = []
    h_shapes: dict[str, tuple[int, ...]] = {}
    domains: dict[str, DomainIdentity] = {}
    flops: list[float] = []
    openable = _openable(config)
    if openable.device != config.device:
        missing.append(f"{config.device} is not here: which cells are done is not known")
    for dataset in config.datasets:
        domains[dataset] = DomainIdentity(card_of(dataset), "absent")  # planned all the same
        try:
            if (lacking := preparation_of(dataset, openable)) is not None:
                missing.append(f"made first, and not counted above: {dataset}: {lacking.what}")
                continue
            domain = open_domain(dataset, openable)
        except BenchError as error:
            missing.append(f"not ready to run: {dataset}: {error}")
        else:
            h_shapes[dataset] = domain.backbone.h_shape
            flops.append(pass_flops(domain.backbone.config))
            domains |= identify({dataset: domain})
    cells = plan(config, domains)
    store = RecordStore(config.out)
    damaged = damaged_cells(store)
    there = {
        cell.key
        for cell in cells
        if store.folder(cell.store_key) not in damaged and done(store, cell)
    }
    to_do = [cell for cell in cells if cell.key not in there]
    lines = [
        f"run folder: {config.out}",
        f"suite {config.suite.name} v{config.suite.version}, seed {config.seed}, "
        f"device {config.device}",
        "",
        *(_matrix(dataset, cells, there) for dataset in config.datasets),
        f"{len(cells)} cells: {len(there)} done, {len(to_do)} to do",
        cost_text(config, to_do, h_shapes, unet_speed, max(flops, default=FULL_SIZE_FLOPS)),
        *missing,
    ]
    return "\n".join(lines) + "\n"


def _matrix(dataset: str, cells: Sequence[Cell], done: set[str]) -> str:
    own = [c for c in cells if c.dataset == dataset]
    concepts = list(dict.fromkeys(c.concept.name for c in own))
    rows: dict[str, dict[str, str]] = {}
    for cell in sorted(own, key=lambda c: c.control):
        name = f"{cell.method} beside {cell.beside}" if cell.beside else cell.method
        state = "done" if cell.key in done else "to do"
        rows.setdefault(name, {})[cell.concept.name] = state
    body = [[name, *(row.get(c, "") for c in concepts)] for name, row in rows.items()]
    text: str = tabulate(body, headers=[dataset, *concepts], tablefmt="simple")
    return text + "\n"
