"""A split is inverted part by part; interrupted, it goes on and ends at the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from casl_bench.diffusion.inversion import (
    Inversions,
    forget_parts,
    images_per_part,
    invert,
    invert_in_parts,
)
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.domains.dataset import ImageBatch
from casl_bench.models.backbone import Backbone

IDS = tuple("abcdefghij")
WALK = (0, 400, 999)
PART = 4


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def backbone(make_backbone: Callable[..., Backbone]) -> Backbone:
    return make_backbone()


@pytest.fixture(scope="module")
def batch() -> ImageBatch:
    draw = torch.Generator().manual_seed(0)
    return ImageBatch(IDS, torch.rand(10, 3, 16, 16, generator=draw) * 2 - 1, None)


def new_store(folder: Path, backbone: Backbone) -> TrajectoryStore:
    return TrajectoryStore.create(folder, IDS, WALK, (3, 16, 16), backbone.h_shape, shard_images=3)


def parts(
    folder: Path, backbone: Backbone, batch: ImageBatch, kill_at: int | None = None
) -> Inversions:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done == kill_at:
            raise Killed

    store = new_store(folder, backbone)
    made = invert_in_parts(
        backbone, batch, WALK, True, folder=folder, store=store, size=PART, advance=advance
    )
    assert done == len(batch)
    store.finish()
    return made


def calls(work: Callable[[], object], backbone: Backbone) -> float:
    with backbone.count_calls() as counted:
        work()
    return counted.unet_calls


def same(a: Inversions, b: Inversions) -> bool:
    return (
        (a.image_ids, a.timesteps) == (b.image_ids, b.timesteps)
        and torch.equal(a.x_T, b.x_T)
        and torch.equal(a.reconstruction, b.reconstruction)
    )


def test_interrupted_and_gone_on_it_ends_at_the_bits_of_one_inversion(
    backbone: Backbone, batch: ImageBatch, tmp_path: Path
) -> None:
    in_memory = TrajectoryStore.create(None, IDS, WALK, (3, 16, 16), backbone.h_shape)
    whole = invert(backbone, IDS, batch.pixels, WALK, collect=in_memory.record, extrapolate=True)
    all_calls = calls(lambda: parts(tmp_path / "straight", backbone, batch), backbone)
    for kill_at in (4, 8):  # in the first part's last step, then in the second's
        with pytest.raises(Killed):
            parts(tmp_path / "run", backbone, batch, kill_at)
    # One part was finished in between; what is left is that of six images.
    made: list[Inversions] = []
    left = calls(lambda: made.append(parts(tmp_path / "run", backbone, batch)), backbone)
    assert left == pytest.approx(all_calls * 6 / 10)
    assert same(made[0], whole)
    store = TrajectoryStore.open(tmp_path / "run")
    for step in range(len(WALK)):
        assert torch.equal(store.x_t(step), in_memory.x_t(step))
        assert torch.equal(store.h(step), in_memory.h(step))
    forget_parts(tmp_path / "run")
    assert not list((tmp_path / "run").glob("part*"))


def test_a_part_that_is_damaged_or_has_lost_its_trajectories_is_made_again(
    backbone: Backbone, batch: ImageBatch, tmp_path: Path
) -> None:
    straight = parts(tmp_path, backbone, batch)
    first, _, third = sorted(tmp_path.glob("part-*"))
    assert [p.name for p in (first, third)] == [
        "part-00000-00004.safetensors",
        "part-00008-00010.safetensors",
    ]
    first.write_bytes(first.read_bytes()[:-9])
    (tmp_path / "h-00003.npy").unlink()  # image 9, of the third part
    made: list[Inversions] = []
    again = calls(lambda: made.append(parts(tmp_path, backbone, batch)), backbone)
    assert same(made[0], straight)
    assert again == pytest.approx(6 * (2 + 3))  # inversion, generation from its last h


def test_a_split_of_one_part_writes_no_part(
    backbone: Backbone, batch: ImageBatch, tmp_path: Path
) -> None:
    assert images_per_part(backbone, 3) > 10
    made = invert_in_parts(backbone, batch, WALK, True, folder=tmp_path)
    assert same(made, invert(backbone, IDS, batch.pixels, WALK, extrapolate=True))
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_whole_micro_batches(make_backbone: Callable[..., Backbone]) -> None:
    backbone = make_backbone(micro_batch=5)
    backbone.image_size = 256
    assert images_per_part(backbone, 40) == 10
