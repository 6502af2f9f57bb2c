"""The U-Net's training as its command runs it: a few steps, a checkpoint, and on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.models.weights import read_content
from casl_bench.training.commands import TrainGroup


def test_a_training_goes_on_from_its_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = f"unet --batch-size 2 --images 4 --fp32 --cache {tmp_path / 'pools'} --out"
    for steps in (1, 2):
        words = [*fixed.split(), str(tmp_path / "made"), "--steps", str(steps)]
        TrainGroup("train").main(words, standalone_mode=False)
        saved = read_content(tmp_path / "made" / "checkpoint.pt")
        assert saved["step"] == steps
    assert "resuming at step 1" in capsys.readouterr().out
    parts = saved["average"]
    assert parts.keys() == saved["model"].keys()
    assert any((parts[name] != saved["model"][name]).any() for name in parts)
