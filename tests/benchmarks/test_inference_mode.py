"""What `torch.inference_mode` would save of a pass over `torch.no_grad`, which is what is used."""

from __future__ import annotations

import statistics
import time

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from casl_bench.domains.domain import Domain


def test_inference_mode(benchmark: BenchmarkFixture, domain: Domain, full_size: bool) -> None:
    backbone = domain.backbone
    shape = (backbone.micro_batch, 3, backbone.image_size, backbone.image_size)
    x_t = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    backbone.eps(x_t, 500)
    modes = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    seconds: dict[str, list[float]] = {name: [] for name in modes}
    eps = []

    def both() -> None:
        for name, mode in modes.items():
            start = time.process_time()
            with mode():
                eps.append(backbone.eps(x_t, 500))
            seconds[name].append(time.process_time() - start)

    benchmark.pedantic(both, rounds=20 if full_size and benchmark.enabled else 1)
    assert all(torch.equal(x, eps[0]) for x in eps)
    benchmark.extra_info.update(
        {
            "ratio": statistics.median(
                a / b for a, b in zip(seconds["no_grad"], seconds["inference_mode"], strict=True)
            ),
            "target": "",
        }
    )
