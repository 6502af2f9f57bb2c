"""Families of edits: graded, nested, and what they say they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from casl_bench.domains.rendered import RENDERED
from casl_bench.domains.rendering.dogs import DRAWING
from casl_bench.domains.rendering.renderer import RenderedDataset
from casl_bench.studies.metric_validity.edits import FAMILIES, GradedEdit, Subject, exact
from casl_bench.studies.metric_validity.study import Renderer, subject_of

IMAGES = 16


@pytest.fixture(scope="module")
def subject() -> Subject:
    drawing = RENDERED["rendered_dogs"].drawing
    return subject_of(drawing, drawing.concepts[1], IMAGES)


def edits(subject: Subject, family: str) -> list[GradedEdit]:
    return FAMILIES[family].edits(subject)


def test_the_images_are_those_of_the_data_set(subject: Subject) -> None:
    split = RenderedDataset(DRAWING).load("validation", 64)
    assert split.attributes is not None
    lacking = ~split.attributes[:, subject.target]
    torch.testing.assert_close(
        Renderer(subject.drawing).draw(subject.lacking), split.pixels[lacking][:IMAGES]
    )
    assert not subject.lacking.attributes[:, subject.target].any()
    assert subject.having.attributes[:, subject.target].all()


def test_the_exact_edit_is_exact(subject: Subject) -> None:
    known = exact(subject).known
    assert (known.target, known.effort, known.collateral) == (2.0, 2.0, 0.0)


@pytest.mark.parametrize("name", sorted(n for n, f in FAMILIES.items() if f.matched))
def test_matched_families_turn_the_target_on_everywhere(subject: Subject, name: str) -> None:
    for edit in edits(subject, name):
        assert edit.known.target == edit.known.effort == 2.0


@pytest.mark.parametrize("name", ["several_others", "identity_drift", "wrong_way"])
def test_precision_falls_from_level_to_level(subject: Subject, name: str) -> None:
    precisions = [e.known.precision for e in [exact(subject), *edits(subject, name)]]
    assert precisions == sorted(precisions, reverse=True)
    assert len(set(precisions)) == len(precisions)


def test_one_other_is_one_attribute_in_some_images(subject: Subject) -> None:
    plain = exact(subject).end
    for edit in edits(subject, "one_other"):
        changed = edit.end.attributes ^ plain.attributes
        column = subject.drawing.index(edit.other)
        assert changed[:, column].sum() == max(round(edit.level * IMAGES), 1)
        assert changed.sum() == changed[:, column].sum() and column != subject.target


def test_what_is_wrong_stays_wrong(subject: Subject) -> None:
    plain = exact(subject).end
    seen: dict[str, np.ndarray] = {}
    for edit in edits(subject, "one_other"):
        changed = (edit.end.attributes ^ plain.attributes).any(1)
        assert not (seen.get(edit.other, np.zeros_like(changed)) & ~changed).any()
        seen[edit.other] = changed


def test_drift_spares_place_and_light(subject: Subject) -> None:
    drawing = subject.drawing
    worst = edits(subject, "identity_drift")[-1]
    moved = np.abs(worst.end.nuisance - exact(subject).end.nuisance)
    spared = [drawing.nuisance.index(n) for n in {*drawing.scenery, *drawing.unread}]
    others = [k for k in range(len(drawing.nuisance)) if k not in spared]
    assert not moved[:, spared].any()
    np.testing.assert_allclose(moved[:, others], worst.level, atol=1e-6)
    assert worst.end.nuisance.min() >= 0 and worst.end.nuisance.max() < 1


def test_strength_alone_changes_no_precision(subject: Subject) -> None:
    found: dict[str, set[float]] = {}
    for edit in edits(subject, "unmatched_strength"):
        key = edit.end.attributes.tobytes().hex()
        found.setdefault(key, set()).add(round(edit.known.precision, 9))
    assert len(found) == 4 and all(len(p) == 1 for p in found.values())


def test_a_blend_lies_between(subject: Subject) -> None:
    edit = edits(subject, "partial_target")[0]
    renderer = Renderer(subject.drawing)
    start, end = renderer.draw(edit.start), renderer.draw(edit.end)
    expected = (1 - edit.share) * start + edit.share * end
    torch.testing.assert_close(renderer.draw_edit(edit), expected)


@pytest.mark.parametrize("name", sorted(n for n, f in FAMILIES.items() if f.truth == "damage"))
def test_damage_grows_and_touches_no_factor(subject: Subject, name: str) -> None:
    renderer = Renderer(subject.drawing)
    clean = renderer.draw_edit(exact(subject))
    errors = []
    for edit in edits(subject, name):
        assert edit.known.precision == 1.0
        errors.append(float((renderer.draw_edit(edit) - clean).square().mean()))
    assert errors == sorted(errors) and errors[0] > 0
