"""The controls: no edit, the known edit, a random direction of equal norm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines.asyrp import Asyrp
from baselines.oracle import Oracle
from baselines.random_direction import RandomDirection, random_rotation
from casl_bench.core.errors import InputError
from casl_bench.testing.toy_task import ToyTasks


def test_a_rotation_keeps_norms() -> None:
    rotation = random_rotation(16, torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(16), atol=1e-5, rtol=0)


def test_random_direction_has_the_norm_of_its_method_and_another_direction(tmp_path: Path) -> None:
    toy = ToyTasks()
    task = toy.task(Asyrp.info, tmp_path)
    method = Asyrp(fit_steps=3, batch_size=2).fit(task)
    random = RandomDirection().fit(
        replace(toy.task(RandomDirection.info, tmp_path / "r"), beside=method)
    )
    h, t = task.trajectories.h(2), task.trajectories.timesteps[2]
    own, other = method.delta_h(h, t, 1.0), random.delta_h(h, t, 1.0)
    torch.testing.assert_close(own.norm(dim=1), other.norm(dim=1), atol=1e-5, rtol=1e-4)
    cosine = (own * other).sum() / (own.norm() * other.norm())
    assert abs(float(cosine)) < 0.9
    assert random.window == method.window


def test_random_direction_refuses_what_does_not_edit_h_space(tmp_path: Path) -> None:
    task = replace(ToyTasks().task(RandomDirection.info, tmp_path), beside=None)
    with pytest.raises(InputError, match="h-space"):
        RandomDirection().fit(task)


def test_the_oracle_adds_exactly_the_known_change(tmp_path: Path) -> None:
    toy = ToyTasks()
    task = toy.task(Oracle.info, tmp_path)
    assert task.oracle is not None
    edits = Oracle().fit(task).edit(toy.test, [0.0, 1.0])
    assert torch.equal(edits[0], toy.test.reconstruction)
    flipped = task.oracle(toy.test.image_ids, task.concept.attribute)
    change = edits[1] - toy.test.reconstruction
    torch.testing.assert_close(change, flipped - toy.test.x_0, atol=1e-5, rtol=0)
