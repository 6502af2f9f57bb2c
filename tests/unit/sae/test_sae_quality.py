"""Sampling, fitting, and quality beside PCA and the mean; the cost downstream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.models.backbone import Backbone, EncoderState
from casl_bench.sae.dictionary import SaeConfig, SaeTraining
from casl_bench.sae.quality import HSpacePca, downstream_error, sae_quality
from casl_bench.sae.sae import HSpaceSae
from casl_bench.sae.training import (
    ActivationSampler,
    FitData,
    activation_statistics,
    fit_dictionary,
)

Make = Callable[[int, int], Any]
CONFIG = SaeConfig(d_in=16, d_sae=48, k=4)
TRAINING = SaeTraining(steps=250, batch=256, learning_rate=5e-3, dead_after=5000, aux_k=8)


def fit(
    data: Any, config: SaeConfig, training: SaeTraining, generator: torch.Generator, **others: Any
) -> HSpaceSae:
    statistics = activation_statistics(data)
    others["on_step"] = others.pop("progress", None)
    return fit_dictionary("top_k", config, FitData(data, statistics, generator, training, **others))


@pytest.fixture(scope="module")
def sae(activations: Make) -> HSpaceSae:
    return fit(activations(40, 1), CONFIG, TRAINING, torch.Generator().manual_seed(0))


def test_statistics_are_those_of_all_positions(activations: Make) -> None:
    data = activations(70, 1)  # more than one chunk
    found = activation_statistics(data)
    for step, maps in enumerate(data.maps):
        rows = maps.double().permute(0, 2, 3, 1).reshape(-1, 16)
        assert torch.allclose(found.mean[step].double(), rows.mean(0), atol=1e-6)
        rms = ((rows - rows.mean(0)) ** 2).mean().sqrt()
        assert found.scale[step].double() == pytest.approx(float(rms), rel=1e-6)


def test_activations_that_never_change_get_scale_one(activations: Make) -> None:
    data = activations(3, 1)
    data.maps = [torch.full_like(m, 2.0) for m in data.maps]
    assert torch.equal(activation_statistics(data).scale, torch.ones(3))


def test_bad_activations_are_refused(activations: Make) -> None:
    data = activations(3, 1)
    data.maps[1][0, 0, 0, 0] = float("nan")
    with pytest.raises(InvalidBenchmarkError, match="timestep 100"):
        activation_statistics(data)
    with pytest.raises(InputError, match="at least one image"):
        activation_statistics(activations(0, 1))
    with pytest.raises(InputError, match="channels"):
        generator = torch.Generator()
        fit(activations(3, 1), SaeConfig(d_in=8), TRAINING, generator)


def test_batches_are_normalised_vectors_of_the_data(activations: Make) -> None:
    data = activations(6, 1)
    statistics = activation_statistics(data)
    sampler = ActivationSampler(data, statistics)
    batch = sampler(512, torch.Generator().manual_seed(0))
    assert batch.shape == (512, 16)
    every = torch.cat(
        [
            (m.permute(0, 2, 3, 1).reshape(-1, 16) - statistics.mean[s]) / statistics.scale[s]
            for s, m in enumerate(data.maps)
        ]
    )
    assert float((batch[:, None] - every).abs().amax(2).min(1).values.max()) < 1e-5
    # All timesteps take part: the data's shift and scale by t is gone.
    assert float(batch.mean()) == pytest.approx(0, abs=0.1)
    assert float(batch.std()) == pytest.approx(1, abs=0.1)


def test_batches_follow_the_generator_alone(activations: Make) -> None:
    data = activations(6, 1)
    sampler = ActivationSampler(data, activation_statistics(data))
    a, b = (sampler(64, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, sampler(64, torch.Generator().manual_seed(5)))
    with pytest.raises(InputError, match="multiples of 16"):
        sampler(65, torch.Generator())


def test_the_sae_beats_pca_of_the_same_rank_on_sparse_data(
    sae: HSpaceSae, activations: Make
) -> None:
    quality = sae_quality(sae, activations(20, 2), activations(40, 1))
    ours, pca, mean = quality["sae"], quality["pca"], quality["mean"]
    assert ours.explained_variance > 0.8 > pca.explained_variance > 0.3
    assert ours.normalised_mse < 0.2 < pca.normalised_mse < 0.7
    assert (ours.cosine or 0) > (pca.cosine or 1)
    assert ours.l0 <= 4 == pca.l0
    assert ours.dead_fraction is not None and ours.dead_fraction < 0.5
    assert mean.explained_variance == pytest.approx(0)
    assert mean.normalised_mse == pytest.approx(1)
    assert mean.cosine is None and mean.dead_fraction is None
    assert ours.vectors == pca.vectors == mean.vectors == 3 * 20 * 16


def test_quality_is_the_plain_formula_whatever_the_chunks(
    sae: HSpaceSae, activations: Make
) -> None:
    held_out = activations(40, 2)  # two chunks
    found = sae_quality(sae, held_out, activations(40, 1))["sae"]
    h = torch.cat(
        [sae.normalise(m, t) for m, t in zip(held_out.maps, held_out.timesteps, strict=True)]
    )
    z, h_hat, _ = sae.sae(h)
    error = (h - h_hat).double()
    variance = h.double().var(0, correction=0).sum()
    assert found.explained_variance == pytest.approx(
        float(1 - error.var(0, correction=0).sum() / variance), abs=1e-5
    )
    expected = error.square().sum() / h.double().square().sum()
    assert found.normalised_mse == pytest.approx(float(expected), abs=1e-5)
    assert found.l0 == pytest.approx(float((z > 0).double().sum(1).mean()))
    assert found.dead_fraction == pytest.approx(float((~(z > 0).any(0)).double().mean()))
    cosine = torch.cosine_similarity(h, h_hat, dim=1).mean()
    assert found.cosine == pytest.approx(float(cosine), abs=1e-5)


def test_quality_needs_activations_that_vary(sae: HSpaceSae, activations: Make) -> None:
    held_out = activations(2, 2)
    held_out.maps = [sae.mean[s][None, :, None, None].expand(2, 16, 4, 4) for s in range(3)]
    with pytest.raises(InputError, match="do not vary"):
        sae_quality(sae, held_out, activations(40, 1))


def test_pca_agrees_with_a_singular_value_decomposition(sae: HSpaceSae, activations: Make) -> None:
    data = activations(40, 1)
    rows = torch.cat([sae.normalise(m, t) for m, t in zip(data.maps, data.timesteps, strict=True)])
    pca = HSpacePca.fit(sae, data, 5)
    centred = rows.double() - rows.double().mean(0)
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[:5]
    expected = centred @ basis.T @ basis + rows.double().mean(0)
    assert torch.allclose(pca.reconstruct_rows(rows).double(), expected, atol=1e-3)
    assert len(pca.components) == 5


def test_pca_of_full_rank_is_the_identity_and_of_rank_0_the_mean(
    sae: HSpaceSae, activations: Make
) -> None:
    data = activations(40, 1)
    rows = sae.normalise(data.h(1)[:3], 100)
    assert torch.allclose(HSpacePca.fit(sae, data, 16).reconstruct_rows(rows), rows, atol=1e-3)
    flat = HSpacePca.fit(sae, data, 0).reconstruct_rows(rows)
    assert torch.allclose(flat, torch.zeros_like(rows), atol=1e-3)
    with pytest.raises(InputError, match="rank"):
        HSpacePca.fit(sae, data, 17)


def test_fitting_is_repeatable_and_resumable(tmp_path: Path, activations: Make) -> None:
    data = activations(10, 1)
    short = TRAINING.model_copy(update={"steps": 12, "checkpoint_every": 5})

    def fit_again(**others: Any) -> str:
        generator = torch.Generator().manual_seed(0)
        return fit(data, CONFIG, short, generator, **others).content_hash

    def interrupt(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    straight = fit_again()
    with pytest.raises(KeyboardInterrupt):
        fit_again(workspace=tmp_path, progress=interrupt)
    assert fit_again(workspace=tmp_path) == straight
    with torch.no_grad():
        assert fit_again() == straight


class LinearBackbone:
    """eps = 3 * mean of h over channels at each position: a backbone one can compute by hand."""

    def encode(self, x_t: Tensor, t: int) -> EncoderState:
        h = x_t.flatten(1).view(len(x_t), 16, 4, 4) * (1 + t / 100)
        return EncoderState(x_t, t, h, torch.zeros(len(x_t), 2), ())

    def decode(self, state: EncoderState, delta_h: Tensor | None = None) -> Tensor:
        h = state.h if delta_h is None else state.h + delta_h
        return 3 * h.mean(1, keepdim=True)


def test_downstream_error_by_hand(tmp_path: Path) -> None:
    backbone = cast(Backbone, LinearBackbone())
    store = TrajectoryStore.create(None, ["a", "b", "c"], (0, 100), (16, 4, 4), (16, 4, 4))
    x = torch.randn(2, 3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    for step, t in enumerate(store.timesteps):
        state = backbone.encode(x[step], t)
        store.record(step, slice(0, 3), replace(state, x_t=x[step]))

    def lossy(h: Tensor, t: int) -> Tensor:
        return h * (0.9 if t == 0 else 0.5)

    assert downstream_error(backbone, lambda h, t: h, store, [0, 2]) == 0
    expected = (0.1**2 + 0.5**2) / 2
    assert downstream_error(backbone, lossy, store, [0, 2]) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="at least one image"):
        downstream_error(backbone, lossy, store, [])
