"""Logits before and after an edit → EPR and its relatives: numpy alone, no model, no run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from casl_bench.core.errors import InputError, unknown_name
from casl_bench.core.seeding import derive_seed
from casl_bench.metrics.bootstrap import evaluate
from casl_bench.metrics.edit_scores import Array, EditScores, check_array, spread_of
from casl_bench.metrics.edit_success import (
    FLIP_RATE,
    MEAN_COLLATERAL,
    OFF_TARGET_FLIPS_PER_FLIP,
    SIGNED_TARGET_CHANGE,
    WRONG_WAY_RATE,
)
from casl_bench.metrics.epr import EPR_RAW
from casl_bench.metrics.epr_plus import EPR_SIGNED
from casl_bench.metrics.metric import OTHERS, SPREAD, EditMetric, MetricInfo

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.5
"""Standard deviations by which another attribute may move in an edit that counts as precise."""


def edit_scores(
    base_logits: ArrayLike,
    edit_logits: ArrayLike,
    target: int,
    *,
    spread: ArrayLike | None = None,
    remove: bool = False,
) -> EditScores:
    """What the metrics of this package see of n images before and after an edit.

    Args:
        base_logits: [n, A] of the images before the edit, n >= 1; above 0 the attribute is there.
        edit_logits: [n, A] of the same images after it.
        target: column of the attribute that was to be turned on.
        spread: [A] standard deviation of each logit over real images, > 0, the unit of changes;
            by default that of the images before the edit. An attribute that does not vary there
            counts in plain logits.
        remove: the attribute was to be turned off instead.

    Raises:
        InputError: on other shapes, no image, NaN or infinity, or a target that is no column.
    """
    base = check_array("base logits", base_logits, 2)
    edit = check_array("edit logits", edit_logits, 2, base.shape)
    if not len(base):
        raise InputError("at least one image is needed")
    if not -base.shape[1] <= target < base.shape[1]:
        raise InputError(f"target {target} is not one of {base.shape[1]} columns")
    if spread is None:
        unit = spread_of(base, 0)
        unit = np.where(unit > 0, unit, 1.0)
    else:
        unit = check_array("spread", spread, 1, base.shape[1:])
    sign = -1 if remove else 1
    return EditScores(base, base, edit, target % base.shape[1], sign, unit)


def epr(base_logits: ArrayLike, edit_logits: ArrayLike, target: int) -> float:
    """Editing precision ratio: the target's mean absolute change over that of the others.

    As published, so blind to direction and in raw logits; NaN where nothing but the target is
    known, or nothing else moved. Arguments and errors as `edit_scores`.

    Source: CASL (arXiv 2601.15441), eq. 14.
    """
    return _value(EPR_RAW, edit_scores(base_logits, edit_logits, target))


def signed_epr(
    base_logits: ArrayLike,
    edit_logits: ArrayLike,
    target: int,
    *,
    spread: ArrayLike | None = None,
    remove: bool = False,
) -> float:
    """EPR with a direction, in standard deviations: negative where the edit goes the wrong way.

    NaN where only the target moved. Arguments and errors as `edit_scores`; the definition is that
    of the metric `epr_signed` without a noise floor, as nothing was inverted.
    """
    return _value(
        EPR_SIGNED, edit_scores(base_logits, edit_logits, target, spread=spread, remove=remove)
    )


def flip_rate(
    base_logits: ArrayLike, edit_logits: ArrayLike, target: int, *, remove: bool = False
) -> float:
    """Of the images that lacked the attribute, the share that has it after the edit, in [0, 1].

    NaN where every image had it already. Arguments and errors as `edit_scores`.
    """
    return _value(FLIP_RATE, edit_scores(base_logits, edit_logits, target, remove=remove))


def precise_edit_rate(
    base_logits: ArrayLike,
    edit_logits: ArrayLike,
    target: int,
    *,
    tolerance: float = TOLERANCE,
    spread: ArrayLike | None = None,
    remove: bool = False,
) -> float:
    """Of the images that lacked the attribute, the share that gained it and nothing else.

    An edit is precise where the target flips as asked and no other attribute moves by more than
    `tolerance` standard deviations. In [0, 1]; NaN where every image had the attribute already.
    Arguments and errors as `edit_scores`.

    Raises:
        InputError: also if the tolerance is no positive number.
    """
    scores = edit_scores(base_logits, edit_logits, target, spread=spread, remove=remove)
    return _value(precise_edits(tolerance), scores)


def precise_edits(tolerance: float) -> EditMetric:
    """`precise_edit_rate` as a metric, so that it has an interval.

    Raises:
        InputError: if the tolerance is no positive number.
    """
    if not (tolerance > 0 and np.isfinite(tolerance)):
        raise InputError(f"a tolerance of {tolerance:g} is no positive number")

    def columns(scores: EditScores) -> Array:
        flipped, eligible = FLIP_RATE.per_image(scores).T
        return np.stack([flipped * (largest_other(scores) <= tolerance), eligible], axis=1)

    info = MetricInfo(
        name="precise_edit_rate",
        version=1,
        higher_is_better=True,
        unit="share",
        bounds=(0, 1),
        title=f"precise edits, others within {tolerance:g} sd",
        depends_on=(OTHERS, SPREAD, f"tolerance: {tolerance:g} sd"),
    )
    return EditMetric(info, columns, FLIP_RATE.combine, FLIP_RATE.undefined, FLIP_RATE.count)


def changes(scores: EditScores) -> Array:
    """[n, A] change of every logit, in its standard deviations."""
    change: Array = (scores.edit - scores.base) / scores.spread
    return change


def largest_other(scores: EditScores) -> Array:
    """[n] largest absolute change of an attribute but the target, in sd; 0 without others."""
    others = np.abs(changes(scores))[:, scores.others]
    largest: Array = others.max(1) if others.shape[1] else np.zeros(len(scores))
    return largest


def _value(metric: EditMetric, scores: EditScores) -> float:
    value = metric.value(scores)
    return float("nan") if value is None else value


@dataclass(frozen=True)
class PairScores:
    """n images before and after an edit, scored.

    Attributes:
        image_ids: n names.
        attributes: A names, the classifier's columns.
        scores: logits, target and direction.
        tolerance: of a precise edit, in standard deviations.
        measured: more columns, a number per image, such as "perceptual".
        notes: what a reader should know, such as files that were left out.
    """

    image_ids: tuple[str, ...] = field(repr=False)
    attributes: tuple[str, ...]
    scores: EditScores = field(repr=False)
    tolerance: float = TOLERANCE
    measured: Mapping[str, Array] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def target(self) -> str:
        """The attribute that was edited."""
        return self.attributes[self.scores.target]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per metric: value, 95 % interval over images, n, unit, title, and why no value."""
        import pandas as pd

        rows = []
        for metric in (precise_edits(self.tolerance), *_METRICS):
            found = evaluate(metric, self.scores, derive_seed(0, "pairs", metric.info.name))
            rows.append(
                [metric.info.name, found.value, found.low, found.high, found.n, metric.info.unit,
                 metric.info.title, found.reason or ""]
            )  # fmt: skip
        for name, values in self.measured.items():
            seed = derive_seed(0, "pairs", name)
            found = evaluate(_mean_of(name, values), self.scores, seed)
            rows.append([name, found.value, found.low, found.high, len(self), "", name, ""])
        heads = ["metric", "value", "low", "high", "n", "unit", "title", "reason"]
        table = pd.DataFrame(rows, columns=heads).set_index("metric")
        return table.astype({"value": float, "low": float, "high": float})

    def _repr_html_(self) -> str:
        """In a notebook: the table."""
        return str(self.table.to_html(float_format="{:.3g}".format))

    @cached_property
    def per_image(self) -> pd.DataFrame:
        """A row per image: whether it flipped and was precise, changes in sd, all logits."""
        import pandas as pd

        s = self.scores
        change = changes(s)
        flipped, eligible = FLIP_RATE.per_image(s).T.astype(bool)
        others = np.array(s.others, dtype=np.intp)
        rows: dict[str, Any] = {
            "image": self.image_ids,
            "lacked_it": eligible,
            "flipped": flipped,
            "precise": flipped & (largest_other(s) <= self.tolerance),
            "target_change": s.sign * change[:, s.target],
        }
        if len(others):
            moved = np.abs(change)[:, others]
            rows["other_change"] = moved.mean(1)
            rows["most_changed"] = [self.attributes[others[k]] for k in moved.argmax(1)]
            rows["most_change"] = change[:, others][np.arange(len(self)), moved.argmax(1)]
        rows |= self.measured
        for side, logits in (("before", s.base), ("after", s.edit)):
            rows |= {f"{side}/{name}": logits[:, k] for k, name in enumerate(self.attributes)}
        return pd.DataFrame(rows).set_index("image")


_METRICS = (
    FLIP_RATE, EPR_RAW, EPR_SIGNED, SIGNED_TARGET_CHANGE, MEAN_COLLATERAL,
    OFF_TARGET_FLIPS_PER_FLIP, WRONG_WAY_RATE,
)  # fmt: skip


def _mean_of(name: str, values: Array) -> EditMetric:
    info = MetricInfo(name, 1, None, "", (None, None), name)
    return EditMetric(info, lambda _: values[:, None], lambda means: means[..., 0])


def column_of(attributes: Sequence[str], target: str | int) -> int:
    """The column of an attribute, given by name or place.

    Raises:
        UsageError: with the nearest name, where the classifier does not know it.
        InputError: where there is no such place.
    """
    if isinstance(target, str):
        if target not in attributes:
            raise unknown_name("attribute", target, attributes)
        return list(attributes).index(target)
    if not 0 <= target < len(attributes):
        raise InputError(f"target {target} is not one of {len(attributes)} attributes")
    return target
