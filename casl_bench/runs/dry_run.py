"""`--dry-run`: the cells of a run and what they cost in U-Net passes, hours at a speed, and disk.

The cost is of cards and suite alone: for it no model is loaded and no file of a data set is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from casl_bench.core.errors import BenchError
from casl_bench.core.files import hash_json
from casl_bench.diffusion.trajectories import GB, disk_budget, store_bytes
from casl_bench.methods.method import SupportsFitKey
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
    shared_work,
    work_of_fit,
)
from casl_bench.runs.run_lock import check_run_folder
from casl_bench.runs.suites import DOWNSTREAM_IMAGES, RunConfig

FULL_SIZE_H = (512, 8, 8)
"""h of the published U-Nets for 256 pixels: assumed where a backbone is not loaded."""

SPEEDS = (10.0, 100.0)
"""Images a second for which hours are shown where no speed is given: arithmetic, not a promise."""

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
) -> str:
    """Lines of `--dry-run` on the cost of cells that are still to do.

    `unet_speed` is U-Net passes per second, in images; without one, hours are shown for some.
    Raises UsageError if the disk budget in the environment is no number.
    """
    if not cells:
        return "nothing to do: no U-Net call"
    cost = estimate_cost(config, cells, h_shapes)
    speeds = SPEEDS if unet_speed is None else (unet_speed,)
    hours = ", ".join(f"{cost.unet_calls / s / 3600:,.1f} h at {s:g}" for s in speeds)
    total = (cost.trajectories + cost.others) / GB
    return "\n".join(
        [
            f"about {cost.unet_calls:,.0f} U-Net calls (in images): inversion "
            f"{cost.inversion:,.0f}, fits {cost.fits:,.0f}, edits {cost.edits:,.0f}, "
            f"SAE {cost.sae:,.0f}",
            f"time of these passes: {hours} images a second; gradients, CLIP and scoring come on "
            "top",
            f"disk: about {total:,.1f} GB, of which trajectories {cost.trajectories / GB:,.1f} GB "
            f"(budget {disk_budget() / GB:,.0f} GB); fine-tuned weights come on top",
        ]
    )


def dry_run_text(config: RunConfig, unet_speed: float | None = None) -> str:
    """The matrix of cells, done and to do, and their cost, see `cost_text`; nothing is written."""
    check_run_folder(config)
    missing: list[str] = []
    h_shapes: dict[str, tuple[int, ...]] = {}
    domains: dict[str, DomainIdentity] = {}
    for dataset in config.datasets:
        try:
            domain = open_domain(dataset, config)
        except BenchError as error:  # planned all the same
            missing.append(f"not ready to run: {dataset}: {error}")
            domains[dataset] = DomainIdentity(card_of(dataset), "absent")
        else:
            h_shapes[dataset] = domain.backbone.h_shape
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
        cost_text(config, to_do, h_shapes, unet_speed),
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
