"""What is made of labels alone: of pixels, of x_T, and of h beside or against other attributes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from casl_bench_baselines.h_adaptive import HAdaptive
from casl_bench_baselines.h_conditional import HConditional, without_span
from casl_bench_baselines.h_leace import HLeace, leace_reader
from casl_bench_baselines.h_linear import HLinear
from casl_bench_baselines.pixel_mean_difference import PixelMeanDifference
from casl_bench_baselines.template import Template
from casl_bench_baselines.x_T_mean_difference import NoiseMeanDifference
from torch import Tensor

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.methods.label_directions import StandardisedMaps
from casl_bench.methods.method import EditTask, MethodInfo


@pytest.fixture(scope="module")
def toy() -> ToyTasks:
    return ToyTasks()


def task_of(toy: ToyTasks, method: Any, tmp_path: Path) -> EditTask:
    return toy.task(method.info, tmp_path / "work")


def test_pixels_move_by_the_difference_of_class_means(toy: ToyTasks, tmp_path: Path) -> None:
    task = task_of(toy, PixelMeanDifference, tmp_path)
    assert task.labels is not None
    images, labels = task.train.x_0, task.labels
    expected = images[labels].mean(0) - images[~labels].mean(0)
    edits = PixelMeanDifference().fit(task).edit(toy.test, [0.0, 2.0, -1.0])
    assert torch.equal(edits[0], toy.test.reconstruction)
    torch.testing.assert_close(edits[1] - edits[0], 2 * expected.expand_as(edits[0]))
    torch.testing.assert_close(edits[2] - edits[0], -expected.expand_as(edits[0]))


def test_x_T_moves_by_the_difference_and_is_generated_from(toy: ToyTasks, tmp_path: Path) -> None:
    task = task_of(toy, NoiseMeanDifference, tmp_path)
    assert task.labels is not None
    noise, labels = task.train.x_T, task.labels
    shift = noise[labels].mean(0) - noise[~labels].mean(0)
    edits = NoiseMeanDifference().fit(task).edit(toy.test, [0.0, 1.5])
    assert torch.equal(edits[0], toy.test.reconstruction)
    expected = ddim_generation(task.backbone, toy.test.x_T + 1.5 * shift, toy.test.timesteps)
    torch.testing.assert_close(edits[1], expected, atol=1e-5, rtol=0)


def test_the_template_is_the_mean_of_perfect_edits(toy: ToyTasks, tmp_path: Path) -> None:
    task = task_of(toy, Template, tmp_path)
    assert task.oracle is not None and task.labels is not None
    changes = task.oracle(task.train.image_ids, task.concept.attribute) - task.train.x_0
    edits = Template().fit(task).edit(toy.test, [1.0])
    expected = changes[~task.labels].mean(0)
    torch.testing.assert_close(edits[0] - toy.test.reconstruction, expected.expand_as(edits[0]))


@pytest.mark.parametrize(
    "method", [PixelMeanDifference, NoiseMeanDifference, Template, HConditional, HLeace, HAdaptive]
)
def test_labels_all_alike_are_refused(toy: ToyTasks, method: Any, tmp_path: Path) -> None:
    task = task_of(toy, method, tmp_path)
    assert task.labels is not None
    with pytest.raises(InputError, match="one class"):
        method().fit(replace(task, labels=torch.ones_like(task.labels)))


def correlated(images: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """Maps in which two attributes that often come together each have a direction of their own."""
    draw = torch.Generator().manual_seed(0)
    one = torch.rand(images, generator=draw) < 0.5
    other = torch.where(torch.rand(images, generator=draw) < 0.8, one, ~one)
    h = torch.randn(images, 4, 2, 2, generator=draw)
    h[:, 0] += 4.0 * one[:, None, None]
    h[:, 1] += 4.0 * other[:, None, None]
    return h, one, other


def test_a_conditional_direction_leaves_the_other_probe_alone() -> None:
    h, one, other = correlated()
    maps = StandardisedMaps.of(h)
    own, others = maps.difference_normal(one), maps.difference_normal(other)[None]
    free = without_span(own, others)
    assert abs(float(own @ others[0])) > 0.3  # the mean difference drags the other along
    assert abs(float(free @ others[0])) < 1e-9 and float(free.norm()) == pytest.approx(1)
    assert float(free @ own) > 0.5
    with pytest.raises(InputError, match="one of the other"):
        without_span(own, torch.stack([own, others[0]]))


def test_the_conditional_method_does_so_at_every_timestep(toy: ToyTasks, tmp_path: Path) -> None:
    task = task_of(toy, HConditional, tmp_path)
    assert task.all_labels is not None and set(task.all_labels) == {"bright", "red", "striped"}
    plain = HLinear(direction="mean_difference", t_edit=500).fit(task)
    found = HConditional(direction="mean_difference", t_edit=500).fit(task)
    assert found.directions.timesteps == plain.directions.timesteps
    store = task.trajectories
    for place, t in enumerate(found.directions.timesteps):
        maps = StandardisedMaps.of(store.h(store.timesteps.index(t)))
        move = found.directions.values[place].flatten().double() / maps.std
        for name in ("red", "striped"):
            probe = maps.difference_normal(task.all_labels[name])
            assert abs(float(move @ probe)) < 1e-5 * float(move.norm())


def test_the_reader_of_leace_is_the_closed_form() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, dtype=torch.float64, generator=draw)
    d = torch.randn(6, dtype=torch.float64, generator=draw)
    centred = x - x.mean(0)
    covariance = centred.T @ centred / len(x)
    shrunk = 0.7 * covariance + 0.3 * covariance.trace() / 6 * torch.eye(6, dtype=torch.float64)
    expected = torch.linalg.solve(shrunk, d)
    found = leace_reader(x, d, 0.3)
    torch.testing.assert_close(found, expected / (d @ expected))
    assert float(found @ d) == pytest.approx(1)


def test_leace_sets_what_a_linear_probe_can_read(toy: ToyTasks, tmp_path: Path) -> None:
    """After strength 1 every image's projection is the mean of those that have the attribute."""
    task = task_of(toy, HLeace, tmp_path)
    editor = HLeace(t_edit=500).fit(task)
    store, labels = task.trajectories, task.labels
    for place, t in enumerate(editor.readers.timesteps):
        h = store.h(store.timesteps.index(t))
        moved = h + editor.delta_h(h, t, 1.0)
        reader = editor.readers.values[place].flatten()
        after = moved.flatten(1) @ reader
        torch.testing.assert_close(
            after, editor.goals[place].float().expand_as(after), atol=1e-3, rtol=1e-3
        )
        # So nothing is left of the classes' difference along it, and those with it stay on average.
        stays = editor.delta_h(h[labels], t, 1.0).mean(0)
        assert float(stays.abs().max()) < 1e-3 * float(editor.delta_h(h, t, 1.0).abs().max())


def test_adaptive_strength_is_what_an_image_lacks(toy: ToyTasks, tmp_path: Path) -> None:
    task = task_of(toy, HAdaptive, tmp_path)
    editor = HAdaptive(t_edit=500).fit(task)
    store = task.trajectories
    for place, t in enumerate(editor.readers.timesteps):
        h = store.h(store.timesteps.index(t))
        reader, goal = editor.readers.values[place].flatten(), editor.goals[place].float()
        before = h.flatten(1) @ reader
        after = (h + editor.delta_h(h, t, 1.0)).flatten(1) @ reader
        torch.testing.assert_close(after, before.clamp_min(goal), atol=1e-3, rtol=1e-3)
        beyond = before > goal
        assert bool(beyond.any()) and not editor.delta_h(h[beyond], t, 1.0).any()


def test_a_method_with_labels_may_have_text_too(toy: ToyTasks, tmp_path: Path) -> None:
    for uses_text in (False, True):
        info = MethodInfo("m", "m", "here", 1, supervision="labels", uses_text=uses_text)
        task = toy.task(info, tmp_path / str(uses_text))
        assert (task.guide_clip is not None) == uses_text
        assert task.labels is not None and task.all_labels is None
