"""The controls: no edit, known edits, ruined pictures, and a method's own edit turned at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from casl_bench_baselines.asyrp import Asyrp
from casl_bench_baselines.controls import Destroy, Inverted, Oracle, Shuffled, stand_in
from casl_bench_baselines.random_controls import RandomRotation, random_rotation
from torch import Tensor

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import Editor, EditTask


def fitted(method: type, toy: ToyTasks, folder: Path) -> tuple[EditTask, Editor]:
    task = toy.task(method.info, folder)
    return task, method().fit(task)


def seen(toy: ToyTasks, pixels: Tensor) -> Tensor:
    return toy.domain.classifiers[0].logits(pixels) > 0


def test_a_rotation_keeps_norms() -> None:
    rotation = random_rotation(16, torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(16), atol=1e-5, rtol=0)


def test_a_random_rotation_keeps_the_norm_of_its_method_and_its_window(tmp_path: Path) -> None:
    toy = ToyTasks()
    task = toy.task(Asyrp.info, tmp_path)
    method = Asyrp(fit_steps=3, batch_size=2).fit(task)
    random = RandomRotation().fit(
        replace(toy.task(RandomRotation.info, tmp_path / "r"), beside=method)
    )
    h, t = task.trajectories.h(2), task.trajectories.timesteps[2]
    own, other = method.delta_h(h, t, 1.0), random.delta_h(h, t, 1.0)
    torch.testing.assert_close(own.norm(dim=1), other.norm(dim=1), atol=1e-5, rtol=1e-4)
    cosine = (own * other).sum() / (own.norm() * other.norm())
    assert abs(float(cosine)) < 0.9
    assert random.window == method.window


def test_a_random_rotation_refuses_what_does_not_edit_h_space(tmp_path: Path) -> None:
    task = replace(ToyTasks().task(RandomRotation.info, tmp_path), beside=None)
    with pytest.raises(InputError, match="h-space"):
        RandomRotation().fit(task)


def test_the_oracle_adds_exactly_the_known_change(tmp_path: Path) -> None:
    toy = ToyTasks()
    task, editor = fitted(Oracle, toy, tmp_path)
    assert task.oracle is not None
    edits = editor.edit(toy.test, [0.0, 1.0])
    assert torch.equal(edits[0], toy.test.reconstruction)
    flipped = task.oracle(toy.test.image_ids, task.concept.attribute)
    change = edits[1] - toy.test.reconstruction
    torch.testing.assert_close(change, flipped - toy.test.x_0, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", [Oracle, Shuffled, Inverted])
def test_without_a_renderer_there_is_no_known_edit(method: type, tmp_path: Path) -> None:
    task = replace(ToyTasks().task(method.info, tmp_path), oracle=None)
    with pytest.raises(InputError, match="factors are known"):
        method().fit(task)


def test_shuffled_moves_another_attribute_and_the_target_not(tmp_path: Path) -> None:
    toy = ToyTasks()
    task, editor = fitted(Shuffled, toy, tmp_path)
    (edited,) = editor.edit(toy.test, [1.0])
    changed = seen(toy, edited) != seen(toy, toy.test.reconstruction)
    wanted = stand_in(task.concept.attribute, task.other_attributes)
    columns = toy.domain.dataset.card.attributes
    assert wanted != task.concept.attribute
    assert changed.all(0).tolist() == [name == wanted for name in columns]
    assert changed.any(0).tolist() == [name == wanted for name in columns]


def test_stand_ins_are_of_the_others_and_differ_between_concepts() -> None:
    names = tuple("abcdefgh")
    chosen = {a: stand_in(a, [n for n in names if n != a]) for a in names}
    assert all(own != other for own, other in chosen.items())
    assert len(set(chosen.values())) > 2
    assert chosen == {a: stand_in(a, [n for n in names if n != a]) for a in names}


def test_a_lone_attribute_has_no_stand_in() -> None:
    with pytest.raises(InputError, match="no other attribute"):
        stand_in("a", ())


def test_inverted_takes_the_attribute_away_and_leaves_the_others(tmp_path: Path) -> None:
    toy = ToyTasks()
    task, editor = fitted(Inverted, toy, tmp_path)
    column = toy.domain.dataset.card.attributes.index(task.concept.attribute)
    there = seen(toy, toy.test.x_0)[:, column].nonzero().flatten().tolist()
    images = toy.test_images(there)
    (edited,) = editor.edit(images, [1.0])
    before, after = seen(toy, images.reconstruction), seen(toy, edited)
    assert there and before[:, column].all() and not after[:, column].any()
    assert Inverted.info.on_present
    others = [j for j in range(before.shape[1]) if j != column]
    assert torch.equal(before[:, others], after[:, others])


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_destroy_leaves_nothing_of_the_picture_at_strength_one(tmp_path: Path) -> None:
    toy = ToyTasks()
    _, editor = fitted(Destroy, toy, tmp_path)
    base = toy.test.reconstruction
    quarter, half, full, double = editor.edit(toy.test, [0.25, 0.5, 1.0, 2.0])
    assert float(full.min()) >= -1 and float(full.max()) <= 1
    inner = base - base.mean((2, 3), keepdim=True)
    left = [correlation(x - x.mean((2, 3), keepdim=True), inner) for x in (quarter, half, full)]
    assert left[0] > left[1] > 0.3
    assert abs(left[2]) < 0.1
    assert (double.abs() == 1).sum() > (full.abs() == 1).sum()


def test_destroy_draws_another_noise_for_each_image(tmp_path: Path) -> None:
    toy = ToyTasks()
    _, editor = fitted(Destroy, toy, tmp_path)
    grey = torch.zeros_like(toy.test.reconstruction[:1])
    once, again, other = (
        editor.edit(Inversions((name,), toy.test.timesteps, grey + shade, grey, grey), [0.5])
        for name, shade in (("a", 0.0), ("b", 0.0), ("a", 0.1))
    )
    assert torch.equal(once, again)
    assert abs(correlation(once, other)) < 0.2


@pytest.mark.parametrize("method", [Oracle, Shuffled, Inverted, Destroy])
def test_no_images_and_unknown_strengths(method: type, tmp_path: Path) -> None:
    toy = ToyTasks()
    _, editor = fitted(method, toy, tmp_path)
    assert editor.edit(toy.test_images([]), [0.0, 1.0]).shape == (2, 0, 3, 16, 16)
    with pytest.raises(InputError, match="finite"):
        editor.edit(toy.test, [float("nan")])
