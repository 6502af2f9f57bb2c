"""Did the benchmark itself move? Then no method's number says anything about the method.

The random draws that EPR+ is divided by have the same seeds and images on both sides. Unless their
version was raised they have the same EPR, and a head in which they do not has changed the unit.
"""

from __future__ import annotations

import math

import numpy as np

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.gate.comparable import why_not_comparable
from casl_bench.gate.run_side import RunSide
from casl_bench.gate.verdict import LOSS
from casl_bench.records.record import RunRecord

_UNIT = "epr_std"


def check_yardstick(base: RunSide, head: RunSide, datasets: frozenset[str] | None = None) -> None:
    """Refuse a head whose random draws are others than the base's.

    Args:
        base: what was accepted.
        head: what is asked about.
        datasets: those that count; None for all.

    Raises:
        InvalidBenchmarkError: if, on a data set, the mean log ratio of the draws' EPR is off 0 by
            more than `LOSS`.
    """
    moved: dict[str, list[float]] = {}
    for key, draws in base.draws.items():
        if datasets is not None and key[0] not in datasets:
            continue
        now = {r.fit_seed: r for r in head.draws.get(key, [])}
        for was in draws:
            ratio = _log_ratio(was, now.get(was.fit_seed))
            if ratio is not None:
                moved.setdefault(key[0], []).append(ratio)
    for dataset, ratios in moved.items():
        mean = float(np.mean(ratios))
        if abs(mean) > -LOSS:
            raise InvalidBenchmarkError(
                f"the random draws of {dataset} have {math.exp(mean):.2f} times the base's EPR: "
                "the unit of EPR+ changed, not the methods",
                where=str(head.where),
                mend="find what moved them, or raise the version of 'random_direction'",
            )


def _log_ratio(base: RunRecord, head: RunRecord | None) -> float | None:
    if head is None or why_not_comparable(base, head) is not None:
        return None
    was, now = base.measurements.get(_UNIT), head.measurements.get(_UNIT)
    if was is None or now is None or not was.value or not now.value:
        return None
    return math.log(now.value / was.value)
