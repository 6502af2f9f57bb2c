"""Editing precision ratio: how far the target moves for each unit that the others move.

The published number is blind to direction, grows with strength over a fixed floor, and depends on
each logit's scale and on the list of others. epr_plus.py has the variants that are not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.metric import (
    BASELINE,
    FLOOR,
    OTHERS,
    SPREAD,
    EditMetric,
    MetricInfo,
    no_others,
    register_info,
    register_metric,
    signed_ratio,
)

EPS = 1e-8


def _columns(before: Array, after: Array, scores: EditScores) -> Array:
    """[n, 2]: the target's absolute change, and the mean of the others'."""
    change = np.abs(after - before)
    return np.stack([change[:, scores.target], change[:, scores.others].mean(1)], axis=1)


def _ratio(means: Array) -> Array:
    return means[..., 0] / (means[..., 1] + EPS)


def _raw_columns(scores: EditScores) -> Array:
    return _columns(scores.base, scores.edit, scores)


def _floored_columns(scores: EditScores) -> Array:
    noise = _columns(scores.source, scores.base, scores)[:, 1:]
    return np.concatenate([_raw_columns(scores), noise], axis=1)


def _floored_ratio(means: Array) -> Array:
    target, others, floor = means[..., 0], means[..., 1], means[..., 2]
    # x / 0 where nothing else moved and inversion loses nothing: not finite, hence undefined.
    with np.errstate(invalid="ignore", divide="ignore"):
        return target / np.maximum(others, floor)


def _below_floor(scores: EditScores, unit: Array | float = 1.0) -> str | None:
    """An edit whose others move no more than inversion moves them: its EPR divides by noise."""
    if (reason := no_others(scores)) is not None:
        return reason
    source, base, edit = (x / unit for x in (scores.source, scores.base, scores.edit))
    floor, others = (
        float(_columns(before, after, scores)[:, 1].mean())
        for before, after in ((source, base), (base, edit))
    )
    if others > floor:
        return None
    return (
        f"below the noise floor: other attributes moved by {others:.3g}, "
        f"reconstruction alone moves them by {floor:.3g}"
    )


EPR_RAW = register_metric(
    EditMetric(
        MetricInfo(
            name="epr_raw",
            version=1,
            higher_is_better=True,
            unit="ratio",
            bounds=(0, None),
            title="EPR",
            source="CASL (arXiv 2601.15441), eq. 14",
            depends_on=(OTHERS, BASELINE, FLOOR),
        ),
        _raw_columns,
        _ratio,
        _below_floor,
    )
)
"""mean_i |d_t(i)| / (mean_{j != t} mean_i |d_j(i)| + 1e-8), with d_j = edit_j - base_j.

The baseline is the reconstruction, not the source image, so that the inversion's error is no part
of the edit's. The others are part of what the number means. A ratio >= 0; undefined where the
others move no more than the noise floor mean_{j != t} mean_i |base_j - source_j|.
"""
EPR_STD = register_metric(
    EditMetric(
        replace(
            EPR_RAW.info,
            name="epr_std",
            version=1,
            title="EPR, logits standardised",
            source="ours",
            scale_free=True,
            depends_on=(OTHERS, BASELINE, FLOOR, SPREAD),
        ),
        lambda scores: _columns(scores.base / scores.spread, scores.edit / scores.spread, scores),
        _ratio,
        lambda scores: _below_floor(scores, scores.spread),
    )
)
"""`epr_raw` of logits divided by their spread: unchanged when a classifier's logit is rescaled."""
EPR_FLOORED = register_metric(
    EditMetric(
        replace(
            EPR_RAW.info,
            name="epr_floored",
            version=1,
            title="EPR, denominator at least the noise floor",
            source="ours",
        ),
        _floored_columns,
        _floored_ratio,
        no_others,
    )
)
"""mean_i |d_t| / max(mean_{j != t} mean_i |d_j|, floor), with `epr_raw`'s symbols.

Never above EPR, equal to it above the floor, and defined where EPR would divide by less than
inversion alone moves.
"""
EPR_OVER_RANDOM_INFO = register_info(
    replace(
        EPR_FLOORED.info,
        name="epr_over_random",
        version=1,
        title="EPR over random",
        depends_on=(OTHERS, BASELINE, FLOOR, "reference: a random edit of equal norm"),
    )
)
"""`epr_floored` over that of a random edit of equal norm on the same images."""


# EPR without a classifier: the changes of the factors that an image was rendered from.


def _factor_columns(scores: EditScores) -> Array:
    assert scores.factor_target is not None and scores.factor_others is not None
    return np.stack([scores.sign * scores.factor_target, scores.factor_others], axis=1)


def _no_factors(scores: EditScores) -> str | None:
    if scores.factor_target is None or scores.factor_others is None:
        return "no regressor gave 'factor_target' and 'factor_others'"
    if scores.factor_target.mean() != 0 and not scores.factor_others.any():
        return "no other factor moved: there is nothing to divide by"
    return None


FACTOR_EPR = register_metric(
    EditMetric(
        MetricInfo(
            name="factor_epr",
            version=1,
            higher_is_better=True,
            unit="ratio",
            bounds=(None, None),
            title="EPR of known factors",
            scale_free=True,
            depends_on=(BASELINE, "others: all known factors but the target"),
        ),
        _factor_columns,
        lambda means: signed_ratio(means[..., 0], means[..., 1]),
        _no_factors,
    )
)
"""`epr_signed` of known factors: s * mean_i f_it / mean_i mean_{k != t} |f_ik|.

f_ik is the change of factor k from image i's reconstruction to its edit, as a regressor of the
known factors reads it, in standard deviations of the factor; s = +1 where the target is to be
turned on, -1 where off. The others are all factors but the target, those that no classifier names
too. There is no floor: a regressor never reads two images as quite the same. Negative where the
edit goes the wrong way, 0 where the target does not move.
"""
