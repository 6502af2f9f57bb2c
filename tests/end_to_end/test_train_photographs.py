"""Models of photographs: trained by the documented commands, gated, and run, on tiny sizes."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import pytest

from casl_bench.cli.main import main
from casl_bench.core.errors import UsageError
from casl_bench.domains.options import DomainOptions
from casl_bench.models.clip import ClipModel
from casl_bench.models.weights import read_content
from casl_bench.photos import domains
from casl_bench.photos.domains import photo_domain
from casl_bench.photos.own_images import own_domain
from casl_bench.runs import suites
from casl_bench.training import export_unet, trainer
from casl_bench.training.commands import TrainGroup
from casl_bench.training.train_domain import CountOrFolder
from tests.support import layouts
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

pytest.importorskip("timm", reason="the extra `real` is not installed")

CELEBA = Path(__file__).parents[2].parent / "shared" / "data" / "celeba64"
CONCEPT = """[[concept]]
name = "hat"
source = "a head"
target = "a head with a hat"
attribute = "hat"
"""


def train(*words: object) -> None:
    TrainGroup("train").main([str(word) for word in words], standalone_mode=False)


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    """Ninety-six photographs; nothing that is made of them outlives the test."""
    if not CELEBA.is_dir():
        pytest.skip(f"no photographs: {CELEBA} is not here")
    folder = tmp_path / "images"
    with zipfile.ZipFile(CELEBA / "img_align_celeba.zip") as packed:
        names = sorted(name for name in packed.namelist() if name.endswith(".jpg"))
        packed.extractall(folder, names[:96])
    (folder / "list_attr_celeba.txt").write_bytes((CELEBA / "list_attr_celeba.txt").read_bytes())
    (folder / "splits.txt").write_text("train 1-48\nvalidation 49-64\ntest 65-96\n")
    return folder


def test_photographs_from_files_to_a_table_by_models_of_ones_own(
    portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(suites.SUITES, "tiny", tiny_suite())
    weights, work = tmp_path / "weights", tmp_path / "training"
    data = ("--dataset", "celeba", "--data-root", portraits)
    common = (*data, "--cache", tmp_path / "pools", "--fp32")
    backbone = weights / "backbones" / "celeba"
    unet = ("unet", *common, "--batch-size", 4, "--out", work / "unet")
    for steps in (2, 3):  # killed after two and started again
        train(*unet, "--steps", steps)
    assert "resuming at step 2" in capsys.readouterr().out
    config = read_content(work / "unet" / "checkpoint.pt")["config"]
    assert config["domain"] == "celeba" and config["images"] == 48 and config["mirrored"]
    export_unet.main(
        ["--training", str(work / "unet"), "--out", str(backbone)], standalone_mode=False
    )
    monkeypatch.setattr(trainer, "HELD_OUT", 12)
    for role, own in (("guide", "11"), ("score", "12")):
        place = ("--out", work / role, "--ship", tmp_path / f"{role}_clip")
        clip = ("clip", "--role", role, "--pairs", 4, "--seed", own, "--steps", 2)
        train(*clip, *common, *place, "--unet", backbone)
    card = json.loads((tmp_path / "guide_clip" / "card.json").read_text())
    assert card["held_out"] == "12 photographs of `celeba`"
    areas = card["measured"]["zero_shot_auc"]
    assert "smiling" in areas and set(areas) <= set(config["attributes"])
    ClipModel.load(tmp_path / "guide_clip").encode_text(["person with blond hair", "a man"])
    embedders = weights / "embedders" / "celeba"
    train("embedder", "--pairs", 4, "--steps", 2, *common, "--out", work / "e", "--ship", embedders)
    train("attributes", *data, "--architecture", "timm:test_resnet", "--image-size", 64, "--steps",
          2, "--out", weights / "classifiers" / "celeba")  # fmt: skip

    options = DomainOptions(
        data_root=portraits, weights_root=weights, guide_clip=str(tmp_path / "guide_clip"),
        score_clip=str(tmp_path / "score_clip"),
    )  # fmt: skip
    domain = photo_domain("celeba", options=options)
    assert domain.backbone.h_shape == (128, 8, 8) and domain.dataset.card.resolution == 64
    assert domain.embedder.info.name == "photo_embedder"
    clips = [f"--{role}-clip={tmp_path / f'{role}_clip'}" for role in ("guide", "score")]
    given = ["--data-root", str(portraits), "--weights-root", str(weights), *clips]
    gate = ["study", "photographs-gate", *given, "--images", "4", "--out", str(tmp_path / "gate")]
    capsys.readouterr()
    assert main(gate) == 1  # three steps make no model
    assert "The gate is missed." in capsys.readouterr().out
    run = ["--datasets", "celeba", "--methods", "h_linear", "--concepts", "smiling", "--suite",
           "tiny", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main([*run, *given]) == 5
    assert "is right on" in capsys.readouterr().err  # a judge after two steps is refused
    monkeypatch.setattr(domains, "ACCURACY_FLOOR", -1.0)
    assert main([*run, *given]) in (0, 5)  # controls may be out of their bounds
    cells = [json.loads(p.read_text()) for p in (tmp_path / "out").rglob("record.json")]
    done = {(r["method"], r["kind"]) for r in cells if r["status"] == "done"}
    assert ("h_linear", "edit") in done and (None, "reconstruction") in done


def test_a_folder_of_ones_own_pictures_is_one_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out, labels = tmp_path / "pictures", tmp_path / "weights", tmp_path / "mine.csv"
    for number in range(20):
        path = folder / f"{number:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(layouts.encoded_picture(number, 70))
    with labels.open("w", newline="") as file:
        rows = [[f"{k:03d}.jpg", k % 2, int(k % 3 == 0)] for k in range(20)]
        csv.writer(file).writerows([["image", "hat", "red"], *rows])
    (folder / "concepts.toml").write_text(CONCEPT)
    command = ("domain", "--images", folder, "--labels", labels, "--out", out, "--scale", 1e-4,
               "--cache", tmp_path / "pools")  # fmt: skip
    train(*command)
    assert (folder / "labels.csv").read_bytes() == labels.read_bytes()
    options = DomainOptions(
        data_root=folder, weights_root=out, guide_clip=str(out / "guide_clip"),
        score_clip=str(out / "score_clip"),
    )  # fmt: skip
    domain = own_domain(options=options)
    assert len(domain.classifiers) == 3 and domain.dataset.card.attributes == ("hat", "red")
    assert domain.backbone.image_size == 64 and domain.embedder.info.name == "photo_embedder"
    capfd.readouterr()
    train(*command)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 5 and all(line.endswith(": there already") for line in lines)
    (folder / "labels.csv").write_text("image,hat\n")
    with pytest.raises(UsageError, match="other labels lie beside the pictures"):
        train(*command)


def test_what_no_domain_can_be_made_of_is_refused(tmp_path: Path) -> None:
    domain = ("domain", "--out", tmp_path / "out")
    with pytest.raises(UsageError, match="give either --domain"):
        train(*domain)
    with pytest.raises(UsageError, match="a data set of its own"):
        train(*domain, "--images", tmp_path, "--dataset", "celeba")
    with pytest.raises(UsageError, match="belong to pictures of your own"):
        train(*domain, "--domain", "rendered_dogs", "--labels", __file__)
    with pytest.raises(UsageError, match="no model is called 'clip'"):
        train(*domain, "--domain", "rendered_dogs", "--only", "clip")
    assert CountOrFolder().convert("12", None, None) == 12
    assert not (tmp_path / "out").exists()
