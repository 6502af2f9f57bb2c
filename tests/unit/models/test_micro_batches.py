"""Networks see batches of one size only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from casl_bench.models.micro_batch import in_micro_batches


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_every_call_has_the_size_and_rows_keep_their_order(n: int) -> None:
    sizes = []

    def double(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x * 2

    x = torch.arange(n * 5.0).reshape(n, 5)
    assert torch.equal(in_micro_batches(double, x, 4), x * 2)
    assert set(sizes) == {4}
