"""Edits a second, batched and shared, against the plain loop on the same U-Net in the same run.

Ours and the plain loop run in turn. On one thread times are processor time, which other work on the
machine disturbs less; on several they are wall time.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.domain import Domain
from casl_bench.methods.h_space_editor import EditWindow, generate_edits
from tests.support.plain_loop import plain_edits

STRENGTHS = (0.25, 0.75, 1.5, 3.0)
WINDOWS = {
    "plain injection": EditWindow(350),
    "asymmetric": EditWindow(350, asymmetric=True),
    "asymmetric, boosted": EditWindow(350, t_boost=100, asymmetric=True),
}


def push(h: Tensor, t: int, temb: Tensor) -> Tensor:
    """A direction that depends on h: what it costs is nothing beside a pass."""
    return 0.1 * torch.roll(h, 1, dims=1)


@pytest.mark.parametrize("name", WINDOWS)
def test_the_plain_loop_makes_the_same_edits_with_more_passes(
    domain: Domain, inversions: Inversions, name: str
) -> None:
    few = inversions.take(range(3))
    with domain.backbone.count_calls() as shared:
        fast = generate_edits(domain.backbone, few, STRENGTHS[:2], push, WINDOWS[name], 0)
    with domain.backbone.count_calls() as plain:
        slow = plain_edits(domain.backbone, few, STRENGTHS[:2], push, WINDOWS[name], 0)
    assert torch.allclose(fast, slow, rtol=1e-3, atol=1e-3)
    edited = sum(WINDOWS[name].edits(t) for t in few.timesteps)
    twice = edited if WINDOWS[name].asymmetric else 0
    assert plain.unet_calls == 3 * 2 * (len(few.timesteps) + twice)
    assert shared.unet_calls < plain.unet_calls


@pytest.mark.parametrize("name", WINDOWS)
def test_edit_throughput(
    benchmark: BenchmarkFixture,
    domain: Domain,
    inversions: Inversions,
    full_size: bool,
    name: str,
) -> None:
    arguments = (inversions, STRENGTHS, push, WINDOWS[name], 0)
    rounds = 3 if full_size and benchmark.enabled else 1
    ours: list[float] = []
    plain: list[float] = []
    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter

    def both() -> None:
        # Beside each other, so that a disturbance of the machine meets both.
        for seconds, edit in ((ours, generate_edits), (plain, plain_edits)):
            began = clock()
            edit(domain.backbone, *arguments)
            seconds.append(clock() - began)

    benchmark.pedantic(both, rounds=rounds)
    judged = full_size and threads == 2 and WINDOWS[name].asymmetric
    image_steps = len(STRENGTHS) * len(inversions) * len(inversions.timesteps)
    benchmark.extra_info.update(
        {
            "threads": threads,
            "image-steps a second": image_steps / statistics.median(ours),
            "of the plain loop": image_steps / statistics.median(plain),
            "ratio": statistics.median(b / a for a, b in zip(ours, plain, strict=True)),
            "target": ">= 2.5" if judged else "",
        }
    )
