"""A suite of seconds for tests of whole runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from casl_bench.results.record import RunRecord
from casl_bench.runs.suites import Suite


def tiny_suite(**changes: Any) -> Suite:
    """The least of everything that a run can do, with some of it changed."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": 1,
        "description": "For tests.",
        "quick": True,
        "num_steps": 4,
        "timestep_power": 1.5,
        "extrapolate": False,
        "train_images": 8,
        "validation_images": 2,
        "test_pool_images": 8,
        "test_images_per_concept": 2,
        "strengths": (0.5, 1.0),
        "fit_image_steps": 16,
        "doublings": 1,
        "references": False,
        "sae_steps": 3,
        "probe_train_images": 8,
        "probe_test_images": 8,
        "probe_ks": (1,),
        "random_draws": 2,
    }
    return Suite(**(fields | changes))


def as_measured(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The same records as of a suite that is not quick: tables show their numbers."""
    return [
        r.model_copy(update={"suite": r.suite.model_copy(update={"quick": False})}) for r in records
    ]
