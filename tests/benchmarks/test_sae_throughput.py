"""Vectors a second of the SAE's trainer against a bare loop of the same SAE."""

from __future__ import annotations

import statistics
import time

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import SaeConfig, SaeTraining
from casl_bench.sae.training import train_sae

D_IN = 128


def sample(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, D_IN, generator=generator)


def bare_loop(config: SaeConfig, training: SaeTraining) -> TopK:
    """Forward, squared error, backward, Adam: no schedule, no revival, no unit norm."""
    generator = torch.Generator().manual_seed(0)
    sae = TopK(config, generator)
    optimiser = torch.optim.Adam(sae.parameters(), lr=training.learning_rate)
    for _ in range(training.steps):
        h = sample(training.batch, generator)
        loss = ((sae(h)[1] - h) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return sae


def test_sae_throughput(benchmark: BenchmarkFixture, full_size: bool) -> None:
    config = SaeConfig(d_in=D_IN, d_sae=1024 if full_size else 128)
    training = SaeTraining(steps=60 if full_size else 5, batch=1024 if full_size else 64)
    ours, bare = [], []

    def both() -> None:
        start = time.process_time()
        generator = torch.Generator().manual_seed(0)
        train_sae(TopK(config, generator), training, sample, generator)
        middle = time.process_time()
        bare_loop(config, training)
        ours.append(middle - start)
        bare.append(time.process_time() - middle)

    benchmark.pedantic(both, rounds=3 if full_size and benchmark.enabled else 1)
    vectors = training.steps * training.batch
    benchmark.extra_info.update(
        {
            "vectors a second of processor time": vectors / statistics.median(ours),
            "of the bare loop": vectors / statistics.median(bare),
            "ratio": statistics.median(b / a for a, b in zip(ours, bare, strict=True)),
        }
    )
