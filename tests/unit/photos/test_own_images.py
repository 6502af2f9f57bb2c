from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from casl_bench.conformance.check_dataset import dataset_checks
from casl_bench.core.errors import BenchError, UsageError
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.options import DataSource, DomainOptions
from casl_bench.photos.own_images import OwnImages, own_domain

CONCEPT = """[[concept]]
name = "hat"
source = "a head"
target = "a head with a hat"
attribute = "hat"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["image,hat,red"]
    rng = np.random.default_rng(0)
    for i in range(50):
        path = tmp_path / ("deep" if i % 2 else ".") / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 16, 3), dtype=np.uint8)).save(path)
        lines.append(f"{path.relative_to(tmp_path).as_posix()},{i % 2},{int(i % 3 == 0)}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "concepts.toml").write_text(CONCEPT, encoding="utf-8")
    return tmp_path


def test_a_folder_with_labels_is_a_data_set(folder: Path) -> None:
    dataset = OwnImages(DataSource(folder), 16)
    for rule, check in dataset_checks(dataset):
        check()
        assert rule
    assert dataset.card.attributes == ("hat", "red")
    assert [dataset.count(s) for s in ("train", "validation", "test")] == [40, 5, 5]  # type: ignore[arg-type]
    batch = dataset.load("train", 40)
    assert batch.attributes is not None
    odd = [name.startswith("deep/") for name in batch.image_ids]
    assert batch.attributes[:, 0].tolist() == odd


def test_splits_may_be_given(folder: Path) -> None:
    lines = (folder / "labels.csv").read_text("utf-8").splitlines()
    parts = ["train"] * 30 + ["val"] * 10 + ["test"] * 10
    rows = [f"{line},{part}" for line, part in zip(lines[1:], parts, strict=True)]
    (folder / "labels.csv").write_text("\n".join([f"{lines[0]},split", *rows]), encoding="utf-8")
    dataset = OwnImages(DataSource(folder), 16)
    assert [dataset.count(s) for s in ("train", "validation", "test")] == [30, 10, 10]  # type: ignore[arg-type]
    assert dataset.card.attributes == ("hat", "red")


def test_without_labels_the_concepts_are_the_attributes(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    dataset = OwnImages(DataSource(folder), 16)
    assert dataset.card.attributes == ("hat",) and dataset.load("test", 4).attributes is None


def test_other_labels_are_another_revision(folder: Path) -> None:
    before = OwnImages(DataSource(folder), 16).card.revision
    text = (folder / "labels.csv").read_text("utf-8")
    (folder / "labels.csv").write_text(text.replace("000.png,0", "000.png,1"), encoding="utf-8")
    assert OwnImages(DataSource(folder), 16).card.revision != before


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("labels.csv", "", "not a file of labels"),
        ("labels.csv", "image\n000.png\n", "no labels in the file"),
        ("labels.csv", "image,hat\n000.png,1\n000.png,1\n", "'000.png' is there twice"),
        ("labels.csv", "image,hat\n000.png,maybe\n", "'maybe' is no label of 'hat'"),
        ("labels.csv", "image,hat,split\n000.png,1,dev\n", "'dev' is no split"),
        ("labels.csv", "image,hat\n000.png,1\n", "pictures have no labels"),
        (
            "concepts.toml",
            CONCEPT.replace('attribute = "hat"', 'attribute = "hut"'),
            "did you mean",
        ),
    ],
)
def test_a_bad_file_is_one_clear_line(folder: Path, file: str, text: str, said: str) -> None:
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match=said) as error:
        OwnImages(DataSource(folder), 16)
    assert "\n" not in str(error.value) and file in str(error.value)


def test_it_is_known_by_name_and_asks_for_its_folder() -> None:
    assert DATASETS.create("own_images").card.concepts == ()
    with pytest.raises(UsageError, match="--data-root FOLDER"):
        own_domain()


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    options = DomainOptions(data_root=folder, weights_root=tmp_path / "none")
    with pytest.raises(UsageError, match="no backbone for own_images"):
        own_domain(options=options)
