"""Time of a run outside the networks, and the most memory it holds.

The run is the suite full on one concept: in a smaller one the fixed work has a larger share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.nn.modules import module as modules
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from casl_bench.core.memory import peak_memory
from casl_bench.methods.method import METHODS
from casl_bench.models import backbone as halves
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.suites import suite
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import SaeConfig


class KernelClock:
    """Seconds within forward passes of any network, backward passes and optimiser steps."""

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self._depth = 0
        self._entered = 0.0
        self.seconds = 0.0

    def enter(self, *_: object) -> None:
        if not self._depth:
            self._entered = self._clock()
        self._depth += 1

    def leave(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += self._clock() - self._entered

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.enter()
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return wrapper

    @contextmanager
    def watch(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        for owner, name in (
            # Of the U-Net a half is a function; hooks alone would miss what is between its blocks.
            (halves, "encoder_half"),
            (halves, "decoder_half"),
            # From images to its patches, and from its output in patches, or v, to eps.
            (halves.functional, "pixel_unshuffle"),
            (halves.Backbone, "_eps_from_output"),
            # What an SAE is run by, beside `forward`.
            (TopK, "encode"),
            (TopK, "decode"),
            (torch.Tensor, "backward"),
            (torch.autograd, "grad"),
        ):
            patch.setattr(owner, name, self.timed(getattr(owner, name)))
        with ExitStack() as hooks:
            for handle in (
                modules.register_module_forward_pre_hook(self.enter),
                modules.register_module_forward_hook(self.leave, always_call=True),
                register_optimizer_step_pre_hook(self.enter),
                register_optimizer_step_post_hook(self.leave),
            ):
                hooks.callback(handle.remove)
            yield


def test_the_clock_counts_nested_networks_once() -> None:
    ticks = iter(range(100))
    clock = KernelClock(lambda: float(next(ticks)))
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with pytest.MonkeyPatch.context() as patch, clock.watch(patch):
        net(torch.zeros(1, 2)).sum().backward()
        assert clock.seconds == 2  # one forward and one backward pass, a tick each
        TopK(SaeConfig(d_in=2, d_sae=4, k=1)).encode(torch.zeros(1, 2))
    assert clock.seconds == 3
    net(torch.zeros(1, 2))
    assert clock.seconds == 3


def test_harness_overhead(
    benchmark: BenchmarkFixture, run_domain, tmp_path: Path, full_size: bool
) -> None:
    if not full_size:
        pytest.skip("half an hour: set CASL_BENCH_FULL_SIZE=1")
    methods = tuple(METHODS.names())
    clock = KernelClock()

    def measured() -> float:
        with pytest.MonkeyPatch.context() as patch, clock.watch(patch):
            start = time.process_time()
            run_domain(tmp_path / "run", methods, SilentProgress(), suite=suite("full"))
            return time.process_time() - start

    with peak_memory() as peak:
        seconds = benchmark.pedantic(measured, rounds=1)
    assert 0 < clock.seconds < seconds
    benchmark.extra_info.update(
        {
            "processor seconds": seconds,
            "of these in networks": clock.seconds,
            "ratio": 1 - clock.seconds / seconds,
            "target": "<= 0.05",
            "peak of the process, GB": None if peak.mb is None else peak.mb / 1000,
            "further targets": {"peak of the process, GB": "<= 4"},
        }
    )
