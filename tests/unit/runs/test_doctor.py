from __future__ import annotations

from pathlib import Path

import pytest
import torch

from casl_bench.cli import main as cli
from casl_bench.core.errors import UsageError
from casl_bench.runs import system_info as doctor


def page(tmp_path: Path, device: str = "cpu") -> tuple[str, int]:
    return doctor.doctor_page(device, tmp_path / "cache", tmp_path / "data", tmp_path / "weights")


def line(text: str, start: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(start))


def test_the_page_tells_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "data" / "afhq_dog").mkdir(parents=True)
    (tmp_path / "weights" / "lpips").mkdir(parents=True)
    (tmp_path / "weights" / "lpips" / "alexnet-owt-7be5be79.pth").touch()
    text, code = page(tmp_path)
    assert code == 0
    assert f"torch {torch.__version__.partition('+')[0]}" in line(text, "versions")
    assert "cores" in line(text, "cpu")
    assert "GB free" in line(text, "device")
    assert "writable, 0.00 GB" in line(text, "cache") and "NOT" not in line(text, "cache")
    assert "a folder of data, 1 of 5 weights" in line(text, "afhq_dog")
    assert "no folder of data, 1 of 6 weights" in line(text, "celeba_hq")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "weights"]  # nothing was made


def test_the_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda place, mode: place != tmp_path)
    assert "NOT writable" in line(page(tmp_path)[0], "cache")


def test_a_broken_torch_or_an_unknown_device_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, code = page(tmp_path, device="abacus")
    assert code == 2 and "unknown device 'abacus'" in line(text, "broken")
    assert line(text, "cache")

    def broken() -> None:
        raise UsageError("torch 1 and torchvision 2 do not fit together", hint="install both")

    monkeypatch.setattr(doctor, "check_torch", broken)
    text, code = page(tmp_path)
    assert code == 2 and "do not fit together; install both" in line(text, "broken")


def test_the_command_prints_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", "--cache", str(tmp_path), "--weights-root", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith("versions")
