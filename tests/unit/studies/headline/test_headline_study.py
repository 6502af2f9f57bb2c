"""Synthetic editors do what their settings say, and the red team what its names say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from casl_bench.domains.rendered import RENDERED, rendered_domain
from casl_bench.studies.headline.attacks import ATTACKS, RedTeam, _drift, _seen, red_team
from casl_bench.studies.headline.editors import (
    EDITORS,
    Settings,
    described,
    known_precise,
    known_purity,
    plan,
    settings_of,
)
from casl_bench.studies.headline.page import bounds, rank_correlation
from casl_bench.studies.headline.study import (
    CANDIDATES,
    AttackRow,
    EditorRow,
    HeadlineHeader,
    HeadlineRecords,
    Judge,
)
from casl_bench.studies.headline.subjects import Subject, subject_of

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


def test_what_is_hidden_stays_near_the_honest_edit(subject: Subject, team: RedTeam) -> None:
    x = pictures(team, subject)
    plain, edited = (ATTACKS[n].make(team, subject)(x, 1.5) for n in ("pixel_mean", "hidden"))
    assert (edited - plain.clamp(-1, 1)).abs().max() <= 0.12 + 1e-6
    reader = team.domain.factors
    assert reader is not None
    name = subject.concept.attribute
    before, after = (
        reader.worst_change_of(reader.factors(e) - reader.factors(x), name).mean()
        for e in (plain, edited)
    )
    assert after < before


def test_attacks_over_an_honest_row_begin_with_it(subject: Subject, team: RedTeam) -> None:
    x = pictures(team, subject)
    template = ATTACKS["nearest_template"].make(team, subject)(x, 1.0)
    cautious = ATTACKS["abstain"].make(team, subject)(x, 1.0)
    for edited, plain, source in zip(cautious, template, x, strict=True):
        assert torch.equal(edited, plain) or torch.equal(edited, source)
    best = ATTACKS["best_template"].make(team, subject)(x, 1.0)
    drifts = [_drift(team, subject, x, e.clamp(-1, 1)) for e in (template, best)]
    seen = _seen(team, subject, template.clamp(-1, 1))[:, 0, 0, 0]
    assert (drifts[1] <= drifts[0])[seen].all(), "no worse than one of the edits it chooses from"
    swapped = ATTACKS["swap_hard"].make(team, subject)(x, 1.0)
    assert ((team.logits(swapped) > 0).all(0)[:, subject.target]).all()
    assert {a.over for a in ATTACKS.values()} <= {"", *ATTACKS}


def test_a_paste_leaves_most_of_the_image(subject: Subject, team: RedTeam) -> None:
    x = pictures(team, subject)
    changed = (ATTACKS["region_paste"].make(team, subject)(x, 1.0) != x).any(1).float().mean()
    assert 0 < changed <= 0.15 + 1e-3


HONEST = {"pixel_mean": 0.2, "mean_template": 0.3, "nearest_template": 0.5}


@pytest.mark.parametrize(
    ("attack", "shipped", "fresh", "broken"),
    [
        ("white_box", 0.1, 0.1, 0),
        ("white_box", 0.9, 0.1, 0),  # loses so much that it is not ranked
        ("white_box", 0.35, 0.19, 0),
        ("white_box", 0.4, 0.35, 2),
        ("white_box", 0.29, 0.25, 1),
        ("selective", 0.9, 0.54, 0),
        ("selective", 0.5, 0.56, 1),
    ],
)
def test_bounds_hold_or_are_broken(attack: str, shipped: float, fresh: float, broken: int) -> None:
    def row(name: str, judge: Judge, value: float) -> AttackRow:
        values = dict.fromkeys(CANDIDATES, value)
        return AttackRow(dataset="d", attack=name, judge=judge, values=values)

    rows: list[EditorRow | AttackRow] = [
        row(n, judge, v)
        for n, v in {**HONEST, "exact": 0.8}.items()
        for judge in ("shipped", "fresh")
    ]
    rows += [row(attack, "shipped", shipped), row(attack, "fresh", fresh)]
    header = HeadlineHeader(
        version=2, command="c", images=4, seed=0, datasets={}, scorers={}, packages={}
    )
    assert sum(not holds for holds in bounds(HeadlineRecords(header, rows)).values()) == broken


def test_candidates_have_titles_and_correlations_are_spearmans() -> None:
    assert all(title for title, _ in CANDIDATES.values())
    assert rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
