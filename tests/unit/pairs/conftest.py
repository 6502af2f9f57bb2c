"""Two folders of pictures, the edits brighter, and logits that say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COUNT = 6
ATTRIBUTES = ("bright", "red", "still")


def save(path: Path, level: int, size: tuple[int, int] = (24, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for i in range(COUNT):
        save(tmp_path / "src" / f"{i:02d}.png", 40 + 10 * i)
        save(tmp_path / "edit" / f"{i:02d}.jpg", 200 + 5 * i)
    return tmp_path / "src", tmp_path / "edit"


def rows(side: str = "") -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    before = rng.normal(-1, 0.3, (COUNT, 3))
    after = before + np.array([3, 0.1, 0.05])
    return {
        name: [",".join([f"{i:02d}", *(f"{x:.5f}" for x in values)]) for i, values in enumerate(v)]
        for name, v in (("source", before), ("edit", after))
    }


@pytest.fixture
def logits(tmp_path: Path) -> Path:
    lines = ["image,side," + ",".join(ATTRIBUTES)]
    for side, found in rows().items():
        ending = "png" if side == "source" else "jpg"
        lines += [line.replace(",", f".{ending},{side},", 1) for line in found]
    path = tmp_path / "logits.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
