"""An SAE is trained and judged on a store on disk without ever reading much of it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from casl_bench.diffusion.sharded_array import ShardedArray
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.models.backbone import EncoderState
from casl_bench.sae import training as activation_sampler
from casl_bench.sae.dictionary import SaeConfig, SaeTraining
from casl_bench.sae.quality import sae_quality
from casl_bench.sae.training import FitData, activation_statistics, fit_dictionary

IMAGES, WALK, H = 300, (0, 100, 400, 800), (16, 4, 4)
CAP = 64 * 16 * 4 * 4 * 4
"""Bytes of h of 64 images at one timestep: a twentieth of h in the store."""


def filled(folder: Path | None) -> TrajectoryStore:
    ids = [str(i) for i in range(IMAGES)]
    store = TrajectoryStore.create(folder, ids, WALK, (3, 8, 8), H, shard_images=7)
    draw = torch.Generator().manual_seed(0)
    for step, t in enumerate(WALK):
        x_t = torch.randn(IMAGES, 3, 8, 8, generator=draw)
        h = torch.randn(IMAGES, *H, generator=draw) * (1 + step)
        store.record(step, slice(0, IMAGES), EncoderState(x_t, t, h, torch.zeros(IMAGES, 1), ()))
    store.finish()
    return store


def work(store: TrajectoryStore) -> tuple[list[Tensor], Any]:
    generator, training = torch.Generator().manual_seed(1), SaeTraining(steps=5, batch=256)
    data = FitData(store, activation_statistics(store), generator, training)
    sae = fit_dictionary("top_k", SaeConfig(d_in=16, d_sae=32, k=4), data)
    return [p.detach() for p in sae.sae.parameters()], sae_quality(sae, store, store)


def test_no_more_than_a_cap_is_read_at_once_and_the_numbers_are_those_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sum(filled(None).h(step).nbytes for step in range(len(WALK)))
    assert whole > 15 * CAP
    expected = work(filled(None))
    on_disk = filled(tmp_path)
    monkeypatch.setattr(activation_sampler, "_IN_MEMORY", whole - 1)  # too large to be kept
    sizes: list[int] = []
    read = ShardedArray.read

    def spy(self: ShardedArray, step: int, rows: Any = None) -> Tensor:
        found = read(self, step, rows)
        sizes.append(found.nbytes)
        return found

    monkeypatch.setattr(ShardedArray, "read", spy)
    parameters, quality = work(on_disk)
    # A batch as large as the one that the centre is taken from reads 512 maps of all timesteps.
    assert max(sizes) <= 3 * CAP
    assert all(torch.equal(a, b) for a, b in zip(parameters, expected[0], strict=True))
    assert quality == expected[1]
