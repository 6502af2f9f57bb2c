from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from casl_bench.activations.trajectory_store import TrajectoryStore
from casl_bench.backbones.backbone import Backbone, EncoderState
from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.inversion.inverter import invert

IDS = ("a", "b", "c", "d", "e")
WALK = (0, 400, 999)


def empty(folder: Path | None) -> TrajectoryStore:
    return TrajectoryStore.create(folder, IDS, WALK, (3, 16, 16), (16, 8, 8))


@pytest.fixture
def filled(make_backbone: Callable[..., Backbone], tmp_path: Path) -> TrajectoryStore:
    """A finished store in `tmp_path / "store"`."""
    x_0 = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    store = empty(tmp_path / "store")
    invert(make_backbone(), IDS, x_0, WALK, collect=store.record)
    store.finish()
    return store


def test_holds_what_the_inversion_saw(
    make_backbone: Callable[..., Backbone], filled: TrajectoryStore, tmp_path: Path
) -> None:
    backbone = make_backbone()
    x_0 = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    in_memory = empty(None)
    inversions = invert(backbone, IDS, x_0, WALK, collect=in_memory.record)
    in_memory.finish()
    assert torch.equal(in_memory.x_t(0), x_0)
    assert torch.equal(in_memory.x_t(2), inversions.x_T)
    for store in (filled, TrajectoryStore.open(tmp_path / "store")):
        assert store.image_ids == IDS
        assert store.timesteps == WALK
        assert len(store) == 5
        for step, t in enumerate(WALK):
            assert torch.equal(store.x_t(step), in_memory.x_t(step))
            assert torch.equal(store.h(step), in_memory.h(step))
            assert torch.equal(store.h(step), backbone.encode(store.x_t(step), t).h)


def test_changing_what_was_read_leaves_the_files_alone(filled: TrajectoryStore) -> None:
    before = filled.h(1).clone()
    filled.h(1)[:] = 0
    assert torch.equal(filled.h(1), before)


def test_rows_can_be_read_alone(filled: TrajectoryStore) -> None:
    index = torch.tensor([4, 0, 4])
    assert torch.equal(filled.h(1)[index], filled.h(1).clone()[index])


def test_an_unfinished_store_is_refused(filled: TrajectoryStore, tmp_path: Path) -> None:
    empty(tmp_path / "store")
    with pytest.raises(InvalidBenchmarkError, match="unusable stored trajectories"):
        TrajectoryStore.open(tmp_path / "store")


@pytest.mark.parametrize("name", ["x_t.npy", "h.npy", "index.json"])
def test_damaged_files_are_refused(filled: TrajectoryStore, tmp_path: Path, name: str) -> None:
    path = tmp_path / "store" / name
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InvalidBenchmarkError, match="unusable stored trajectories") as raised:
        TrajectoryStore.open(tmp_path / "store")
    assert "\n" not in str(raised.value)
    path.unlink()
    with pytest.raises(InvalidBenchmarkError, match="unusable stored trajectories"):
        TrajectoryStore.open(tmp_path / "store")


def test_files_of_another_shape_are_refused(filled: TrajectoryStore, tmp_path: Path) -> None:
    np.save(tmp_path / "store" / "h.npy", np.zeros((3, 4, 16, 8, 8), np.float32))
    with pytest.raises(InvalidBenchmarkError, match=r"h\.npy is float32 \[3, 4, 16, 8, 8\]"):
        TrajectoryStore.open(tmp_path / "store")


def test_a_state_of_another_timestep_is_refused() -> None:
    x_t, h = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 8, 8)
    state = EncoderState(x_t, 500, h, torch.zeros(1, 4), ())
    with pytest.raises(InputError, match=r"step 1 is t = 400, got t = 500"):
        empty(None).record(1, slice(0, 1), state)
