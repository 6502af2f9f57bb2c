"""Registered metrics declare what they keep to, and strangers' metrics can join."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from casl_bench.core.errors import InputError, UsageError
from casl_bench.core.registry import discover
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr import EPR_RAW
from casl_bench.metrics.epr_plus import EPR_PLUS_INFO
from casl_bench.metrics.metric import (
    BASELINE,
    FLOOR,
    METRICS,
    OTHERS,
    EditMetric,
    MetricInfo,
    first_column,
    metric_identity,
    register_metric,
)

discover("casl_bench.metrics", METRICS)

EXPECTED = {
    "epr_raw",
    "epr_std",
    "epr_floored",
    "epr_signed",
    "worst_attribute_epr",
    "factor_epr",
    "flip_precision",
    "pixel_locality",
    "perceptual_guard",
    "identity_guard",
    "signed_target_change",
    "mean_collateral",
    "flip_rate",
    "wrong_way_rate",
    "clip_similarity",
    "perceptual",
    "identity",
}


def make(change: float, seed: int = 0, wobble: float = 0.1) -> EditScores:
    """64 images, 4 attributes; the target moves by `change`, everything by a little noise."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(64, 4))
    source = base + 0.01 * rng.normal(size=base.shape)
    edit = base + wobble * rng.normal(size=base.shape)
    edit[:, 0] += change
    close = np.exp(-wobble * rng.random(64))
    return EditScores(
        source, base, edit, 0, 1, base.std(0), np.tanh(change * close), 1 - close, close,
        locality=close, factor_target=change * close, factor_others=wobble * close,
        unrelated_perceptual=0.9, unrelated_identity=0.1,
    )  # fmt: skip


def test_every_metric_of_ours_is_registered_without_trouble() -> None:
    assert set(METRICS.names()) >= EXPECTED
    assert not METRICS.broken


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_declared_bounds_and_direction_hold(name: str) -> None:
    metric = METRICS.create(name)
    assert metric.info.name == name and metric.info.title and metric.info.source
    good, bad = metric.value(make(3.0, wobble=0.05)), metric.value(make(-0.2, wobble=2.0))
    assert good is not None and bad is not None
    low, high = metric.info.bounds
    for value in (good, bad):
        assert (low is None or value >= low) and (high is None or value <= high)
    assert metric.info.higher_is_better is not None
    assert (good > bad) == metric.info.higher_is_better


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_order_of_images_does_not_matter(name: str) -> None:
    scores, order = make(1.0), np.random.default_rng(1).permutation(64)
    metric = METRICS.create(name)
    assert metric.value(scores.take(order)) == pytest.approx(metric.value(scores))


def test_a_strangers_metric_joins_and_a_stolen_name_is_refused() -> None:
    info = MetricInfo("test_only_median_gain", 1, True, "logit", (None, None), "median gain")
    mine = EditMetric(info, lambda s: (s.edit - s.base)[:, :1], first_column)
    register_metric(mine)
    try:
        register_metric(mine)  # the same module imported twice does no harm
        assert METRICS.create(info.name) is mine
        with pytest.raises(UsageError, match="registered twice"):
            register_metric(replace(EPR_RAW, info=info))
    finally:
        del METRICS._factories[info.name]


def test_a_senseless_declaration_is_refused() -> None:
    for change in ({"version": 0}, {"bounds": (1, 0)}):
        info = replace(EPR_RAW.info, name="test_only_bad", **change)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            register_metric(replace(EPR_RAW, info=info))
    assert "test_only_bad" not in METRICS


def test_numbers_are_comparable_where_nothing_they_depend_on_differs() -> None:
    info, others = METRICS.create("epr_signed").info, ["beard", "hat"]
    same = metric_identity(info, others)
    assert len(same) == 12 and metric_identity(info, others[::-1]) == same
    changed = [
        metric_identity(info, ["beard"]),
        metric_identity(info, ["beard", "pale"]),
        metric_identity(replace(info, version=2), others),
        metric_identity(replace(info, name="other"), others),
        metric_identity(replace(info, depends_on=(OTHERS, BASELINE)), others),
        metric_identity(replace(info, depends_on=(OTHERS, FLOOR)), others),
        metric_identity(EPR_PLUS_INFO, others),
    ]
    assert len({same, *changed}) == 1 + len(changed)
    # A title is no part of what the number is.
    assert metric_identity(replace(info, title="another"), others) == same


def test_the_list_of_others_counts_only_where_the_metric_divides_by_them() -> None:
    info = METRICS.create("flip_rate").info
    assert metric_identity(info, ["beard"]) == metric_identity(info, [])
    with pytest.raises(InputError, match="distinct"):
        metric_identity(info, ["hat", "hat"])


def test_no_image_has_no_value() -> None:
    empty = make(1.0).take([])
    assert all(METRICS.create(name).value(empty) is None for name in EXPECTED)
