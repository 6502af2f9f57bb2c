"""Principal components of h and the choice among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from casl_bench_baselines import h_pca
from casl_bench_baselines.h_pca import (
    HPca,
    HPcaConfig,
    spread_out,
    text_match,
    trajectory_components,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from casl_bench.conformance.toy_domain import TIMESTEPS, ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.models.backbone import EncoderState

SHAPE = (5, 2, 3)


def synthetic_store(seed: int, images: int = 24, spread: float = 0.0) -> TrajectoryStore:
    """Noise that grows with the timestep; with `spread`, plus one component of this size."""
    draw = torch.Generator().manual_seed(seed)
    timesteps = (0, 100, 400)
    store = TrajectoryStore.create(
        None, [str(i) for i in range(images)], timesteps, (3, 4, 4), SHAPE
    )
    along = torch.randn(images, 1, 1, 1, generator=draw)
    for step, t in enumerate(timesteps):
        h = torch.randn(images, *SHAPE, generator=draw)
        h = (1 + step) * (h + spread * along * planted_map(step)) + step
        state = EncoderState(torch.zeros(images, 3, 4, 4), t, h, torch.zeros(images, 1), ())
        store.record(step, slice(0, images), state)
    return store


def planted_map(step: int) -> torch.Tensor:
    direction = torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + step))
    return direction / direction.norm()


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_components_are_orthogonal_and_ordered(seed: int) -> None:
    store = synthetic_store(seed)
    found = trajectory_components(store, [0, 1, 2], 50)
    assert found.shape == (23, 3, *SHAPE)  # n - 1 exist
    centred = [store.h(step) - store.h(step).mean(0) for step in range(3)]
    scales = torch.stack([x.pow(2).mean().sqrt() for x in centred])
    rows = (found / scales[:, None, None, None]).flatten(1).double()
    gram = rows @ rows.T
    variances = gram.diagonal()
    torch.testing.assert_close(gram, torch.diag(variances), atol=1e-4, rtol=0)
    assert bool((variances.diff() <= 1e-4).all())
    whole = sum(
        float((x / s).double().pow(2).sum()) / 23 for x, s in zip(centred, scales, strict=True)
    )
    assert float(variances.sum()) == pytest.approx(whole, rel=1e-4)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_first_component_is_the_one_that_varies_most(seed: int) -> None:
    found = trajectory_components(synthetic_store(seed, images=40, spread=20.0), [0, 1, 2], 3)
    for step, direction in enumerate(found[0]):
        direction = direction / direction.norm()
        assert abs(float((direction * planted_map(step)).sum())) > 0.97


def test_later_timesteps_weigh_no_more_than_early_ones() -> None:
    """Rescaling one timestep's h rescales its directions and changes nothing else."""
    plain, louder = synthetic_store(3), synthetic_store(3)
    h = 10 * louder.h(2)
    state = EncoderState(torch.zeros(24, 3, 4, 4), 400, h, torch.zeros(24, 1), ())
    louder.record(2, slice(0, 24), state)
    a, b = (trajectory_components(s, [0, 1, 2], 4) for s in (plain, louder))
    torch.testing.assert_close(a[:, :2], b[:, :2], atol=1e-3, rtol=0)
    torch.testing.assert_close(10 * a[:, 2], b[:, 2], atol=1e-2, rtol=0)


def test_criteria_by_hand() -> None:
    text = torch.tensor([1.0, 0.0])
    # Far and askew, near and straight, opposite, unmoved.
    moved = torch.tensor([[[3.0, 4.0]], [[0.5, 0.0]], [[-2.0, 0.0]], [[0.0, 0.0]]])
    torch.testing.assert_close(
        text_match(moved, text, "projection"), torch.tensor([3.0, 0.5, -2.0, 0.0])
    )
    torch.testing.assert_close(
        text_match(moved, text, "cosine"), torch.tensor([0.6, 1.0, -1.0, 0.0])
    )


@settings(max_examples=20)
@given(st.integers(2, 40), st.integers(1, 50))
def test_short_walks_keep_both_ends(length: int, count: int) -> None:
    timesteps = tuple(range(0, 10 * length, 10))
    walk = spread_out(timesteps, count)
    assert (walk[0], walk[-1]) == (timesteps[0], timesteps[-1])
    assert list(walk) == sorted(set(walk))
    assert len(walk) == max(2, min(count, length))


@pytest.mark.parametrize("opposite", [False, True])
def test_the_component_and_sign_that_fit_the_text_are_taken(
    opposite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text is what component 1 in one sign does to the embedding: the choice finds it."""
    toy = ToyTasks()
    task = toy.task(HPca.info, tmp_path)
    assert task.guide_clip is not None
    method = HPca(components=3, select_images=3, select_steps=4, t_edit=300)
    seen: list[torch.Tensor] = []

    def watched(*args: object) -> torch.Tensor:
        seen.append(args[0])  # type: ignore[arg-type]
        return text_match(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(h_pca, "text_match", watched)
    method.fit(task)
    wanted = seen[1][int(opposite)].mean(0)
    monkeypatch.setattr(
        task.guide_clip, "text_direction", lambda source, target: wanted / wanted.norm()
    )
    cosine = HPca(**{**method.config.model_dump(), "criterion": "cosine"}).fit(task)
    assert int(cosine.matches.argmax()) == 2 + int(opposite)
    steps = [s for s, t in enumerate(TIMESTEPS) if t >= 300]
    found = trajectory_components(task.trajectories, steps, 3)[1]
    assert torch.equal(cosine.directions.values, -found if opposite else found)


def test_delta_h_is_linear_and_the_choice_is_paid_for(tmp_path: Path) -> None:
    toy = ToyTasks()
    task = toy.task(HPca.info, tmp_path)
    with task.backbone.count_calls() as calls:
        editor = HPca(components=2, select_images=2, select_steps=3, t_edit=500).fit(task)
    assert editor.cost.unet_calls == calls.unet_calls > 0
    h, t = task.trajectories.h(3), task.trajectories.timesteps[3]
    one = editor.delta_h(h, t, 1.0)
    assert bool(one.any())
    assert torch.equal(editor.delta_h(h, t, -1.0), -one)
    assert not editor.delta_h(task.trajectories.h(0), 0, 1.0).any()
    edits = editor.edit(toy.test, [0.0, 1.0])
    assert torch.equal(edits[0], toy.test.reconstruction)
    assert not torch.equal(edits[1], edits[0])


def test_images_to_choose_by_are_needed(tmp_path: Path) -> None:
    task = ToyTasks().task(HPca.info, tmp_path)
    assert task.validation is not None
    for images in (None, task.validation.take([])):
        with pytest.raises(InputError, match="validation"):
            HPca(HPcaConfig()).fit(replace(task, validation=images))
