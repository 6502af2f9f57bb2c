from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.diffusion.inversion import invert
from casl_bench.diffusion.sharded_array import ShardedArray, images_per_shard
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.models.backbone import Backbone, EncoderState

IDS = ("a", "b", "c", "d", "e")
WALK = (0, 400, 999)


def empty(folder: Path | None, **settings: Any) -> TrajectoryStore:
    """Two images a file."""
    return TrajectoryStore.create(
        folder, IDS, WALK, (3, 16, 16), (16, 8, 8), **({"shard_images": 2} | settings)
    )


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


@pytest.mark.parametrize(
    "rows",
    [
        torch.tensor([4, 0, 4]),
        [3, 2],
        torch.tensor([True, False, False, True, True]),
        slice(0, 2),
        slice(1, 4),
        slice(4, 99),
        slice(2, 2),
        slice(0, 5, 2),
    ],
)
@pytest.mark.parametrize("on_disk", [True, False])
def test_rows_can_be_read_alone(filled: TrajectoryStore, rows: Any, on_disk: bool) -> None:
    store = filled
    if not on_disk:
        store = empty(None)
        for step, t in enumerate(WALK):
            state = EncoderState(filled.x_t(step), t, filled.h(step), torch.zeros(5, 1), ())
            store.record(step, slice(0, 5), state)
    found, whole = store.x_t(1, rows), store.x_t(1)
    assert torch.equal(found, whole[rows])
    assert torch.equal(store.h(2, rows), store.h(2)[rows])
    assert found.is_contiguous()


def test_places_outside_are_refused(filled: TrajectoryStore) -> None:
    for rows in ([5], [-1], torch.tensor([0, 99])):
        with pytest.raises(InputError, match=r"places must lie in \[0, 5\)"):
            filled.h(0, rows)
    with pytest.raises(InputError, match="a mask of 2 places for 5 images"):
        filled.h(0, torch.tensor([True, False]))


def test_a_file_is_at_most_256_mb_or_one_image() -> None:
    assert images_per_shard(40, (3, 256, 256)) == 8
    assert images_per_shard(1000, (3, 1024, 1024)) == 1


def test_reading_rows_maps_their_files_only(
    filled: TrajectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    memmap = np.memmap

    def spy(path: Path, *settings: Any) -> Any:
        read.append(path.name)
        return memmap(path, *settings)

    monkeypatch.setattr(np, "memmap", spy)
    filled.h(1, torch.tensor([4]))
    filled.x_t(0, slice(2, 4))
    assert read == ["h-00002.npy", "x_t-00001.npy"]


def test_what_was_recorded_before_an_interruption_is_still_there(
    filled: TrajectoryStore, tmp_path: Path
) -> None:
    before = filled.h(1, slice(0, 2)).clone()
    (tmp_path / "store" / "h-00001.npy").unlink()
    again = empty(tmp_path / "store")
    assert again.holds(slice(0, 2)) and again.holds(slice(4, 5))
    assert not again.holds(slice(2, 4)) and not again.holds(slice(0, 5))
    assert torch.equal(again.h(1, slice(0, 2)), before)
    state = EncoderState(
        torch.ones(2, 3, 16, 16), 400, torch.ones(2, 16, 8, 8), torch.ones(2, 1), ()
    )
    again.record(1, slice(1, 3), state)
    again.sync(slice(0, 5))
    again.finish()
    found = TrajectoryStore.open(tmp_path / "store").h(1)
    assert torch.equal(found[0], before[0])
    assert bool((found[1:3] == 1).all()) and not found[3].any()


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    array = ShardedArray("h", tmp_path / "a", 2, 3, (4,), 2)
    with pytest.raises(UsageError, match="cannot write: No space left on device") as raised:
        array.write(0, slice(0, 3), np.zeros((3, 4), np.float32))
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "a").iterdir()) == []


def test_an_unfinished_store_is_refused(filled: TrajectoryStore, tmp_path: Path) -> None:
    empty(tmp_path / "store")
    with pytest.raises(InvalidBenchmarkError, match="unusable stored trajectories"):
        TrajectoryStore.open(tmp_path / "store")


@pytest.mark.parametrize("name", ["x_t-00000.npy", "h-00002.npy", "index.json"])
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
    np.save(tmp_path / "store" / "h-00000.npy", np.zeros((3, 4, 16, 8, 8), np.float32))
    with pytest.raises(InvalidBenchmarkError, match=r"h-00000\.npy is float32 \[3, 4, 16, 8, 8\]"):
        TrajectoryStore.open(tmp_path / "store")


def test_a_state_of_another_timestep_is_refused() -> None:
    x_t, h = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 8, 8)
    state = EncoderState(x_t, 500, h, torch.zeros(1, 4), ())
    with pytest.raises(InputError, match=r"step 1 is t = 400, got t = 500"):
        empty(None).record(1, slice(0, 1), state)
