from __future__ import annotations

from pathlib import Path

import pytest
import torch

from casl_bench.cli import main as cli
from casl_bench.core.errors import UsageError
from casl_bench.models import kernel_probe
from casl_bench.models.backbone import Backbone, Kernels
from casl_bench.models.kernel_probe import Probed
from casl_bench.runs import system_info as doctor

BF16 = Kernels(bf16=True)


def page(tmp_path: Path, device: str = "cpu", probe: bool = False) -> tuple[str, int]:
    return doctor.doctor_page(
        device, tmp_path / "cache", tmp_path / "data", tmp_path / "weights", probe=probe
    )


def line(text: str, start: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(start))


def test_the_page_tells_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "data" / "afhq_dog").mkdir(parents=True)
    (tmp_path / "weights" / "lpips").mkdir(parents=True)
    (tmp_path / "weights" / "lpips" / "alexnet-owt-7be5be79.pth").touch()
    text, code = page(tmp_path)
    assert code == 0
    assert f"torch {torch.__version__.partition('+')[0]}" in line(text, "versions")
    assert f"{torch.get_num_threads()} threads" in line(text, "cpu")
    assert "GB free" in line(text, "device")
    assert "writable, 0.00 GB" in line(text, "cache") and "NOT" not in line(text, "cache")
    assert "a folder of data, 1 of 5 weights" in line(text, "afhq_dog")
    assert "no folder of data, 1 of 6 weights" in line(text, "celeba_hq")
    assert "Recommended" not in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "weights"]  # nothing was made


def test_the_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda place, mode: place != tmp_path)
    assert "NOT writable" in line(page(tmp_path)[0], "cache")


@pytest.mark.parametrize(
    ("capabilities", "said"),
    [
        ({}, "does not say"),
        ({"amx_bf16": False, "avx512_bf16": False}, "emulated, and slower"),
        ({"amx_bf16": True, "avx512_bf16": True}, "AVX512-BF16, AMX-BF16"),
    ],
)
def test_what_multiplies_bfloat16_is_named(capabilities: dict[str, bool], said: str) -> None:
    assert said in doctor._bf16_of_cpu(capabilities)


def test_a_broken_torch_or_an_unknown_device_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, code = page(tmp_path, device="abacus", probe=True)
    assert code == 2 and "unknown device 'abacus'" in line(text, "broken")
    assert line(text, "cache") and "Recommended" not in text

    def broken() -> None:
        raise UsageError("torch 1 and torchvision 2 do not fit together", mend="install both")

    monkeypatch.setattr(doctor, "check_torch", broken)
    text, code = page(tmp_path)
    assert code == 2 and "do not fit together; install both" in line(text, "broken")


def test_the_probe_says_what_pays_and_that_bf16_loses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[Kernels, ...]] = []

    def probe(backbone: Backbone, settings: tuple[Kernels, ...]) -> list[Probed]:
        assert backbone.kernels.is_reference
        tried.append(settings)
        return [
            Probed(Kernels(), 100.0, 0.0),
            Probed(Kernels(channels_last=True), 80.0, 1e-6),
            Probed(BF16, 450.0, 2e-3),
            Probed(Kernels(compiled=True), refusal="there is no C++ compiler"),
        ]

    monkeypatch.setattr(kernel_probe, "probe", probe)
    text, code = page(tmp_path, probe=True)
    assert code == 0
    assert line(text, "channels_last").split() == [
        "channels_last",
        "80.0",
        "0.80",
        "1.0e-06",
        "pays",
    ]
    assert "there is no C++ compiler" in line(text, "compiled  ")
    assert "bf16 loses here: 4.5 times as slow as float32." in text
    assert "Recommended: --kernels channels_last " in text
    assert tried == [doctor.PROBED] and "compiled: not tried" in text


def test_the_command_prints_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", "--no-probe", "--cache", str(tmp_path), "--weights-root", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith("versions")
