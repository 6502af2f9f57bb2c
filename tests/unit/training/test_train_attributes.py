"""The trainer of photo classifiers: two steps give what a run can load; killed ones go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.domains.dataset import DATASETS, DatasetCard, ImageBatch, Split
from casl_bench.domains.options import DataSource
from casl_bench.photos.scorers.classifier import PhotoClassifier, build_network
from casl_bench.training import trainer as train_common
from casl_bench.training.commands import TrainGroup
from casl_bench.training.train_attributes import calibrated, main, positive_weights

ATTRIBUTES = ("red", "bright", "never")
NAME = "classifier_timm_test_resnet_colours"


class LabelledColours:
    """Noise of a colour; `red` and `bright` are told by its mean, `never` has no image."""

    labelled = True

    def __init__(self, source: DataSource | None = None, resolution: int = 256) -> None:
        self.card = DatasetCard(
            "colours", "real", "r1", resolution, ATTRIBUTES, (), "noise", "none", "a test"
        )

    def load(self, split: Split, count: int) -> ImageBatch:
        draw = torch.Generator().manual_seed({"train": 1, "validation": 2, "test": 3}[split])
        side = self.card.resolution
        labels = torch.rand(count, 3, generator=draw) < torch.tensor([0.5, 0.5, 0.0])
        pixels = torch.rand(count, 3, side, side, generator=draw) * 0.4 - 0.6
        pixels += labels[:, 1, None, None, None] * 0.6
        pixels[:, 0] += labels[:, 0, None, None] * 0.5
        ids = tuple(f"{split}-{k}" for k in range(count))
        return ImageBatch(ids, pixels.clamp(-1, 1), labels if self.labelled else None)


@pytest.fixture(autouse=True)
def dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS._factories, "colours", LabelledColours)


def _train(out: Path, *options: str) -> Result:
    settings = {
        "--data-root": str(out.parent), "--dataset": "colours", "--out": str(out),
        "--architecture": "timm:test_resnet", "--images": "24", "--held-out": "20",
        "--steps": "2", "--batch-size": "8", "--image-size": "32",
    }  # fmt: skip
    settings |= dict(zip(options[::2], options[1::2], strict=True))
    words = [word for pair in settings.items() for word in pair]
    return CliRunner().invoke(main, words, catch_exceptions=True)


def _trained(out: Path, *options: str) -> Result:
    result = _train(out, *options)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def _refused(result: Result, kind: type[BenchError], match: str) -> None:
    assert isinstance(result.exception, kind), result.exception
    assert match in str(result.exception) and "\n" not in str(result.exception)


def test_two_steps_give_what_a_run_can_load(tmp_path: Path) -> None:
    out = tmp_path / "net"
    _trained(out, "--note", "a test")
    classifier = PhotoClassifier.load(out / f"{NAME}.safetensors", ("bright", "red"))
    images = LabelledColours(resolution=32).load("test", 5).pixels
    assert classifier.logits(images).shape == (5, 2)
    assert classifier.info.name == NAME
    # A run takes every weights file of the folder for a classifier, and the checkpoint is none.
    assert {p.suffix for p in out.iterdir()} == {".safetensors", ".json", ".md", ""}
    card = json.loads((out / f"{NAME}_card.json").read_text())
    assert set(card["measured"]["accuracy"]) == set(ATTRIBUTES)
    assert card["measured"]["not_calibrated"] == "never"
    assert card["training"]["steps"] == 2 and card["training"]["note"] == "a test"
    command = card["training"]["command"]
    assert command.startswith("casl-bench train attributes --data-root ")
    assert str(tmp_path) not in command and "--note" not in command
    assert "| accuracy |" in (out / f"{NAME}.md").read_text()


def test_it_learns_and_tells_the_time_left(tmp_path: Path) -> None:
    result = _trained(
        tmp_path / "net", "--steps", "50", "--learning-rate", "0.01", "--held-out", "60"
    )
    card = json.loads((tmp_path / "net" / f"{NAME}_card.json").read_text())
    assert card["measured"]["accuracy"]["red"] > 0.8
    assert card["measured"]["accuracy"]["bright"] > 0.8
    assert "step 25 of 50, about " in result.output


def test_killed_and_resumed_equals_unbroken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trained(tmp_path / "a", "--steps", "4")
    monkeypatch.setattr(train_common, "CHECKPOINT_SECONDS", -1.0)
    update, calls = train_common.TrainingRun.update, iter(range(9))

    def killed(self: train_common.TrainingRun, *loss: torch.Tensor, **terms: float) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        update(self, *loss, **terms)

    with monkeypatch.context() as patch:
        patch.setattr(train_common.TrainingRun, "update", killed)
        assert _train(tmp_path / "b", "--steps", "4").exit_code != 0
    assert "resuming at step 3" in _trained(tmp_path / "b", "--steps", "4").output
    a, b = (load_file(tmp_path / k / f"{NAME}.safetensors") for k in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)
    first, second = ((tmp_path / k / f"{NAME}.json").read_text() for k in "ab")
    assert first == second
    _refused(_train(tmp_path / "b", "--seed", "2"), UsageError, "another configuration")


def test_it_starts_from_local_weights(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        whole = build_network("timm:test_resnet", 1000).state_dict()
    path = tmp_path / "imagenet.safetensors"
    save_file(whole, path)
    _trained(tmp_path / "net", "--weights", str(path), "--learning-rate", "1e-9")
    state = load_file(tmp_path / "net" / f"{NAME}.safetensors")
    assert torch.allclose(state["conv1.0.weight"].float(), whole["conv1.0.weight"], atol=1e-3)
    assert state["fc.weight"].shape[0] == 3
    save_file({k: v for k, v in whole.items() if k != "fc.bias"}, path)
    _refused(
        _train(tmp_path / "other", "--weights", str(path)), InvalidBenchmarkError, "missing fc.bias"
    )


def test_what_cannot_be_trained_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net"
    _refused(_train(out, "--architecture", "timm:no_such"), UsageError, "no such architecture")
    _refused(_train(out, "--dataset", "colour"), UsageError, "did you mean 'colours'")
    _refused(_train(out, "--dataset", "rendered_faces"), UsageError, "is rendered")
    _refused(_train(out, "--epochs", "1"), UsageError, "either --steps or --epochs")
    _refused(_train(out, "--device", "abacus"), UsageError, "cannot train on 'abacus'")
    monkeypatch.setattr(LabelledColours, "labelled", False)
    _refused(_train(out), UsageError, "no labels")


def test_rare_attributes_weigh_more_within_bounds() -> None:
    labels = torch.zeros(100, 4, dtype=torch.bool)
    labels[:20, 0], labels[:50, 1], labels[:1, 2], labels[:, 3] = True, True, True, True
    assert positive_weights(labels).tolist() == pytest.approx([4, 1, 10, 0.1])


def test_calibration_finds_scale_and_threshold() -> None:
    draw = torch.Generator().manual_seed(0)
    raw = torch.randn(4000, 2, generator=draw)
    labels = torch.rand(4000, 2, generator=draw) < (2 * raw - 1).sigmoid()
    labels[:, 1] = True
    found, left = calibrated(raw, labels)
    assert found.scale == pytest.approx((2, 1), abs=0.2) and left == [1]
    assert found.bias == pytest.approx((-1, 0), abs=0.15)


def test_the_command_is_found() -> None:
    assert "attributes" in TrainGroup("train").list_commands(None)  # type: ignore[arg-type]
