"""Linear directions of h from labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from casl_bench_baselines.h_linear import HLinear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from casl_bench.conformance.toy_domain import TIMESTEPS, ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.methods.label_directions import mean_difference, svm_direction

SHAPE = (6, 3, 3)


def planted(seed: int, size: float, images: int = 96) -> tuple[Tensor, Tensor, Tensor]:
    """Noise of one standard deviation, plus a direction of this norm where the label is true."""
    draw = torch.Generator().manual_seed(seed)
    direction = torch.randn(SHAPE, generator=draw)
    direction *= size / direction.norm()
    labels = torch.arange(images) % 3 == 0
    h = torch.randn(images, *SHAPE, generator=draw)
    return h + labels[:, None, None, None] * direction, labels, direction


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([3.0, 6.0, 12.0]))
def test_both_kinds_recover_a_planted_direction(seed: int, size: float) -> None:
    h, labels, direction = planted(seed, size)
    for found in (mean_difference(h, labels), svm_direction(h, labels, C=1.0)):
        assert found.shape == SHAPE
        assert cosine(found, direction) > 0.7
        # Never further than the class means lie apart, along the planted direction.
        along = float((found * direction).sum()) / size
        assert 0.4 * size < along < 1.5 * size


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_swapped_labels_swap_the_direction(seed: int) -> None:
    h, labels, _ = planted(seed, 3.0)
    assert torch.equal(mean_difference(h, ~labels), -mean_difference(h, labels))
    torch.testing.assert_close(
        svm_direction(h, ~labels, C=0.1), -svm_direction(h, labels, C=0.1), atol=2e-3, rtol=0
    )


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_directions_are_in_the_units_of_h(seed: int, scale: float, offset: float) -> None:
    h, labels, _ = planted(seed, 6.0)
    moved = scale * h + offset
    for kind in (mean_difference, lambda h, labels: svm_direction(h, labels, C=1.0)):
        torch.testing.assert_close(
            kind(moved, labels), scale * kind(h, labels), atol=2e-3 * scale, rtol=1e-3
        )


def test_a_weak_svm_is_the_mean_difference_of_balanced_classes() -> None:
    h, _, _ = planted(0, 3.0)
    labels = torch.arange(len(h)) % 2 == 0
    std = h.std(0)
    weak = svm_direction(h / std, labels, C=1e-4)
    assert cosine(weak, mean_difference(h / std, labels)) > 0.999


def test_a_feature_that_never_changes_is_left_alone() -> None:
    h, labels, _ = planted(0, 6.0)
    h[:, 2] = 1.5
    assert torch.equal(svm_direction(h, labels, C=1.0)[2], torch.zeros(SHAPE[1:]))


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_nor_does_one_that_changes_by_its_rounding_alone_count(rounding: float) -> None:
    h, labels, _ = planted(0, 6.0)
    h[:, 2] = 0
    without = svm_direction(h, labels, C=1.0)
    h[:, 2] = 0.1 * (1 + rounding * torch.randn(len(h), *SHAPE[1:]).sign())
    torch.testing.assert_close(svm_direction(h, labels, C=1.0), without, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("direction", ["mean_difference", "svm"])
def test_delta_h_is_linear_in_strength_and_zero_outside_the_window(
    direction: str, tmp_path: Path
) -> None:
    toy = ToyTasks()
    task = toy.task(HLinear.info, tmp_path)
    editor = HLinear(direction=direction, t_edit=500).fit(task)
    h, t = task.trajectories.h(3), task.trajectories.timesteps[3]
    one = editor.delta_h(h, t, 1.0)
    assert bool(one.any())
    assert torch.equal(editor.delta_h(h, t, -1.0), -one)
    torch.testing.assert_close(editor.delta_h(h, t, 2.5), 2.5 * one)
    assert not editor.delta_h(task.trajectories.h(0), 0, 1.0).any()
    edits = editor.edit(toy.test, [0.0, 1.0])
    assert torch.equal(edits[0], toy.test.reconstruction)
    assert not torch.equal(edits[1], edits[0])


def test_a_single_step_is_the_nearest_one(tmp_path: Path) -> None:
    task = ToyTasks().task(HLinear.info, tmp_path)
    editor = HLinear(single_step=True, t_edit=TIMESTEPS[2] - 40).fit(task)
    assert editor.directions.timesteps == (TIMESTEPS[2],)
    assert [t for t in TIMESTEPS if editor.window.edits(t)] == [TIMESTEPS[2]]
    assert editor.cost.unet_calls == 0


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    task = ToyTasks().task(HLinear.info, tmp_path)
    assert task.labels is not None
    for labels in (torch.ones_like(task.labels), torch.zeros_like(task.labels)):
        with pytest.raises(InputError, match="one class"):
            HLinear().fit(replace(task, labels=labels))


def test_a_window_without_a_timestep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="t_edit"):
        HLinear(t_edit=2000).fit(ToyTasks().task(HLinear.info, tmp_path))
