"""What a metric is: a function of per-image rows, so that images can be resampled.

A metric of edits has two halves. `per_image` turns the scores of n images into columns [n, m];
`combine` turns the columns' means [..., m] into the number. A ratio of means is thus recomputed on
every resample instead of averaged, and thousands of resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from casl_bench.core.errors import InputError
from casl_bench.core.files import hash_json
from casl_bench.core.registry import Registry
from casl_bench.metrics.edit_scores import Array, EditScores

# What a number may depend on beside the edit itself: parts of what the metric is.
OTHERS = "others: the attributes but the target"
BASELINE = "baseline: reconstruction"
FLOOR = "floor: change from source to reconstruction"
SPREAD = "unit: spread over real source images"
UNRELATED = "reference: pairs of unrelated test images"


@dataclass(frozen=True)
class MetricInfo:
    """What a metric declares of itself.

    Attributes:
        name: lower_snake.
        version: raise it whenever a value may change.
        higher_is_better: None where neither direction is.
        unit: "ratio", "share" (of images, 0 to 1), "sd" (of a logit over real images), "dB", …
        bounds: least and largest possible value, None where there is none.
        title: as in a table.
        source: paper and equation, or "ours".
        scale_free: claims to stay the same when one attribute's logits and its spread are
            multiplied by one positive factor.
        depends_on: what a number means only together with: `OTHERS`, `BASELINE`, `FLOOR`, `SPREAD`,
            `UNRELATED`, or the metric's own words. Part of its identity, as the version is.
        formerly: a name that it was published under; its resamples keep that name's seed.
    """

    name: str
    version: int
    higher_is_better: bool | None
    unit: str
    bounds: tuple[float | None, float | None]
    title: str
    source: str = "ours"
    scale_free: bool = False
    depends_on: tuple[str, ...] = ()
    formerly: str = ""


def metric_identity(metric: MetricInfo, attributes: Sequence[str]) -> str:
    """What two numbers must share to be comparable, as twelve hexadecimal digits.

    The SHA-256 of the metric's name and version, what it depends on (baseline, floor, …), and,
    where it depends on `OTHERS`, the other attributes' names in any order.

    Raises:
        InputError: if a name is given twice.
    """
    if len(set(attributes)) != len(attributes):
        raise InputError(f"attributes {list(attributes)} are not distinct")
    parts = {
        "name": metric.name,
        "version": metric.version,
        "depends_on": sorted(metric.depends_on),
        "others": sorted(attributes) if OTHERS in metric.depends_on else [],
    }
    return hash_json(parts)[:12]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, or the reason why there is none.

    Attributes:
        value: None where the metric is undefined; never NaN or infinite.
        n: images (or test items) behind the number.
        low: lower end of the interval; None (with `high`) where there is no interval.
        high: upper end.
        reason: why the value is undefined; None where it is defined.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class EditMetric:
    """A metric of edited images.

    Attributes:
        info: its declaration.
        per_image: scores of n images → columns [n, m], float64, any m.
        combine: the columns' means [..., m] → values [...], NaN where undefined.
        undefined: why the metric has no value for these scores, or None where it has.
        count: how many of the images the number rests on.
    """

    info: MetricInfo
    per_image: Callable[[EditScores], Array]
    combine: Callable[[Array], Array]
    undefined: Callable[[EditScores], str | None] = lambda scores: None
    count: Callable[[EditScores], int] = len

    def value(self, scores: EditScores) -> float | None:
        """The number without an interval; None where it is undefined, as without any image."""
        if len(scores) == 0 or self.undefined(scores) is not None:
            return None
        value = float(self.combine(self.per_image(scores).mean(0)))
        return value if np.isfinite(value) else None


def no_others(scores: EditScores) -> str | None:
    """`undefined` of a metric that needs an attribute beside the target."""
    return None if scores.others else "the classifier knows no attribute but the target"


def first_column(means: Array) -> Array:
    """`combine` of a metric that is the plain mean of its one column."""
    return means[..., 0]


def signed_ratio(target: Array, others: Array) -> Array:
    """Their ratio; 0 where the target did not move, NaN where it did and the others did not."""
    ratio = np.where(target == 0, 0.0, np.nan)
    with np.errstate(over="ignore"):  # infinity, refused where an estimate is made of it
        return cast(Array, np.divide(target, others, out=ratio, where=others > 0))


METRICS: Registry[EditMetric] = Registry("metric", entry_point_group="casl_bench.metrics")


def register_metric(metric: EditMetric) -> EditMetric:
    """Make a metric known under its name; `METRICS.create(name)` gives it back.

    Raises:
        InputError: if its version is below 1 or its bounds are reversed.
        UsageError: if the name is another metric's.
    """
    low, high = metric.info.bounds
    if metric.info.version < 1 or (low is not None and high is not None and low > high):
        raise InputError(f"metric '{metric.info.name}' has a version below 1 or reversed bounds")

    def factory() -> EditMetric:
        return metric

    # The registry distinguishes factories by file and name: give each one its metric's own.
    factory.__qualname__ = f"{metric.per_image.__module__}.{metric.info.name}"
    METRICS.register(metric.info.name, factory)
    return metric


_DERIVED: dict[str, MetricInfo] = {}


def register_info(info: MetricInfo) -> MetricInfo:
    """Declare a number that needs more than the scores of one edit, such as a random direction's.

    It is not in `METRICS`, as no `EditMetric` computes it, but has a version and an identity alike.
    """
    _DERIVED[info.name] = info
    return info


def metric_infos() -> list[MetricInfo]:
    """Declarations of everything that is measured on edits, in order of name."""
    registered = {name: METRICS.create(name).info for name in METRICS.names()}
    return [info for _, info in sorted({**registered, **_DERIVED}.items())]
