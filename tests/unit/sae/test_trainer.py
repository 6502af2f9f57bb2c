"""Training learns, resumes to the same bits, revives the dead, leaves global state alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.sae.dictionaries.relu import ReluConfig
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import SaeConfig, SaeTraining, dictionary_class
from casl_bench.sae.training import SparseAutoencoder, auxk_loss, geometric_median, train_sae

CONFIG = SaeConfig(d_in=8, d_sae=32, k=4)
DIRECTIONS = torch.randn(16, 8, generator=torch.Generator().manual_seed(3))


def sampler(count: int, generator: torch.Generator) -> Tensor:
    active = torch.rand(count, 16, generator=generator) < 0.15
    return (active * torch.rand(count, 16, generator=generator)) @ DIRECTIONS


def training(**changes: Any) -> SaeTraining:
    fields = {"steps": 30, "batch": 64, "checkpoint_every": 7, "dead_after": 500, "aux_k": 4}
    return SaeTraining.model_validate(fields | changes)


def train(
    settings: SaeTraining,
    seed: int = 0,
    config: SaeConfig = CONFIG,
    kind: str = "top_k",
    start: Callable[[SparseAutoencoder], None] = lambda sae: None,
    **others: Any,
) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    sae = dictionary_class(kind)(config, generator)
    assert isinstance(sae, SparseAutoencoder)
    start(sae)
    train_sae(sae, settings, others.pop("sampler", sampler), generator, **others)
    return sae


def same(a: SparseAutoencoder, b: SparseAutoencoder) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


class Killed(Exception):
    pass


def killer(at: int) -> Callable[[int, int], None]:
    def progress(done: int, _: int) -> None:
        if done == at:
            raise Killed

    return progress


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    assert same(train(training()), train(training()))
    assert not same(train(training()), train(training(), seed=1))


KINDS = ("top_k", "batch_top_k", "relu", "jump_relu", "matryoshka")


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed_it_ends_at_the_same_bits(tmp_path: Path, kind: str) -> None:
    config = dictionary_class(kind).config_class(d_in=8, d_sae=32, k=4)
    straight = train(training(), config=config, kind=kind)
    # Before the first checkpoint, between two, and just after the last step.
    for at in (3, 16, 30):
        with pytest.raises(Killed):
            train(training(), config=config, kind=kind, workspace=tmp_path, progress=killer(at))
    steps: list[int] = []
    resumed = train(
        training(),
        config=config,
        kind=kind,
        workspace=tmp_path,
        progress=lambda done, total: steps.append(done),
    )
    assert same(straight, resumed)
    assert steps == []  # all 30 had been kept
    (tmp_path / "sae_checkpoint.safetensors").unlink()
    with pytest.raises(Killed):
        train(training(), config=config, kind=kind, workspace=tmp_path, progress=killer(16))
    resumed = train(
        training(),
        config=config,
        kind=kind,
        workspace=tmp_path,
        progress=lambda done, _: steps.append(done),
    )
    assert same(straight, resumed)
    assert steps[0] == 15  # the checkpoint after step 14


@pytest.mark.parametrize("k", [4, 8])
def test_jump_relu_has_as_many_active_latents_as_it_is_asked_for(k: int) -> None:
    config = dictionary_class("jump_relu").config_class(d_in=8, d_sae=32, k=k)
    sae = train(training(steps=400, batch=256), config=config, kind="jump_relu")
    z = sae.encode(sampler(2000, torch.Generator().manual_seed(9)))
    assert float((z > 0).double().sum(1).mean()) == pytest.approx(k, rel=0.12)


@pytest.mark.parametrize("change", ["settings", "data", "seed", "config"])
def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path, change: str) -> None:
    train(training(), workspace=tmp_path, data_hash="a")
    settings = training(learning_rate=1e-3) if change == "settings" else training()
    config = SaeConfig(d_in=8, d_sae=32, k=5) if change == "config" else CONFIG
    seed, data_hash = int(change == "seed"), "b" if change == "data" else "a"
    steps: list[int] = []
    sae = train(
        settings,
        seed,
        config,
        workspace=tmp_path,
        data_hash=data_hash,
        progress=lambda done, _: steps.append(done),
    )
    assert len(steps) == 30
    assert same(sae, train(settings, seed, config))


def test_a_damaged_checkpoint_costs_time_only(tmp_path: Path) -> None:
    straight = train(training(), workspace=tmp_path)
    path = tmp_path / "sae_checkpoint.safetensors"
    for damaged in (path.read_bytes()[:200], b"", b"\xff" * 100):
        path.write_bytes(damaged)
        assert same(train(training(), workspace=tmp_path), straight)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_flipped_bit_in_a_checkpoint_costs_time_only(tmp_path: Path, share: float) -> None:
    straight = train(training())
    with pytest.raises(Killed):
        train(training(), workspace=tmp_path, progress=killer(16))
    path = tmp_path / "sae_checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    steps: list[int] = []
    resumed = train(training(), workspace=tmp_path, progress=lambda done, total: steps.append(done))
    assert len(steps) == 30
    assert same(resumed, straight)


def test_it_learns_and_keeps_unit_decoder_rows() -> None:
    sae = train(training(steps=400, batch=256, learning_rate=5e-3))
    h = sampler(1000, torch.Generator().manual_seed(9))
    with torch.no_grad():
        left = ((sae(h)[1] - h) ** 2).mean() / h.var(0).mean()
    assert left < 0.1
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(32), atol=1e-5)


def test_l1_makes_relu_codes_sparser() -> None:
    h = sampler(500, torch.Generator().manual_seed(9))

    def active(l1_weight: float) -> float:
        config = ReluConfig(d_in=8, d_sae=32, k=4, l1_weight=l1_weight, control=0)
        sae = train(training(steps=150), config=config, kind="relu")
        with torch.no_grad():
            return float((sae.encode(h) > 1e-6).double().sum(1).mean())

    assert active(0.3) < 0.7 * active(0.0)


def test_dead_latents_come_back() -> None:
    """Three quarters of the latents start too low to fire: auxk brings all of them back."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.randn(48, 16, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)

    def many_directions(count: int, generator: torch.Generator) -> Tensor:
        active = torch.rand(count, 48, generator=generator) < torch.logspace(-1.5, -0.7, 48)
        return (active * (0.5 + torch.rand(count, 48, generator=generator))) @ directions

    def mostly_dead(sae: SparseAutoencoder) -> None:
        with torch.no_grad():
            sae.b_enc[16:] = -1

    h = many_directions(4000, torch.Generator().manual_seed(5))
    alive, left = {}, {}
    for aux_k in (0, 16):
        sae = train(
            training(steps=400, batch=128, learning_rate=5e-3, aux_k=aux_k, dead_after=2000),
            config=SaeConfig(d_in=16, d_sae=64, k=4),
            sampler=many_directions,
            start=mostly_dead,
        )
        with torch.no_grad():
            z, h_hat, _ = sae(h)
        alive[aux_k], left[aux_k] = int((z > 0).any(0).sum()), float((h_hat - h).square().mean())
    assert alive[0] < 60 < 64 == alive[16]
    assert left[16] < 1.02 * left[0]


def test_auxk_reaches_dead_latents_only() -> None:
    """Latents that are positive but never among the k largest."""
    sae = TopK(CONFIG, torch.Generator().manual_seed(0))
    h = sampler(64, torch.Generator().manual_seed(0))
    _, h_hat, pre = sae(h)
    dead = torch.arange(32) < 4
    auxk_loss(sae, (h - h_hat).detach(), pre, dead, 64).backward()  # more than are dead
    assert sae.b_enc.grad is not None
    assert bool((sae.b_enc.grad[:4] != 0).all()) and bool((sae.b_enc.grad[4:] == 0).all())


def test_auxk_by_hand_and_zero_where_nothing_is_left() -> None:
    sae = TopK(SaeConfig(d_in=2, d_sae=3, k=1), torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    residual = torch.tensor([[1.0, 0.0], [-1.0, 2.0]])
    pre = torch.tensor([[0.5, 9.0, 0.1], [-1.0, 9.0, 2.0]])
    dead = torch.tensor([True, False, True])
    # With one latent: row 0 takes latent 0 (0.5), row 1 latent 2 (2.0).
    error = (0.5**2 + 0 + 1 + 0) / 4
    spread = (1 + 1 + 1 + 1) / 4
    assert auxk_loss(sae, residual, pre, dead, 1).item() == pytest.approx(error / spread)
    for nothing in (torch.zeros(2, 2), torch.ones(2, 2)):
        assert auxk_loss(sae, nothing, pre * 0, dead, 1).item() == 0


def test_global_random_state_is_untouched() -> None:
    before = torch.random.get_rng_state()
    train(training(steps=3))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_diverging_training_is_one_clear_error() -> None:
    def broken(count: int, generator: torch.Generator) -> Tensor:
        return sampler(count, generator) * float("nan")

    with pytest.raises(InvalidBenchmarkError, match="diverged"):
        train(training(), sampler=broken)


def test_learning_rate_climbs_stays_and_falls() -> None:
    settings = training(steps=100, warm_up=0.1, decay=0.2, learning_rate=1.0)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:80] == [1.0] * 71
    assert rates[99] == pytest.approx(0.05) and min(rates) > 0
    assert training(warm_up=0, decay=0, learning_rate=1.0).rate(0) == 1


def test_pre_bias_starts_where_it_was_asked_to() -> None:
    def constant_with_outlier(count: int, generator: torch.Generator) -> Tensor:
        h = torch.ones(count, 8)
        h[0] = 1e4
        return h

    median = train(training(steps=1, learning_rate=1e-9), sampler=constant_with_outlier)
    mean = train(
        training(steps=1, learning_rate=1e-9, pre_bias="mean"), sampler=constant_with_outlier
    )
    assert torch.allclose(median.b_dec, torch.ones(8), atol=1e-3)
    assert bool((mean.b_dec > 2).all())


def test_geometric_median_of_a_line_is_its_middle_point() -> None:
    line = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [50.0, 50.0], [3.0, 3.0]])
    assert torch.allclose(geometric_median(line), torch.tensor([2.0, 2.0]), atol=0.05)


@pytest.mark.parametrize("kind", ["batch_top_k", "relu", "jump_relu", "matryoshka"])
@pytest.mark.parametrize("k", [2, 6])
def test_every_kind_comes_to_the_sparsity_that_is_asked_for(kind: str, k: int) -> None:
    """Within a factor of two, in few steps, from six to sixteen times as many at the start."""

    def crowded(count: int, generator: torch.Generator) -> Tensor:
        active = torch.rand(count, 16, generator=generator) < 0.5
        return (active * torch.rand(count, 16, generator=generator)) @ DIRECTIONS

    config = dictionary_class(kind).config_class(d_in=8, d_sae=32, k=k)
    sae = train(training(steps=600, batch=256), config=config, kind=kind, sampler=crowded)
    h = crowded(2000, torch.Generator().manual_seed(9))
    with torch.no_grad():
        z, h_hat, _ = sae(h)
    assert 0.5 * k < float((z > 0).float().sum(1).mean()) < 2 * k
    # L1 shrinks what it makes sparse.
    assert float(((h_hat - h) ** 2).mean() / h.var(0).mean()) < (0.9 if kind == "relu" else 0.5)
