"""Room for trajectories is asked for before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from casl_bench.core.errors import UsageError
from casl_bench.diffusion.trajectories import (
    DISK_BUDGET_GB,
    DISK_BUDGET_VARIABLE,
    GB,
    TrajectoryStore,
    disk_budget,
    store_bytes,
    trajectory_bytes,
)
from casl_bench.models.backbone import EncoderState

X_T, H = (3, 256, 256), (512, 8, 8)


def create(folder: Path, images: int, max_disk_bytes: int | None = None) -> TrajectoryStore:
    ids = [str(i) for i in range(images)]
    return TrajectoryStore.create(
        folder, ids, tuple(range(40)), X_T, H, max_disk_bytes=max_disk_bytes
    )


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DISK_BUDGET_VARIABLE, raising=False)


def test_a_thousand_images_of_256_pixels_take_37_gb() -> None:
    assert store_bytes(1000, 40, X_T, H) == 1000 * 40 * (3 * 256 * 256 + 512 * 64) * 4
    assert store_bytes(1000, 40, X_T, H) / GB == pytest.approx(36.7, abs=0.1)


def test_the_budget_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk_budget() == DISK_BUDGET_GB * GB
    monkeypatch.setenv(DISK_BUDGET_VARIABLE, "0.5")
    assert disk_budget() == GB // 2
    for nonsense in ("much", "-1", "nan", "inf", "0", "1e300"):
        monkeypatch.setenv(DISK_BUDGET_VARIABLE, nonsense)
        with pytest.raises(UsageError, match=f"'{nonsense}' is no disk budget"):
            disk_budget()


def test_more_than_the_budget_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = r"need 36\.7 GB, the disk budget leaves 10\.0 GB \(.*\); set CASL_BENCH_DISK_BUDGET_GB"
    with pytest.raises(UsageError, match=said) as raised:
        create(tmp_path / "run", 1000, max_disk_bytes=10 * GB)
    assert "\n" not in str(raised.value)
    monkeypatch.setenv(DISK_BUDGET_VARIABLE, "10")
    with pytest.raises(UsageError, match=said):
        create(tmp_path / "run", 1000)
    assert list(tmp_path.iterdir()) == []


def test_more_than_is_free_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * GB))
    with pytest.raises(UsageError, match=r"the disk has 5\.0 GB free \(.*\); free it") as raised:
        create(tmp_path / "run" / "deep", 1000)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_not_needed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(folder: Path) -> TrajectoryStore:
        return TrajectoryStore.create(
            folder, ("a", "b"), (0, 1), (3, 8, 8), (4, 2, 2), shard_images=1
        )

    folder, needed = tmp_path / "store", store_bytes(2, 2, (3, 8, 8), (4, 2, 2))
    assert trajectory_bytes(folder) == 0
    x_t, h = torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 2, 2)
    begin(folder).record(0, slice(0, 1), EncoderState(x_t, 0, h, torch.zeros(1, 1), ()))
    assert needed > trajectory_bytes(tmp_path) >= needed // 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed // 2 + 8))
    assert begin(folder).holds(slice(0, 1))
    with pytest.raises(UsageError, match="free"):
        begin(tmp_path / "other")
