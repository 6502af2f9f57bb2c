"""The attack: wins by the classifier that it sees, within its bound, and by no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from casl_bench_baselines.pixel_attack import PixelAttack
from torch import Tensor

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.domain import Domain
from casl_bench.domains.rendered import rendered_domain
from casl_bench.methods.method import Editor
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr import EPR_RAW
from casl_bench.models.scorers import Differentiable
from casl_bench.results.edited_images import to_pixels

LEVEL = 1 / 127.5
RED = 1
"""Place of the toy's attribute that shares no pixel with the others."""


def stored(images: Tensor) -> Tensor:
    """As a run scores them: rounded to 8 bits."""
    levels = np.moveaxis(to_pixels(images.numpy()), -1, 1)
    return torch.from_numpy(np.ascontiguousarray(levels)).float() / 127.5 - 1


def attacker(toy: ToyTasks, folder: Path, **config: object) -> Editor:
    task = toy.task(PixelAttack.info, folder)
    concept = toy.domain.dataset.card.concepts[RED]
    return PixelAttack(**config).fit(replace(task, concept=concept))


def test_it_raises_the_target_and_a_negative_strength_lowers_it(tmp_path: Path) -> None:
    toy = ToyTasks()
    editor, logits = attacker(toy, tmp_path), toy.domain.classifiers[0].logits
    before = logits(stored(toy.test.reconstruction))
    up, half, down = (logits(stored(x)) - before for x in editor.edit(toy.test, [1.0, 0.5, -1.0]))
    assert (up[:, RED] > half[:, RED]).all()
    assert (half[:, RED] > 0).all() and (down[:, RED] < 0).all()
    for moved in (up, half, down):
        assert float(moved[:, [0, 2]].abs().max()) < 0.01 * float(moved[:, RED].abs().min())


@pytest.mark.parametrize(("strength", "levels"), [(1.0, 3), (0.5, 2), (4.0, 12), (0.1, 0)])
def test_pixels_stay_within_whole_grey_levels(strength: float, levels: int, tmp_path: Path) -> None:
    toy = ToyTasks()
    (edited,) = attacker(toy, tmp_path, epsilon=3).edit(toy.test, [strength])
    base = stored(toy.test.reconstruction)
    assert torch.equal(stored(edited), edited)
    assert float((edited - base).abs().max()) == pytest.approx(levels * LEVEL, abs=1e-6)
    assert float(edited.abs().max()) <= 1


def test_the_best_step_is_kept(tmp_path: Path) -> None:
    toy = ToyTasks()
    task = toy.task(PixelAttack.info, tmp_path)  # "bright" and "striped" share pixels
    logits = toy.domain.classifiers[0].logits
    before = logits(stored(toy.test.reconstruction))

    def gain(steps: int) -> Tensor:
        (edited,) = PixelAttack(steps=steps).fit(task).edit(toy.test, [1.0])
        moved = logits(edited) - before
        return moved[:, 0] - PixelAttack().config.penalty * moved[:, 1:].abs().mean(1)

    gains = [gain(steps) for steps in (1, 20)]
    assert all((g > -1e-4).all() for g in gains)
    assert gains[1].mean() > gains[0].mean()


def test_a_classifier_without_gradients_is_refused(tmp_path: Path) -> None:
    task = ToyTasks().task(PixelAttack.info, tmp_path)
    assert task.scorer is not None
    blind = SimpleNamespace(
        info=task.scorer.info, attributes=task.scorer.attributes, logits=task.scorer.logits
    )
    assert not isinstance(blind, Differentiable)
    for scorer, said in ((blind, task.scorer.info.name), (None, "none")):
        with pytest.raises(InputError, match=f"gives gradients.*{said}"):
            PixelAttack().fit(replace(task, scorer=scorer))


@pytest.fixture(scope="module")
def faces() -> Domain:
    return rendered_domain("rendered_faces")


def lacking(domain: Domain, attribute: str, count: int) -> Inversions:
    """Pictures without the attribute, as if inverted without loss."""
    batch = domain.dataset.load("test", 4 * count)
    assert batch.attributes is not None
    column = domain.dataset.card.attributes.index(attribute)
    chosen = batch.take((~batch.attributes[:, column]).nonzero().flatten().tolist()[:count])
    x = chosen.pixels
    return Inversions(chosen.image_ids, (0, 999), x, x, x)


def changes(domain: Domain, base: Tensor, edited: Tensor) -> Sequence[Tensor]:
    return [c.logits(stored(edited)) - c.logits(stored(base)) for c in domain.classifiers]


def test_it_wins_epr_by_the_classifier_it_sees_and_fails_by_the_other(
    faces: Domain, tmp_path: Path
) -> None:
    images, toy = lacking(faces, "eyeglasses", 4), ToyTasks()
    column = faces.dataset.card.attributes.index("eyeglasses")
    concept = next(c for c in faces.dataset.card.concepts if c.attribute == "eyeglasses")
    task = toy.task(PixelAttack.info, tmp_path)
    editor = PixelAttack().fit(replace(task, concept=concept, scorer=faces.classifiers[0]))
    (edited,) = editor.edit(images, [1.0])
    known = faces.dataset.oracle(images.image_ids, "eyeglasses")
    attack, oracle = (changes(faces, images.x_0, x) for x in (edited, known))

    def epr(moved: Tensor) -> float:
        still, spread = np.zeros(moved.shape), np.ones(moved.shape[1])
        value = EPR_RAW.value(EditScores(still, still, moved.numpy(), column, 1, spread))
        assert value is not None
        return value

    assert epr(attack[0]) > epr(oracle[0])
    assert epr(attack[1]) < 0.5 * epr(oracle[1])
    shares = [
        float(a[:, column].mean() / o[:, column].mean())
        for a, o in zip(attack, oracle, strict=True)
    ]
    assert shares[0] > 0.4 and shares[1] < 0.5 * shares[0]
