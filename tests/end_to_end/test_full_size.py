"""Real photographs through full-size networks with random weights, as a user would run them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from casl_bench.cli.main import main
from casl_bench.domains.domain import Domain
from casl_bench.photos import published_weights
from casl_bench.photos.celeba_annotation import CELEBA_ATTRIBUTES
from casl_bench.photos.checkpoints.convert import read_config
from casl_bench.photos.checkpoints.formats import Architecture
from casl_bench.photos.photo_file import read_photo
from casl_bench.photos.published_weights import (
    ALEXNET_FILE,
    GUIDE_CLIP,
    SCORE_CLIP,
    VGGFACE2_FILE,
    ZERO_SHOT_CLIP,
    clip_place,
)
from casl_bench.runs import suites as config_module
from tests.support import real_files
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

pytest.importorskip("lpips", reason="the extra `real` is not installed")
pytest.importorskip("facenet_pytorch", reason="the extra `real` is not installed")

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
PHOTOS = {
    "celeba_hq": (GOLDEN / "photos" / "celeba_hq", "celeba_hq_256_ddpm"),
    "afhq_dog": (GOLDEN / "photos" / "afhq" / "dog", "afhq_dog_256_adm"),
}
TINY = tiny_suite(
    num_steps=2,
    timestep_power=1.0,
    train_images=2,
    validation_images=1,
    test_pool_images=1,
    test_images_per_concept=1,
    strengths=(1.0,),
    fit_image_steps=8,
    sae_steps=2,
    probe_train_images=2,
    probe_test_images=1,
)


@pytest.fixture(autouse=True)
def small_batches() -> Iterator[None]:
    """One image is scored at a time: the rest of a batch would be padding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config_module.SUITES, "tiny", TINY)
        for name in ("classifier.MICRO_BATCH", "similarity.MICRO_BATCH"):
            patch.setattr(f"casl_bench.photos.scorers.{name}", 1)
        patch.setattr("casl_bench.models.clip.MICRO_BATCH", 2)
        # Eighty sentences a prompt are minutes on a CPU, and one validation image is enough.
        patch.setattr("casl_bench.photos.published_clip.TEMPLATES", ("a photo of a {}.",))
        patch.setattr("casl_bench.runs.suites.VALIDATION_POOL", 1)
        patch.setattr("casl_bench.photos.domains.CALIBRATION_IMAGES", 4)
        # What a random network sees in the only image must not decide whether it is edited.
        patch.setattr(Domain, "presence", lambda self, batch: torch.zeros(
            len(batch), len(self.dataset.card.attributes), dtype=torch.bool))  # fmt: skip
        yield


def copy_photos(photos: Path, folder: Path, copies: int) -> None:
    """Each photograph under several names: the layouts' splits need more than there are."""
    folder.mkdir(parents=True)
    for copy in range(copies):
        for photo in sorted(photos.glob("*.jpg")):
            shutil.copy(photo, folder / f"{photo.stem}_{copy}.jpg")


def write_backbone(folder: Path, config_name: str) -> None:
    config = read_config(config_name)
    assert config.family and config.base_channels and config.multipliers and config.res_blocks
    levels = range(len(config.multipliers))
    attended = tuple(i for i in levels if config.image_size >> i in config.attention_resolutions)  # type: ignore[operator]
    form = Architecture(
        config.family, 3, 6 if config.learned_sigma else 3, config.base_channels,
        config.multipliers, config.res_blocks, attended,
    )  # fmt: skip
    unet = form.unet_config(config.image_size, config.head_channels)
    real_files.write_backbone(
        folder, unet, family=config.family, learned_sigma=bool(config.learned_sigma)
    )


def write_classifier(path: Path, photos: Path) -> None:
    """Of 40 attributes; the first photograph smiles and the others do not."""
    paths = sorted(photos.glob("*.jpg"))
    pixels = torch.stack([read_photo(photo, 32) for photo in paths])
    labels = torch.rand(len(paths), 40, generator=torch.Generator().manual_seed(0)) < 0.5
    labels[:, list(CELEBA_ATTRIBUTES).index("smiling")] = False
    labels[0] ^= True
    real_files.write_classifier(path, tuple(CELEBA_ATTRIBUTES), pixels, labels)


@pytest.mark.skipif(
    not os.environ.get("CASL_BENCH_FULL_SIZE"),
    reason="minutes a data set on two cores: set CASL_BENCH_FULL_SIZE=1",
)
@pytest.mark.parametrize(("dataset", "concept"), [("celeba_hq", "smiling"), ("afhq_dog", "happy")])
def test_photographs_through_full_size_networks(
    dataset: str, concept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One command: what has an address is fetched, everything else is where it belongs."""
    photos, config_name = PHOTOS[dataset]
    blocks = GOLDEN / "asyrp_checkpoints"
    if not photos.is_dir() or not blocks.is_dir():
        pytest.skip(f"{photos} or {blocks} is absent")
    data, weights = tmp_path / "data", tmp_path / "weights"
    if dataset == "celeba_hq":
        copy_photos(photos, data, 2)
        write_classifier(weights / "classifiers" / dataset / "linear.pt", photos)
        real_files.write_vggface2(weights / "faces" / VGGFACE2_FILE)
    else:
        copy_photos(photos, data / "train" / "dog", 2)
        copy_photos(photos, data / "val" / "dog", 1)
    write_backbone(weights / "backbones" / dataset, config_name)
    clips = [GUIDE_CLIP, SCORE_CLIP] + ([ZERO_SHOT_CLIP] if dataset == "afhq_dog" else [])
    for number, clip in enumerate(clips):
        path = weights / f"{clip_place(clip)}.safetensors"
        real_files.write_clip(path, clip.partition(":")[0], f"clip {number}")
    real_files.write_alexnet(weights / "lpips" / ALEXNET_FILE)
    table = real_files.publish(weights, tmp_path / "published")
    monkeypatch.setattr(published_weights, "WEIGHTS", table)
    out = tmp_path / "out"
    code = main(
        ["--datasets", dataset, "--methods", "casl,asyrp", "--concepts", concept, "--suite", "tiny",
         "--data-root", str(data), "--weights-root", str(weights), "--out", str(out),
         "--method-weights", f"asyrp={blocks}", "--allow-download"]
    )  # fmt: skip
    shutil.rmtree(weights)  # gigabytes that pytest would keep
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "(photographs, " in printed.out and "| asyrp" in printed.out
    records = [json.loads(line) for line in (out / "numbers.jsonl").read_text().splitlines()]
    done = [r for r in records if r["kind"] == "edit" and r["status"] == "done"]
    own = {"casl", "asyrp", "identity", "random_rotation", "random_direction", "destroy"}
    # Only a trained classifier has gradients to follow.
    assert {r["method"] for r in done} - {"pixel_attack"} == own
    shutil.rmtree(out)
