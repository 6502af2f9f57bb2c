"""Tricks do what they say, and each is seen by the metric that should see it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from casl_bench.domains.rendered import CLASSIFIERS, RENDERED
from casl_bench.metrics.metric import EditMetric
from casl_bench.models.scorers import Differentiable
from casl_bench.studies.metric_validity.records import TrickRow
from casl_bench.studies.metric_validity.study import (
    RADIUS,
    StudyScorers,
    attacked,
    play_on_images,
    subject_of,
)
from casl_bench.studies.metric_validity.tricks import (
    ATTRIBUTES,
    TRICKS,
    LinearToy,
    ToyEdit,
    play_on_toys,
    summarised,
)

ON_IMAGES = ("copy", "jittered_copy", "pixel_attack")


@pytest.fixture(scope="module")
def on_toys(metrics: list[EditMetric]) -> list[TrickRow]:
    return summarised(play_on_toys(metrics, toys=1))


@pytest.fixture(scope="module")
def on_images(scorers: StudyScorers, metrics: list[EditMetric]) -> list[TrickRow]:
    name = scorers.domain.dataset.card.name
    drawing = RENDERED[name].drawing
    subject = subject_of(drawing, drawing.concepts[0], 8)
    return summarised(play_on_images(metrics, scorers, subject))


def value(
    rows: list[TrickRow], metrics: list[EditMetric], trick: str, side: str, metric: str,
    classifier: str = "linear",
) -> float:  # fmt: skip
    names = [*(m.info.name for m in metrics), "epr_plus"]
    (row,) = [r for r in rows if (r.trick, r.side, r.classifier) == (trick, side, classifier)]
    found = row.values[names.index(metric)]
    assert found is not None
    return found


@pytest.mark.parametrize(("trick", "factor"), [("logit_times_8", 8.0), ("logit_times_0.2", 0.2)])
def test_scale_moves_raw_ratios_only(
    on_toys: list[TrickRow], metrics: list[EditMetric], trick: str, factor: float
) -> None:
    def gain(metric: str) -> float:
        before, after = (
            value(on_toys, metrics, trick, side, metric) for side in ("before", "after")
        )
        return after / before

    assert gain("epr_raw") == pytest.approx(factor, rel=1e-3)
    for metric in ("epr_std", "epr_signed", "epr_plus"):
        assert gain(metric) == pytest.approx(1.0, rel=1e-3)


def test_padding_dilutes_means_and_not_the_worst(
    on_toys: list[TrickRow], metrics: list[EditMetric]
) -> None:
    before, after = (
        [value(on_toys, metrics, "padded", side, m) for m in ("epr_signed", "worst_attribute_epr")]
        for side in ("before", "after")
    )
    # 11 others became 31, and the twenty new ones do not move.
    assert after[0] / before[0] == pytest.approx(31 / 11, rel=1e-3)
    assert after[1] == pytest.approx(before[1])


def test_strength_raises_the_headline(on_toys: list[TrickRow], metrics: list[EditMetric]) -> None:
    weak, strong = (
        value(on_toys, metrics, "strength", side, "epr_plus") for side in ("before", "after")
    )
    assert strong > 5 * weak > 0


def test_random_directions_have_the_effect_of_the_edit() -> None:
    toy = LinearToy.sample(0)
    edit = ToyEdit(toy, 3, 2 * toy.directions[3])
    effects = [abs((s.edit - s.base)[:, 3].mean()) for s in (edit.scores, *edit.null)]
    np.testing.assert_allclose(effects, effects[0])


def test_a_pure_direction_moves_nothing_else() -> None:
    toy = LinearToy.sample(1)
    moved = toy.directions @ toy.pure_direction(2)
    assert moved[2] > 0.5
    np.testing.assert_allclose(np.delete(moved, 2), np.zeros(ATTRIBUTES - 1), atol=1e-12)


def test_a_copy_changes_nothing(on_images: list[TrickRow], metrics: list[EditMetric]) -> None:
    for classifier in CLASSIFIERS:
        for metric in ("signed_target_change", "epr_signed", "flip_rate", "perceptual_drift"):
            assert value(on_images, metrics, "copy", "after", metric, classifier) == 0


def test_the_attack_deceives_one_classifier(
    on_images: list[TrickRow], metrics: list[EditMetric]
) -> None:
    fooled, other = (
        value(on_images, metrics, "pixel_attack", "after", "signed_target_change", classifier)
        for classifier in CLASSIFIERS
    )
    assert fooled > 0.8 and other < 0.3


def test_the_attack_stays_within_its_radius(scorers: StudyScorers) -> None:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 64, 64, generator=rng) * 2 - 1
    scorer = scorers.domain.classifiers[0]
    assert isinstance(scorer, Differentiable)
    after = attacked(scorer, pixels, 0, np.ones(6))
    assert float((after - pixels).abs().max()) <= RADIUS + 1e-6
    assert float(after.abs().max()) <= 1
    assert bool((scorer.logits(after)[:, 0] > scorer.logits(pixels)[:, 0]).all())


def test_every_trick_is_played(on_toys: list[TrickRow], on_images: list[TrickRow]) -> None:
    played = {r.trick for r in (*on_toys, *on_images)}
    # The two others are levels of a family and taken from the rows of the study.
    assert set(TRICKS) - played == {"wrong_way", "half_wrong_way"}
    assert set(ON_IMAGES) <= played
