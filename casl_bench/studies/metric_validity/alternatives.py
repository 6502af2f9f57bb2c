"""Plain alternatives to the registered metrics: judged beside them, offered nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr import EPS
from casl_bench.metrics.metric import METRICS, EditMetric, MetricInfo, first_column


def _per_image_ratio(scores: EditScores) -> Array:
    change = np.abs(scores.edit - scores.base)
    ratio: Array = change[:, scores.target] / (change[:, scores.others].mean(1) + EPS)
    return ratio[:, None]


def _difference(scores: EditScores) -> Array:
    change = (scores.edit - scores.base) / scores.spread
    gain = scores.sign * change[:, scores.target]
    difference: Array = gain - np.abs(change[:, scores.others]).mean(1)
    return difference[:, None]


MEAN_OF_RATIOS = EditMetric(
    # mean_i |d_t(i)| / (mean_{j != t} |d_j(i)| + eps): EPR's ratio within each image.
    MetricInfo("mean_of_ratios", 1, True, "ratio", (0, None), "mean of per-image ratios"),
    _per_image_ratio,
    first_column,
)
TARGET_MINUS_OTHERS = EditMetric(
    # mean_i sign d_t(i) / s_t - mean_{j != t} mean_i |d_j(i)| / s_j: a difference for a ratio.
    MetricInfo("target_minus_others", 1, True, "sd", (None, None), "target change − other change"),
    _difference,
    first_column,
)


@dataclass(frozen=True)
class Candidate:
    """A metric on trial.

    Attributes:
        metric: the metric.
        registered: whether it is one of `METRICS`, or a plain alternative.
    """

    metric: EditMetric
    registered: bool


def candidates() -> list[Candidate]:
    """All registered metrics in order of name, then the alternatives."""
    found = [Candidate(METRICS.create(name), True) for name in METRICS.names()]
    return found + [Candidate(m, False) for m in (MEAN_OF_RATIOS, TARGET_MINUS_OTHERS)]
