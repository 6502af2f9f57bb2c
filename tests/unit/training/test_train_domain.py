"""All models of a domain by their one command, from a U-Net that was trained by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from casl_bench.domains.rendered import CLASSIFIERS, rendered_domain
from casl_bench.domains.rendering.shipped import GATES
from casl_bench.training import export_unet, train_domain, trainer
from casl_bench.training.commands import TrainGroup

pytestmark = pytest.mark.slow

DOMAIN = "rendered_faces"
MOST_BYTES = 9 * 2**20
"""Of a domain's models, cards and curves."""
LEAST_GATES = ("--train", "16", "--held-out", "16", "--edited", "2", "--samples", "2")


def bytes_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model of a domain after two steps."""
    folder = tmp_path_factory.mktemp("domain")
    train: Any = TrainGroup("train")

    def run(*command: str) -> None:
        if command[0] == "casl_bench.training.export_unet":
            export_unet.main(list(command[1:]), standalone_mode=False)
            return
        few = {"gates": LEAST_GATES, "unet": ()}.get(command[2], ("--fp32",))
        train.main([*command[2:], *few], standalone_mode=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "HELD_OUT", 48)
        patch.setattr(train_domain, "_run", run)
        for name, (_, command) in train_domain.SCORERS.items():
            patch.setitem(train_domain.SCORERS, name, (1, command))
        pools, unet = str(folder / "pools"), str(folder / "unet")
        words = ("unet", "--domain", DOMAIN, "--steps", "2", "--batch-size", "2", "--images", "48",
                 "--fp32", "--cache", pools, "--out", unet)  # fmt: skip
        train.main([*words], standalone_mode=False)
        words = (
            "domain",
            "--domain",
            DOMAIN,
            "--unet",
            unet,
            "--images",
            "48",
            "--cache",
            pools,
            "--out",
            str(folder / "trainings"),
            "--assets",
            str(folder / "assets"),
        )
        train.main([*words], standalone_mode=False)
        before = {p: p.stat().st_mtime_ns for p in (folder / "assets").rglob("model.safetensors")}
        train.main([*words, "--only", "classifier_plain"], standalone_mode=False)
        assert before == {p: p.stat().st_mtime_ns for p in before}, "what is done is not done again"
    return folder / "assets"


def test_a_domain_opens_with_what_was_shipped(assets: Path) -> None:
    domain = rendered_domain(DOMAIN, assets=assets)
    assert tuple(c.info.name for c in domain.classifiers) == CLASSIFIERS
    assert domain.tuning_classifier is not None and domain.factors is not None
    figures = json.loads((assets / DOMAIN / "unet" / GATES).read_text("utf-8"))
    assert figures["unet"] == domain.backbone.weights_hash
    card = domain.dataset.card
    assert len(card.concepts) + len(card.not_carried) == 8
    assert len(card.not_carried) > 2, "two steps carry little"
    trained_on = json.loads((assets / DOMAIN / "guide_clip" / "card.json").read_text("utf-8"))
    assert trained_on["training"]["config"]["unet"] == domain.backbone.weights_hash


def test_a_domain_takes_at_most_9_mib(assets: Path) -> None:
    # A full training's curves, a line per 25 or 50 steps, come on top of these.
    curves = 60_000
    assert bytes_of(assets / DOMAIN) + curves <= MOST_BYTES
    assert not [p for p in assets.rglob("*") if p.suffix == ".png"], "no sample sheets"
