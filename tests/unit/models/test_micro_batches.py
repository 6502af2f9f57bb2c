"""Networks see batches of one size only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from casl_bench.models.micro_batch import in_micro_batches, one_thread


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_every_call_has_the_size_and_rows_keep_their_order(n: int) -> None:
    sizes = []

    def double(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x * 2

    x = torch.arange(n * 5.0).reshape(n, 5)
    assert torch.equal(in_micro_batches(double, x, 4), x * 2)
    assert set(sizes) == {4}


def test_on_a_gpu_nothing_is_multiplied_in_tf32_and_convolutions_repeat_their_bits() -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32
    with one_thread():
        assert not (cudnn.allow_tf32 or matmul.allow_tf32 or cudnn.benchmark)
        assert cudnn.deterministic
    assert before == (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32)
