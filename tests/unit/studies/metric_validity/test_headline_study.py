"""Synthetic editors do what their settings say, and the red team what its names say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from casl_bench.domains.rendered import RENDERED, rendered_domain
from casl_bench.studies.metric_validity.attacks import ATTACKS, RedTeam, red_team
from casl_bench.studies.metric_validity.editors import (
    EDITORS,
    Settings,
    described,
    known_precise,
    known_purity,
    plan,
    settings_of,
)
from casl_bench.studies.metric_validity.edits import Subject
from casl_bench.studies.metric_validity.headline import CANDIDATES
from casl_bench.studies.metric_validity.headline_page import rank_correlation
from casl_bench.studies.metric_validity.study import subject_of

DOMAIN = "rendered_dogs"


@pytest.fixture(scope="module")
def subject() -> Subject:
    drawing = RENDERED[DOMAIN].drawing
    return subject_of(drawing, drawing.concepts[0], 8)


def test_the_first_three_editors_are_the_ends_of_the_scale(subject: Subject) -> None:
    exact, untouched, stranger = (plan(subject, number) for number in range(3))
    assert known_precise(exact, subject.target).tolist() == [1.0] * 8
    assert known_purity(exact, subject.target).tolist() == [1.0] * 8
    for edit in (untouched, stranger):
        assert known_precise(edit, subject.target).max() == 0
    assert known_purity(untouched, subject.target).max() == 0
    assert known_purity(stranger, subject.target).max() < 0.3


def test_editors_are_the_same_whenever_they_are_made_and_differ(subject: Subject) -> None:
    assert [settings_of(DOMAIN, n) for n in range(EDITORS)] == [
        settings_of(DOMAIN, n) for n in range(EDITORS)
    ]
    assert len({settings_of(DOMAIN, n) for n in range(EDITORS)}) > EDITORS // 2
    first, again = plan(subject, 7), plan(subject, 7)
    assert np.array_equal(first.end.nuisance, again.end.nuisance)
    assert described(Settings()) == "exact" and "missed 0.50" in described(Settings(missed=0.5))


def test_a_target_that_does_not_show_is_no_precise_edit(subject: Subject) -> None:
    edit = plan(subject, 0)
    faint = replace(edit, share=np.full(8, 0.4))
    assert known_precise(faint, subject.target).max() == 0
    assert known_purity(faint, subject.target).max() == 0


@pytest.fixture(scope="module")
def team(subject: Subject) -> RedTeam:
    domain = rendered_domain(DOMAIN)
    train = domain.dataset.load("train", 32).pixels
    spreads = np.stack([c.logits(train).std(0).double().numpy() for c in domain.classifiers])
    found = red_team(domain, spreads, subject)
    return replace(found, pool=found.pool[:64], train=found.train[:32])


def pictures(team: RedTeam, subject: Subject) -> torch.Tensor:
    return team.pictures(subject.lacking)


def test_swaps_are_whole_other_images(subject: Subject, team: RedTeam) -> None:
    x = pictures(team, subject)
    half = ATTACKS["swap_half_train"].make(team, subject)(x, 1.0)
    same = [torch.equal(a, b) for a, b in zip(half, x, strict=True)]
    assert same == [True, False] * 4
    every = ATTACKS["swap_guarded"].make(team, subject)(x, 1.0)
    assert all(any(torch.equal(e, p) for p in team.pool_pictures) for e in every)


def test_the_white_box_deceives_the_shipped_classifiers(subject: Subject, team: RedTeam) -> None:
    x = pictures(team, subject)
    edited = ATTACKS["white_box"].make(team, subject)(x, 1.0)
    assert (edited - x).abs().max() <= 0.12 + 1e-6
    fooled = (team.logits(edited)[:, :, subject.target] > 0).all(0)
    assert fooled.mean() > 0.8


def test_one_image_is_one_image(subject: Subject, team: RedTeam) -> None:
    x = pictures(team, subject)
    edited = ATTACKS["one_image"].make(team, subject)(x, 1.0)
    assert not torch.equal(edited[0], x[0]) and torch.equal(edited[1:], x[1:])


def test_every_attack_gives_pictures(subject: Subject, team: RedTeam) -> None:
    x = pictures(team, subject)
    for name, attack in ATTACKS.items():
        edited = attack.make(team, subject)(x, attack.strengths[0])
        assert edited.shape == x.shape and torch.isfinite(edited).all(), name


def test_candidates_have_titles_and_correlations_are_spearmans() -> None:
    assert all(title for title, _ in CANDIDATES.values())
    assert rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
