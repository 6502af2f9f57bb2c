"""What records of all kinds are filled with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from casl_bench.metrics.epr_plus import EPR_PLUS_INFO
from casl_bench.metrics.intervals import RESAMPLES, bootstrap_interval
from casl_bench.metrics.metric import METRICS, MetricInfo, metric_identity
from casl_bench.records.provenance import collect_provenance
from casl_bench.records.record import ErrorInfo, Measurement, Provenance, RunRecord, SuiteRef
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.plan import KEY_ARTEFACT, Cell, make_method
from casl_bench.runs.shared_work.fits import FitSpent
from casl_bench.runs.watching.stopwatch import Stopwatch
from casl_bench.worlds.world import World


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
        "fit_seed": cell.fit_seed,
        "concept": cell.concept.name,
    }


def provenance(
    config: RunConfig, watch: Stopwatch | None = None, spent: FitSpent | None = None
) -> Provenance:
    """Where and when.

    Args:
        config: of the run.
        watch: of this cell; None where nothing was measured.
        spent: by the fit of the cell's method, whoever made it.
    """
    found = collect_provenance(
        device=config.device,
        kernels=str(config.kernels),
        batch_size=config.batch_size,
        threads=torch.get_num_threads(),
        seconds={} if watch is None else watch.seconds,
        unet_passes={} if watch is None else watch.passes,
    )
    if spent is None:
        return found
    return found.model_copy(
        update={"fit_seconds": spent.seconds, "fit_peak_memory_mb": spent.peak_memory_mb}
    )


def without_result(
    world: World,
    config: RunConfig,
    cell: Cell,
    status: Literal["failed", "skipped"],
    error: Exception,
) -> RunRecord:
    """The record of a cell that has come to nothing, with the reason."""
    message = " ".join(str(error).split()) or type(error).__name__
    return RunRecord(
        **common_fields(world, config),
        **cell_fields(cell, config),
        status=status,
        error=ErrorInfo(type=type(error).__name__, message=message),
        artefacts={KEY_ARTEFACT: cell.key},
        provenance=provenance(config),
    )


def metric_versions() -> dict[str, int]:
    """Metric name → version."""
    return {info.name: info.version for info in _metric_infos()}


def metric_identities(attributes: Sequence[str]) -> dict[str, str]:
    """Metric name → hash of what must be equal for two of its numbers to be comparable."""
    return {info.name: metric_identity(info, attributes) for info in _metric_infos()}


def _metric_infos() -> list[MetricInfo]:
    return [METRICS.create(name).info for name in METRICS.names()] + [EPR_PLUS_INFO]


def over_images(
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    unit: str,
    seed: int,
    resamples: int = RESAMPLES,
) -> Measurement:
    """A number of n images with its bootstrap interval.

    Args:
        statistic: places of images, repeats included → number, NaN where undefined.
        n: how many images there are, >= 1.
        unit: of the number.
        seed: of the resamples.
        resamples: how many.
    """
    value = statistic(np.arange(n))
    if not np.isfinite(value):
        return Measurement.undefined("these images do not tell", n, unit)
    low, high = bootstrap_interval(statistic, n, seed, resamples=resamples) or (None, None)
    return Measurement(status="ok", value=value, low=low, high=high, n=n, unit=unit)
