"""Every scorer's training as its command runs it: a few steps, a card, and a model that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from casl_bench.core.files import read_json
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.clip import ClipModel
from casl_bench.models.embedder import RenderEmbedder
from casl_bench.models.factor_regressor import FactorRegressor
from casl_bench.training import trainer
from casl_bench.training.commands import TrainGroup

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("command", "load"),
    [
        ("classifier --architecture plain --batch-size 8", AttributeClassifier.load),
        ("classifier --architecture depthwise --batch-size 8", AttributeClassifier.load),
        ("embedder --pairs 4", RenderEmbedder.load),
        ("clip --role guide --pairs 4", ClipModel.load),
        ("clip --role score --pairs 4", ClipModel.load),
        ("factors --batch-size 8", FactorRegressor.load),
    ],
)
def test_a_few_steps_make_a_model(
    command: str,
    load: Callable[[Path], object],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, "HELD_OUT", 48)
    pools = tmp_path_factory.getbasetemp() / "pools"
    words = f"{command} --fp32 --steps 8 --images 48 --note hidden --cache {pools} --out"
    train: click.Group = TrainGroup("train")
    train.main([*words.split(), str(tmp_path / "made")], standalone_mode=False)
    load(tmp_path / "made")
    card = read_json(tmp_path / "made" / "card.json")
    assert card["training"]["steps"] == 8
    told = f"casl-bench train {command} --fp32 --steps 8 --images 48 --cache pools --out made"
    assert sorted(card["training"]["command"].split()) == sorted(told.split())
