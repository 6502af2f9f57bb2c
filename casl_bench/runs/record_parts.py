"""What records of all kinds are filled with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from casl_bench.core.seeding import derive_seed
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.intervals import evaluate, evaluate_ratio
from casl_bench.metrics.metric import METRICS
from casl_bench.metrics.score_table import ScoreTable
from casl_bench.records.provenance import collect_provenance
from casl_bench.records.record import Measurement, Provenance, SuiteRef
from casl_bench.runs.config import RunConfig
from casl_bench.runs.fits import FitSpent
from casl_bench.runs.plan import Cell, make_method
from casl_bench.worlds.world import World

RANDOM_RATIO_OF = "epr_floored"
OVER_RANDOM = "epr_over_random"


class Stopwatch:
    """Seconds a phase, for provenance."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's wall time to a phase."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def common_fields(world: World, config: RunConfig) -> dict[str, Any]:
    """Fields of a record that all cells of a data set share."""
    card = world.dataset.card
    return {
        "world": card.world,
        "dataset": card.name,
        "dataset_revision": card.revision,
        "suite": SuiteRef(
            name=config.suite.name, version=config.suite.version, quick=config.suite.quick
        ),
        "seed": config.seed,
        "attributes": card.attributes,
        "scorers": world.scorer_hashes,
        "backbone": world.backbone.weights_hash,
    }


def cell_fields(cell: Cell, config: RunConfig) -> dict[str, Any]:
    """Fields of a record that say which cell it is of and how its method is set."""
    method = make_method(cell.method, config.suite)
    return {
        "kind": "edit",
        "method": cell.method,
        "method_version": method.info.version,
        "method_config": method.config.model_dump(mode="json"),
        "supervision": method.info.supervision,
        "control": cell.control,
        "beside": cell.beside,
        "concept": cell.concept.name,
    }


def provenance(
    config: RunConfig, seconds: Mapping[str, float], spent: FitSpent | None = None
) -> Provenance:
    """Where and when.

    Args:
        config: of the run.
        seconds: of this cell, by phase.
        spent: by the fit of the cell's method, whoever made it.
    """
    found = collect_provenance(
        device=config.device,
        batch_size=config.batch_size,
        threads=torch.get_num_threads(),
        seconds=seconds,
    )
    if spent is None:
        return found
    return found.model_copy(
        update={"fit_seconds": spent.seconds, "fit_peak_memory_mb": spent.peak_memory_mb}
    )


def edit_measurements(
    scores: EditScores, seed: int, classifier: str = ""
) -> dict[str, Measurement]:
    """Every registered metric of edits; other classifiers' under `metric@classifier`."""
    found = {}
    for name in METRICS.names():
        metric = METRICS.create(name)
        estimate = evaluate(metric, scores, derive_seed(seed, "bootstrap", name))
        key = f"{name}@{classifier}" if classifier else name
        found[key] = Measurement.from_estimate(estimate, metric.info.unit)
    return found


def all_measurements(
    table: ScoreTable, strength: float, attribute: str, spreads: Array, seed: int
) -> dict[str, Measurement]:
    """Metrics by the primary classifier, and by the others those that logits decide.

    Args:
        table: the cell's scores.
        strength: one of the table's.
        attribute: the target.
        spreads: [K, A] standard deviation of each classifier's logits over source images.
        seed: of the resamples.
    """
    found: dict[str, Measurement] = {}
    for k, name in enumerate(table.classifiers):
        scores = table.at(strength, attribute, spreads[k], classifier=name)
        if k:
            scores = EditScores(
                scores.source, scores.base, scores.edit, scores.target, scores.sign, scores.spread
            )
        measured = edit_measurements(scores, seed, name if k else "")
        found |= {n: m for n, m in measured.items() if not k or m.status == "ok"}
    return found


def over_random(
    table: ScoreTable,
    random: ScoreTable,
    strength: float,
    attribute: str,
    spread: Array,
    seed: int,
) -> Measurement:
    """EPR over that of the random direction, on the same images, resampled together."""
    estimate = evaluate_ratio(
        METRICS.create(RANDOM_RATIO_OF),
        table.at(strength, attribute, spread),
        random.at(strength, attribute, spread),
        derive_seed(seed, "bootstrap", OVER_RANDOM),
    )
    return Measurement.from_estimate(estimate, "ratio")


def metric_versions() -> dict[str, int]:
    """Metric name → version."""
    return {name: METRICS.create(name).info.version for name in METRICS.names()}
