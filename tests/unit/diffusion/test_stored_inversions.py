"""Stored inversions are of the very images that they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.diffusion.inversion import Inversions, read_inversions, write_inversions

IDS, WALK = ("a", "b"), (0, 500)


def made() -> Inversions:
    draw = torch.Generator().manual_seed(0)
    x_0, x_T, reconstruction = torch.randn(3, 2, 3, 4, 4, generator=draw)
    return Inversions(IDS, WALK, x_0, x_T, reconstruction)


def test_they_come_back_as_they_were(tmp_path: Path) -> None:
    write_inversions(tmp_path / "file", made())
    found = read_inversions(tmp_path / "file", IDS, WALK, made().x_0)
    assert torch.equal(found.x_T, made().x_T)
    assert torch.equal(found.reconstruction, made().reconstruction)


def test_a_photograph_replaced_under_its_name_is_noticed(tmp_path: Path) -> None:
    """Names and sizes of files, which make a data set's revision, may be as they were."""
    write_inversions(tmp_path / "file", made())
    other = made().x_0
    other[1, 2, 3, 0] += 1 / 255
    with pytest.raises(InvalidBenchmarkError, match="other pixels, under the same names"):
        read_inversions(tmp_path / "file", IDS, WALK, other)


def test_other_shapes_and_changed_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_inversions(path, made())
    with pytest.raises(InvalidBenchmarkError, match=r"holds images \[2, 3, 4, 4\]"):
        read_inversions(path, IDS, WALK, torch.zeros(2, 3, 8, 8))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidBenchmarkError, match="not what was written"):
        read_inversions(path, IDS, WALK, made().x_0)
