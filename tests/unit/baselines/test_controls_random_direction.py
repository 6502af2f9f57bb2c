"""The null: a random direction that has the covariance of h."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from casl_bench_baselines.random_controls import RandomDirection, random_deviation
from hypothesis import given, settings
from hypothesis import strategies as st

from casl_bench.conformance.toy_domain import TIMESTEPS, ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.models.random_numbers import generator

SHAPE = (4, 2, 2)


def test_many_draws_have_the_mean_and_the_covariance_of_h() -> None:
    draw = torch.Generator().manual_seed(0)
    stretch = torch.linspace(0.1, 3.0, 16).view(SHAPE)
    h = 5 + stretch * torch.randn(40, *SHAPE, generator=draw)
    found = torch.stack([random_deviation(h, torch.randn(40, generator=draw)) for _ in range(4000)])
    rows, images = found.flatten(1).double(), h.flatten(1).double()
    expected = torch.cov(images.T, correction=0)
    scale = expected.diagonal().sqrt()
    torch.testing.assert_close(rows.mean(0) / scale, torch.zeros(16).double(), atol=0.07, rtol=0)
    gap = (torch.cov(rows.T) - expected) / (scale[:, None] * scale)
    assert float(gap.abs().max()) < 0.12


def test_nothing_moves_where_h_never_varies() -> None:
    draw = torch.Generator().manual_seed(1)
    h = torch.randn(10, *SHAPE, generator=draw)
    h[:, 1] = 7.25
    found = random_deviation(h, torch.randn(10, generator=draw))
    assert float(found[1].abs().max()) < 1e-6
    assert float(found[0].abs().min()) > 1e-4


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_directions_are_in_the_units_of_h(seed: int, scale: float, offset: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    h, g = torch.randn(12, *SHAPE, generator=draw), torch.randn(12, generator=draw)
    torch.testing.assert_close(
        random_deviation(scale * h + offset, g),
        scale * random_deviation(h, g),
        atol=1e-5 * scale,
        rtol=1e-4,
    )


def test_one_draw_serves_all_timesteps(tmp_path: Path) -> None:
    task = ToyTasks().task(RandomDirection.info, tmp_path)
    editor = RandomDirection(t_edit=0).fit(task)
    again = ToyTasks().task(RandomDirection.info, tmp_path)
    g = torch.randn(len(again.trajectories), generator=again.generator)
    assert editor.directions.timesteps == tuple(TIMESTEPS)
    for step, t in enumerate(TIMESTEPS):
        h = again.trajectories.h(step)
        assert torch.equal(editor.delta_h(h, t, 1.0)[0], random_deviation(h, g))


def test_another_generator_is_another_draw(tmp_path: Path) -> None:
    task = ToyTasks().task(RandomDirection.info, tmp_path)
    one, other = (
        RandomDirection().fit(replace(task, generator=generator(0, "fit", draw))).directions.values
        for draw in (0, 1)
    )
    assert not torch.equal(one, other)


def test_it_is_linear_in_strength_and_zero_outside_the_window(tmp_path: Path) -> None:
    toy = ToyTasks()
    task = toy.task(RandomDirection.info, tmp_path)
    editor = RandomDirection(t_edit=TIMESTEPS[2]).fit(task)
    h, t = task.trajectories.h(3), TIMESTEPS[3]
    one = editor.delta_h(h, t, 1.0)
    assert bool(one.any())
    assert torch.equal(editor.delta_h(h, t, -1.0), -one)
    assert editor.directions.timesteps == tuple(TIMESTEPS[2:])
    assert not editor.delta_h(task.trajectories.h(1), TIMESTEPS[1], 1.0).any()
    edits = editor.edit(toy.test, [0.0, 1.0])
    assert torch.equal(edits[0], toy.test.reconstruction)
    assert not torch.equal(edits[1], edits[0])


def test_a_window_without_a_timestep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="t_edit"):
        RandomDirection(t_edit=2000).fit(ToyTasks().task(RandomDirection.info, tmp_path))
