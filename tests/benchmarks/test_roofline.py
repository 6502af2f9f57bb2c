"""Share of the device's own peak on matmul and convolution that the edit loop reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.domain import Domain
from casl_bench.methods.h_space_editor import EditWindow, generate_edits

STRENGTHS = (0.25, 0.75, 1.5, 3.0)


def flops(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def rate(work: Callable[[], object], repeats: int) -> float:
    """Best FLOP/s of several goes, by wall time; the first one, which warms up, is left out."""
    count, seconds = flops(work), []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return count / min(seconds)


def still(h: Tensor, t: int, temb: Tensor) -> Tensor:
    return 0.1 * h


@torch.no_grad()
def test_share_of_the_peak(
    benchmark: BenchmarkFixture, domain: Domain, inversions: Inversions, full_size: bool
) -> None:
    net, side = domain.backbone, domain.backbone.image_size // domain.backbone.patch_size
    channels = net.unet.config["block_out_channels"][0]
    repeats = 10 if full_size and benchmark.enabled else 1
    square = torch.rand(1024 if full_size else 64, 1024 if full_size else 64)
    picture = torch.rand(net.micro_batch, channels, side, side)
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    last = picture.contiguous(memory_format=torch.channels_last)
    x_t = inversions.x_T[: net.micro_batch]
    window = EditWindow(350, asymmetric=True)
    few = inversions.take(range(min(4, len(inversions))))

    def edit() -> Tensor:
        return generate_edits(net, few, STRENGTHS, still, window, 0)

    def measured() -> dict[str, float]:
        return {
            "matmul": rate(lambda: square @ square, repeats),
            "convolution, contiguous": rate(lambda: conv(picture), repeats),
            "convolution, channels last": rate(lambda: conv(last), repeats),
            "U-Net pass": rate(lambda: net.eps(x_t, 500), repeats),
            "edit loop": rate(edit, min(repeats, 3)),
        }

    found = benchmark.pedantic(measured, rounds=1)
    peak = max(v for name, v in found.items() if name.startswith(("matmul", "convolution")))
    per_image = flops(lambda: net.eps(x_t, 500)) / len(x_t)
    assert per_image > 0
    benchmark.extra_info.update(
        {f"{name}, GFLOP/s": value / 1e9 for name, value in found.items()}
        | {
            "threads": torch.get_num_threads(),
            "GFLOP of a pass and image": per_image / 1e9,
            "ratio": found["edit loop"] / peak,
            "target": ">= 0.6" if full_size else "",
        }
    )
