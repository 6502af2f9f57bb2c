"""Real data sets: every published layout, splits, order, bad files, and what is told of them."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from casl_bench.core.errors import BenchError, InputError, InvalidBenchmarkError, UsageError
from casl_bench.domains.dataset import DATASETS, Dataset, Split
from casl_bench.domains.options import DataSource
from casl_bench.photos import photo_dataset
from casl_bench.photos.celeba import Celeba
from casl_bench.photos.celeba_annotation import (
    CELEBA_ATTRIBUTES,
    PUBLISHED_NAMES,
    read_annotation,
)
from casl_bench.photos.celeba_hq import CelebaHq
from casl_bench.photos.photo_dataset import PhotoDataset
from casl_bench.photos.photo_file import read_photo
from casl_bench.photos.unlabelled import AfhqDog, LsunChurch
from tests.support import layouts

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
REAL: dict[str, Callable[..., PhotoDataset]] = {
    "celeba_hq": CelebaHq,
    "celeba": Celeba,
    "afhq_dog": AfhqDog,
    "lsun_church": LsunChurch,
}


def write_flat(folder: Path, images: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(images):
        (folder / f"photo_{i}.png").write_bytes(layouts.encoded_picture(i, 32, "png"))
    return folder


LAYOUTS: dict[str, tuple[str, Callable[..., Path], tuple[int, int, int]]] = {
    "CelebAMask-HQ": ("celeba_hq", layouts.write_celeba_hq, (32, 4, 4)),
    "StarGAN v2": ("celeba_hq", layouts.write_celeba_hq_folder, (72, 8, 80)),
    "CelebA": ("celeba", layouts.write_celeba, (32, 4, 4)),
    "AFHQ v1": ("afhq_dog", layouts.write_afhq, (36, 4, 40)),
    "AFHQ v2": ("afhq_dog", layouts.write_afhq_v2, (36, 4, 40)),
    "LSUN LMDB": ("lsun_church", layouts.write_lsun_lmdb, (36, 4, 40)),
    "exported LSUN": ("lsun_church", layouts.write_lsun_folder, (36, 4, 40)),
    "flat folder": ("celeba_hq", write_flat, (32, 4, 4)),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A layout's folder, written once; tests that change it copy it."""
    done: dict[str, Path] = {}

    def folder(layout: str) -> Path:
        if layout not in done:
            done[layout] = LAYOUTS[layout][1](tmp_path_factory.mktemp("data") / "set")
        return done[layout]

    return folder


def opened(name: str, root: Path, skip: bool = False, resolution: int = 16) -> PhotoDataset:
    source = DataSource(root=root, on_bad_image="skip" if skip else "error")
    return REAL[name](source, resolution)


def everything(dataset: PhotoDataset) -> dict[Split, tuple[str, ...]]:
    layout = dataset._layout
    assert layout is not None
    return {s: tuple(p.image_id for p in layout.splits[s].walk()) for s in SPLITS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_of_each_layout(layout: str, written: Callable[[str], Path]) -> None:
    name, _, sizes = LAYOUTS[layout]
    dataset = opened(name, written(layout))
    assert dataset.layout == layout
    ids = everything(dataset)
    assert tuple(len(ids[s]) for s in SPLITS) == sizes
    assert len({i for split in ids.values() for i in split}) == sum(sizes)
    batches = {split: dataset.load(split, 4) for split in SPLITS}
    for split, batch in batches.items():
        assert batch.image_ids == ids[split][:4]
        assert batch.pixels.shape == (4, 3, 16, 16)
        labelled = layout in ("CelebAMask-HQ", "CelebA")
        assert (batch.attributes is not None) == labelled
    assert len(torch.unique(torch.cat([b.pixels for b in batches.values()]), dim=0)) == 12
    assert dataset.bad_images == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_order_is_not_the_file_systems(
    layout: str, written: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = LAYOUTS[layout][0]
    before = opened(name, written(layout))
    copy = shutil.copytree(written(layout), tmp_path / "elsewhere")
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: Path) -> None:
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("casl_bench.photos.layouts.os.scandir", Reversed)
    after = opened(name, copy)
    assert everything(before) == everything(after)
    assert before.card == after.card


@pytest.mark.parametrize(
    ("layout", "below"),
    [
        ("CelebAMask-HQ", "CelebAMask-HQ"),
        ("StarGAN v2", "celeba_hq"),
        ("AFHQ v1", "afhq"),
        ("AFHQ v2", "afhq_v2"),
        ("AFHQ v2", "afhqv2"),
        ("LSUN LMDB", "lsun"),
    ],
)
def test_a_layout_may_lie_in_a_folder_of_its_published_name(
    layout: str, below: str, written: Callable[[str], Path], tmp_path: Path
) -> None:
    name = LAYOUTS[layout][0]
    shutil.copytree(written(layout), tmp_path / below)
    (tmp_path / "stray.jpg").write_bytes(b"not looked at")
    assert opened(name, tmp_path).card == opened(name, written(layout)).card


def test_labels_are_the_annotations(written: Callable[[str], Path]) -> None:
    root = written("CelebAMask-HQ")
    annotation = read_annotation(root / "CelebAMask-HQ-attribute-anno.txt")
    dataset = opened("celeba_hq", root)
    batch = dataset.load("test", 4)
    assert batch.image_ids == ("36.jpg", "37.jpg", "38.jpg", "39.jpg")
    assert batch.attributes is not None
    assert torch.equal(batch.attributes, annotation.labels[36:])
    assert dataset.card.attributes == tuple(CELEBA_ATTRIBUTES)
    assert torch.equal(batch.pixels[0], read_photo(root / "CelebA-HQ-img" / "36.jpg", 16))


def flat(root: Path) -> None:
    for path in (root / "CelebA-HQ-img").iterdir():
        path.rename(root / path.name)
    (root / "CelebA-HQ-img").rmdir()


AS_LABS_HAVE_THEM: dict[str, Callable[[Path], object]] = {
    "png": lambda root: renamed(root / "CelebA-HQ-img", lambda p: f"{p.stem}.png"),
    "JPG": lambda root: renamed(root / "CelebA-HQ-img", lambda p: f"{p.stem}.JPG"),
    "zeros before": lambda root: renamed(root / "CelebA-HQ-img", lambda p: f"{p.stem:0>5}.jpg"),
    "zeros and png": lambda root: renamed(root / "CelebA-HQ-img", lambda p: f"{p.stem:0>6}.png"),
    "celeba_hq_256": lambda root: (root / "CelebA-HQ-img").rename(root / "celeba_hq_256"),
    "data256x256": lambda root: (root / "CelebA-HQ-img").rename(root / "data256x256"),
    "beside the annotation": flat,
}


@pytest.mark.parametrize("form", AS_LABS_HAVE_THEM)
def test_portraits_as_labs_have_them_are_the_same_images_and_labels(
    form: str, tmp_path: Path
) -> None:
    root = layouts.write_celeba_hq(tmp_path / "set", size=32)
    published = {s: opened("celeba_hq", root).load(s, 4) for s in SPLITS}
    AS_LABS_HAVE_THEM[form](root)
    for split, batch in published.items():
        found = opened("celeba_hq", root).load(split, 4)
        assert found.image_ids == batch.image_ids and torch.equal(found.pixels, batch.pixels)
        assert found.attributes is not None and batch.attributes is not None
        assert torch.equal(found.attributes, batch.attributes)


def test_a_part_of_the_portraits_stays_in_its_splits_and_a_small_one_is_cut_anew(
    tmp_path: Path,
) -> None:
    root = layouts.write_celeba_hq(tmp_path / "set", size=32)
    for number in (*range(1, 20), 33, 37):
        (root / "CelebA-HQ-img" / f"{number}.jpg").unlink()
    ids = everything(opened("celeba_hq", root))
    assert ids["train"] == ("0.jpg", *(f"{i}.jpg" for i in range(20, 32)))
    assert (ids["validation"], ids["test"]) == (
        ("32.jpg", "34.jpg", "35.jpg"),
        ("36.jpg", "38.jpg", "39.jpg"),
    )
    for number in range(30, 40):  # none of the published validation and test images is left
        (root / "CelebA-HQ-img" / f"{number}.jpg").unlink(missing_ok=True)
    dataset = opened("celeba_hq", root)
    assert counts(dataset) == (8, 1, 2)
    batch = dataset.load("test", 2)
    assert batch.image_ids == ("28.jpg", "29.jpg") and batch.attributes is not None
    labels = read_annotation(root / "CelebAMask-HQ-attribute-anno.txt").labels
    assert torch.equal(batch.attributes, labels[28:30])


CELEBA: dict[str, tuple[Callable[[Path], object], tuple[int, int, int]]] = {
    "as published": (lambda root: None, (32, 4, 4)),
    "no count": (
        lambda root: (root / "list_attr_celeba.txt").write_text(
            (root / "list_attr_celeba.txt").read_text().partition("\n")[2]
        ),
        (32, 4, 4),
    ),
    "the release's folders": (
        lambda root: (
            [(root / name).mkdir() for name in ("Anno", "Eval", "Img")],
            (root / "list_attr_celeba.txt").rename(root / "Anno" / "list_attr_celeba.txt"),
            (root / "list_eval_partition.txt").rename(root / "Eval" / "list_eval_partition.txt"),
            (root / "img_align_celeba").rename(root / "Img" / "img_align_celeba"),
        ),
        (32, 4, 4),
    ),
    "a folder in a folder": (lambda root: deeper(root / "img_align_celeba"), (32, 4, 4)),
    "png": (
        lambda root: (
            renamed(root / "img_align_celeba", lambda p: f"{p.stem}.png"),
            (root / "img_align_celeba").rename(root / "img_align_celeba_png"),
        ),
        (32, 4, 4),
    ),
    "ranges": (
        lambda root: (root / "splits.txt").write_text("train 1-5\nvalidation 6-7\ntest 31-40\n"),
        (5, 2, 10),
    ),
    # Of the official partition's ranges all of these train: they are cut in three.
    "no partition": (lambda root: (root / "list_eval_partition.txt").unlink(), (32, 4, 4)),
    "a partition with commas": (
        lambda root: (
            (root / "list_eval_partition.csv").write_text(
                "image_id,partition\n"
                + (root / "list_eval_partition.txt").read_text().replace(" ", ",")
            ),
            (root / "list_eval_partition.txt").unlink(),
        ),
        (32, 4, 4),
    ),
}


@pytest.mark.parametrize("form", CELEBA)
def test_original_celeba_as_labs_have_it(form: str, tmp_path: Path) -> None:
    change, sizes = CELEBA[form]
    root = layouts.write_celeba(tmp_path / "set")
    annotation = read_annotation(root / "list_attr_celeba.txt")
    change(root)
    dataset = opened("celeba", root)
    assert counts(dataset) == sizes
    batch = dataset.load("test", sizes[2])
    assert batch.image_ids[-1] == "000040.jpg" and batch.attributes is not None
    assert torch.equal(batch.attributes, annotation.of(batch.image_ids))


def test_the_face_of_a_celeba_portrait_is_cut_out(tmp_path: Path) -> None:
    for size, box in (((178, 218), (8, 40, 168, 200)), ((89, 109), (4, 20, 84, 100))):
        root = layouts.write_celeba(tmp_path / str(size[0]), images=10, size=size)
        picture = Image.open(root / "img_align_celeba" / "000001.jpg")
        seen = picture.resize((64, 64), Image.Resampling.BICUBIC, box=box)
        expected = torch.frombuffer(bytearray(seen.tobytes()), dtype=torch.uint8)
        pixels = opened("celeba", root, resolution=64).load("train", 1).pixels[0]
        assert torch.equal(pixels, expected.reshape(64, 64, 3).permute(2, 0, 1) / 127.5 - 1)


def test_the_thirty_thousand_are_cut_where_the_documentation_says(
    golden_path: Callable[[str], Path], tmp_path: Path
) -> None:
    annotation = golden_path("annotations/CelebAMask-HQ-attribute-anno.txt")
    shutil.copy(annotation, tmp_path)
    (tmp_path / "CelebA-HQ-img").mkdir()
    for i in range(30_000):
        (tmp_path / "CelebA-HQ-img" / f"{i}.jpg").touch()
    start = time.perf_counter()
    dataset = opened("celeba_hq", tmp_path)
    assert time.perf_counter() - start < 20  # about a second: no image is opened
    ids = everything(dataset)
    assert (ids["train"][0], ids["train"][-1]) == ("0.jpg", "23999.jpg")
    assert (ids["validation"][0], ids["validation"][-1]) == ("24000.jpg", "26999.jpg")
    assert (ids["test"][0], ids["test"][-1]) == ("27000.jpg", "29999.jpg")


def test_real_photographs_in_a_flat_folder(golden_path: Callable[[str], Path]) -> None:
    faces = opened("celeba_hq", golden_path("photos/celeba_hq"), resolution=64)
    dogs = opened("afhq_dog", golden_path("photos/afhq/dog"), resolution=64)
    for dataset in (faces, dogs):
        assert dataset.load("train", 4).pixels.std() > 0.2


def test_first_images_are_of_both_genders(written: Callable[[str], Path]) -> None:
    ids = everything(opened("celeba_hq", written("StarGAN v2")))
    assert 5 <= sum("female" in i for i in ids["train"][:20]) <= 15
    assert 5 <= sum("female" in i for i in ids["test"][:20]) <= 15


def test_other_animals_are_left_out(written: Callable[[str], Path]) -> None:
    ids = everything(opened("afhq_dog", written("AFHQ v1")))
    assert all("/dog/" in i for split in ids.values() for i in split)


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "flat")
    before = everything(opened("celeba_hq", root))
    for name in ("._photo_1.png", ".DS_Store", "readme.txt", "photo_1.json"):
        (root / name).write_bytes(b"x")
    (root / "more").mkdir()
    (root / "more" / "photo_99.png").write_bytes(b"x")
    assert everything(opened("celeba_hq", root)) == before


# What its card says.


@pytest.mark.parametrize("name", REAL)
def test_the_card_needs_no_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = DATASETS.create(name)
    assert isinstance(dataset, Dataset) and DATASETS.factory(name) is REAL[name]
    card = dataset.card
    assert (card.name, card.domain_kind, card.revision, card.resolution) == (
        name,
        "real",
        "absent",
        256,
    )
    assert card.concepts and {c.attribute for c in card.concepts} <= set(card.attributes)
    assert DATASETS.create(name, DataSource()).card == card
    with pytest.raises(UsageError, match=r"--data-root.*CASL_BENCH_DATA"):
        dataset.load("test", 1)


def test_revision_follows_files_labels_and_resolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = layouts.write_celeba_hq(tmp_path / "set")
    revisions = [opened("celeba_hq", root).card.revision]

    def changed() -> None:
        revision = opened("celeba_hq", root).card.revision
        assert revision not in revisions
        revisions.append(revision)

    image = root / "CelebA-HQ-img" / "3.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    changed()
    image.unlink()
    changed()
    annotation = root / "CelebAMask-HQ-attribute-anno.txt"
    lines = annotation.read_text().splitlines()
    lines[5] = lines[5].replace(" 1", " -1", 1)
    annotation.write_text("\n".join(lines) + "\n")
    changed()
    monkeypatch.setattr(photo_dataset, "PREPROCESSING", 99)
    changed()
    assert opened("celeba_hq", root, resolution=32).card.revision not in revisions
    assert opened("celeba_hq", root).card.revision == revisions[-1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_content_of_the_same_name_size_and_date_is_another_revision(
    layout: str, written: Callable[[str], Path], tmp_path: Path
) -> None:
    name, root = LAYOUTS[layout][0], tmp_path / "set"
    shutil.copytree(written(layout), root)
    revision = opened(name, root).card.revision
    assert revision == opened(name, written(layout)).card.revision  # wherever it lies
    files = [p for p in root.rglob("*") if p.is_file() and p.suffix != ".txt"]
    image = max(files, key=lambda path: path.stat().st_size)
    before, data = image.stat(), image.read_bytes()
    image.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert opened(name, root).card.revision != revision


def test_files_are_read_once_for_their_revision(
    written: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = written("flat folder")
    with monkeypatch.context() as patch:
        patch.setattr("casl_bench.photos.layouts._SOON_READ", 1)
        assert opened("celeba_hq", root)
    assert capsys.readouterr().err == "reading 0.0 GB of images once, so that a change is seen\n"
    revision = opened("celeba_hq", root).card.revision
    with monkeypatch.context() as patch:  # a cache that cannot be written is none
        patch.setenv("CASL_BENCH_CACHE", str(Path(__file__) / "no" / "folder"))
        assert opened("celeba_hq", root).card.revision == revision

    def refuse(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr("casl_bench.photos.layouts.hash_file", refuse)
    assert opened("celeba_hq", root).card.revision == revision
    assert not capsys.readouterr().err


# What cannot be asked for.


def test_more_than_there_are(written: Callable[[str], Path]) -> None:
    dataset = opened("afhq_dog", written("AFHQ v1"))
    with pytest.raises(InputError, match="afhq_dog has 40 test images, not 41"):
        dataset.load("test", 41)
    with pytest.raises(InputError, match="-1 images"):
        dataset.load("test", -1)
    with pytest.raises(UsageError, match="did you mean 'validation'"):
        dataset.load("valid", 1)  # type: ignore[arg-type]
    assert dataset.load("test", 0).pixels.shape == (0, 3, 16, 16)
    assert (dataset.count("test"), AfhqDog().count("test")) == (40, 0)
    with pytest.raises(InputError, match="resolution of 4"):
        opened("afhq_dog", written("AFHQ v1"), resolution=4)


# Layouts with a part missing or damaged.


def lsun_with(change: Callable[[Path], object]) -> Callable[[Path], tuple[str, Path]]:
    def make(folder: Path) -> tuple[str, Path]:
        change(layouts.write_lsun_lmdb(folder / "set", images=12, size=32))
        return "lsun_church", folder / "set"

    return make


def celeba_with(change: Callable[[Path], object]) -> Callable[[Path], tuple[str, Path]]:
    def make(folder: Path) -> tuple[str, Path]:
        change(layouts.write_celeba_hq(folder / "set", images=12, size=32))
        return "celeba_hq", folder / "set"

    return make


def celeba_small_with(change: Callable[[Path], object]) -> Callable[[Path], tuple[str, Path]]:
    def make(folder: Path) -> tuple[str, Path]:
        change(layouts.write_celeba(folder / "set", images=12))
        return "celeba", folder / "set"

    return make


def one_based(path: Path) -> str:
    return f"{int(path.stem) + 1:05d}.png"


def keep(root: Path, last: int) -> None:
    for path in (root / "CelebA-HQ-img").iterdir():
        if int(path.stem) > last:
            path.unlink()


def afhq_with(change: Callable[[Path], object]) -> Callable[[Path], tuple[str, Path]]:
    def make(folder: Path) -> tuple[str, Path]:
        change(layouts.write_afhq(folder / "set", images=12, size=32))
        return "afhq_dog", folder / "set"

    return make


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def empty_database(folder: Path) -> None:
    import lmdb

    emptied(folder)
    lmdb.open(str(folder)).close()


def renamed(folder: Path, name: Callable[[Path], str]) -> None:
    for path in list(folder.iterdir()):
        path.rename(folder / f"new-{name(path)}")
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.removeprefix("new-"))


def deeper(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    folder.with_name("moved").rename(folder / folder.name)


TRAIN_DB = "church_outdoor_train_lmdb"
BROKEN: dict[str, tuple[Callable[[Path], tuple[str, Path]], str]] = {
    "no folder": (lambda f: ("celeba_hq", f / "none"), "no such folder"),
    "a file": (lambda f: ("celeba_hq", Path(__file__)), "not a folder"),
    "an empty folder (faces)": (lambda f: ("celeba_hq", f), "no layout of celeba_hq"),
    "an empty folder (dogs)": (lambda f: ("afhq_dog", f), "no layout of afhq_dog"),
    "an empty folder (churches)": (lambda f: ("lsun_church", f), "no layout of lsun_church"),
    "dogs for faces": (
        lambda f: ("celeba_hq", layouts.write_afhq(f / "set", 4)),
        "no layout of celeba_hq",
    ),
    "faces without annotation": (
        celeba_with(lambda root: (root / "CelebAMask-HQ-attribute-anno.txt").unlink()),
        "no annotation",
    ),
    "annotation without faces": (
        celeba_with(lambda root: shutil.rmtree(root / "CelebA-HQ-img")),
        "no folder of images",
    ),
    "annotation and no face": (
        celeba_with(lambda root: emptied(root / "CelebA-HQ-img")),
        "holds no image",
    ),
    "a face that is not annotated": (
        celeba_with(lambda root: (root / "CelebA-HQ-img" / "77.jpg").touch()),
        "1 image is not in the annotation",
    ),
    "faces counted from 1": (
        celeba_with(lambda root: renamed(root / "CelebA-HQ-img", one_based)),
        "images are numbered 1 to 12, those of the annotation from 0.*subtract 1 from each name",
    ),
    "a part of the faces counted from 1": (
        celeba_with(lambda root: (renamed(root / "CelebA-HQ-img", one_based), keep(root, 6))),
        "images are numbered 1 to 6, those of the annotation from 0",
    ),
    "a face twice": (
        celeba_with(lambda root: (root / "CelebA-HQ-img" / "7.JPG").touch()),
        r"7\.JPG and 7\.jpg are both image 7\.jpg of the annotation.*keep one",
    ),
    "no portraits of CelebA": (
        celeba_small_with(lambda root: shutil.rmtree(root / "img_align_celeba")),
        "no images.*unpack them to img_align_celeba/",
    ),
    "portraits of CelebA in their archive": (
        celeba_small_with(
            lambda root: (
                shutil.rmtree(root / "img_align_celeba"),
                (root / "img_align_celeba.zip").touch(),
            )
        ),
        "still packed",
    ),
    "portraits of CelebA without annotation": (
        celeba_small_with(lambda root: (root / "list_attr_celeba.txt").unlink()),
        "no layout of celeba.*img_align_celeba/ beside list_attr_celeba.txt",
    ),
    "a partition of other things": (
        celeba_small_with(lambda root: (root / "list_eval_partition.txt").write_text("a b c")),
        r"file name, 0, 1 or 2 .*list_eval_partition\.txt, line 1",
    ),
    "an image of two ranges": (
        celeba_small_with(
            lambda root: (root / "splits.txt").write_text("train 1-9\nvalidation 9-10\ntest 11-12")
        ),
        "overlaps that of train, 1-9.*splits.txt, line 2",
    ),
    "a range of nothing": (
        celeba_small_with(lambda root: (root / "splits.txt").write_text("train 9-1")),
        "no range of images.*splits.txt, line 1",
    ),
    "a split without a range": (
        celeba_small_with(lambda root: (root / "splits.txt").write_text("train 1-5\ntest 6-7\n")),
        "no range of validation",
    ),
    "a chosen split without images": (
        celeba_small_with(
            lambda root: (root / "splits.txt").write_text(
                "train 1-5\nvalidation 6-12\ntest 13-20\n"
            )
        ),
        "no image of the split test",
    ),
    "faces one folder too deep": (
        celeba_with(lambda root: deeper(root / "CelebA-HQ-img")),
        "holds no image.*move them up from .*CelebA-HQ-img/CelebA-HQ-img",
    ),
    "annotation cut": (
        celeba_with(lambda root: cut(root / "CelebAMask-HQ-attribute-anno.txt")),
        "line",
    ),
    "no val": (afhq_with(lambda root: shutil.rmtree(root / "val")), "no such folder"),
    "no dog": (afhq_with(lambda root: shutil.rmtree(root / "train" / "dog")), "no layout"),
    "an empty val": (afhq_with(lambda root: emptied(root / "val" / "dog")), "holds no image"),
    "both versions": (
        afhq_with(lambda root: shutil.copytree(root / "val", root / "test")),
        "two versions are mixed",
    ),
    "no training database": (
        lsun_with(lambda root: shutil.rmtree(root / TRAIN_DB)),
        "no database",
    ),
    "a folder without its database": (
        lsun_with(lambda root: (root / TRAIN_DB / "data.mdb").unlink()),
        "no database",
    ),
    "a database of text": (
        lsun_with(lambda root: (root / TRAIN_DB / "data.mdb").write_text("x" * 20000)),
        "not an LMDB database",
    ),
    "an empty file for a database": (
        lsun_with(lambda root: (root / TRAIN_DB / "data.mdb").write_bytes(b"")),
        "cut short: 0 bytes",
    ),
    "a database cut in half": (
        lsun_with(lambda root: cut(root / TRAIN_DB / "data.mdb")),
        "cut short",
    ),
    "a database of nothing": (
        lsun_with(lambda root: empty_database(root / TRAIN_DB)),
        "the database is empty",
    ),
    "a packed database": (
        lambda f: ("lsun_church", [f, (f / f"{TRAIN_DB}.zip").touch()][0]),  # type: ignore[return-value]
        "still packed",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_layout_is_one_line(name: str, tmp_path: Path) -> None:
    make, message = BROKEN[name]
    dataset, root = make(tmp_path)
    with pytest.raises(BenchError, match=message) as raised:
        opened(dataset, root)
    text = str(raised.value)
    assert str(root) in text and "\n" not in text and len(text) < 400


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("casl_bench.photos.layouts.os.scandir", refuse)
    with pytest.raises(UsageError, match="cannot list the folder: Permission denied"):
        opened("celeba_hq", tmp_path)


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    write_flat(tmp_path, 3)
    try:
        (tmp_path / os.fsdecode(b"\xff.png")).touch()
    except OSError:
        pytest.skip("this file system refuses such names")
    with pytest.raises(UsageError, match="no UTF-8"):
        opened("celeba_hq", tmp_path)


@pytest.mark.parametrize("package", ["lmdb", "datasets"])
def test_a_package_that_is_not_installed(
    package: str, written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = written("LSUN LMDB")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"needs the package .*casl-bench\[real\]"):
        if package == "lmdb":
            opened("lsun_church", root)
        else:
            LsunChurch(DataSource(hub_id=str(root)))


# Bad images.

BAD: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("404 not found"),
    "a broken link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "too small": lambda path: path.write_bytes(layouts.encoded_picture(1, 4)),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_image_stops_or_is_left_out(fault: str, tmp_path: Path) -> None:
    root = layouts.write_celeba_hq(tmp_path / "set", size=32)
    bad = root / "CelebA-HQ-img" / "1.jpg"
    BAD[fault](bad)
    strict = opened("celeba_hq", root)
    assert strict.load("train", 1).image_ids == ("0.jpg",)
    with pytest.raises(InvalidBenchmarkError, match="--on-bad-image skip") as raised:
        strict.load("train", 2)
    assert str(bad) in str(raised.value) and strict.bad_images == ()

    lenient = opened("celeba_hq", root, skip=True)
    batch = lenient.load("train", 3)
    assert batch.image_ids == ("0.jpg", "2.jpg", "3.jpg")
    ((path, reason),) = [(b.path, b.reason) for b in lenient.bad_images]
    assert path == str(bad) and reason and "\n" not in reason
    assert batch.attributes is not None
    labels = read_annotation(root / "CelebAMask-HQ-attribute-anno.txt").labels
    assert torch.equal(batch.attributes, labels[[0, 2, 3]])
    assert lenient.load("train", 2).image_ids == batch.image_ids[:2]
    assert len(lenient.bad_images) == 1
    assert lenient.card.revision == strict.card.revision


def test_left_out_images_are_told_when_too_few_remain(tmp_path: Path) -> None:
    root = layouts.write_celeba_hq(tmp_path / "set", size=32)
    for number in (38, 36):
        cut(root / "CelebA-HQ-img" / f"{number}.jpg")
    dataset = opened("celeba_hq", root, skip=True)
    with pytest.raises(InputError, match=r"2 usable test images, not 3 \(2 left out\)"):
        dataset.load("test", 3)
    assert [Path(b.path).name for b in dataset.bad_images] == ["36.jpg", "38.jpg"]
    assert dataset.load("test", 2).image_ids == ("37.jpg", "39.jpg")


def test_a_bad_value_of_a_database_names_its_key(tmp_path: Path) -> None:
    import lmdb

    root = layouts.write_lsun_lmdb(tmp_path / "set", size=32)
    with lmdb.open(str(root / TRAIN_DB)) as database, database.begin(write=True) as transaction:
        transaction.put(b"00-bad", b"no image")
        transaction.put(b"00-empty", b"")
    with pytest.raises(InvalidBenchmarkError, match="key 00-"):
        opened("lsun_church", root).load("train", 3)
    dataset = opened("lsun_church", root, skip=True)
    assert len(dataset.load("train", 3)) == 3
    assert len(dataset.bad_images) == 2


def test_a_database_can_be_read_by_two_data_sets_and_again(
    written: Callable[[str], Path],
) -> None:
    root = written("LSUN LMDB")
    one, other = opened("lsun_church", root), opened("lsun_church", root)
    for split in SPLITS:
        assert torch.equal(one.load(split, 3).pixels, other.load(split, 3).pixels)
    with pytest.raises(InputError):
        one.load("test", 99)
    keys = everything(one)
    assert list(keys["train"] + keys["validation"]) == sorted(keys["train"] + keys["validation"])


# Through the package `datasets`.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for tables; the library's cache is in it, too."""
    datasets = pytest.importorskip("datasets", reason="comes with the extra 'test'")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tables").mkdir()
    return tmp_path / "tables"


def table(start: int, count: int, **columns: object) -> object:
    import datasets

    features = datasets.Features({"image": datasets.Image()})
    images = [
        {"bytes": layouts.encoded_picture(i, 32, "png"), "path": None}
        for i in range(start, start + count)
    ]
    made = datasets.Dataset.from_dict({"image": images}, features=features)
    for name, (values, kind) in columns.items():  # type: ignore[misc]
        made = made.add_column(name, values).cast_column(name, kind)
    return made


def hub_set(name: str, path: Path, skip: bool = False) -> PhotoDataset:
    policy = "skip" if skip else "error"
    return REAL[name](DataSource(hub_id=str(path), on_bad_image=policy), 16)


def counts(dataset: PhotoDataset) -> tuple[int, ...]:
    return tuple(len(ids) for ids in everything(dataset).values())


def test_a_parquet_file_is_cut_in_three(hub: Path) -> None:
    table(0, 20).to_parquet(hub / "a.parquet")  # type: ignore[attr-defined]
    dataset = hub_set("celeba_hq", hub / "a.parquet")
    assert counts(dataset) == (16, 2, 2)
    batch = dataset.load("train", 3)
    row = int(batch.image_ids[0].partition("/")[2])
    expected = Image.open(io.BytesIO(layouts.encoded_picture(row, 32, "png"))).resize(
        (16, 16), Image.Resampling.BICUBIC
    )
    assert torch.equal(
        batch.pixels[0], torch.frombuffer(bytearray(expected.tobytes()), dtype=torch.uint8)
        .reshape(16, 16, 3).permute(2, 0, 1) / 127.5 - 1
    )  # fmt: skip
    assert batch.attributes is None and dataset.layout == "datasets"
    again = hub_set("celeba_hq", hub / "a.parquet")
    assert again.card == dataset.card and everything(again) == everything(dataset)


def test_published_splits_are_kept(hub: Path) -> None:
    import datasets

    for names, expected in (
        (("train", "validation", "test"), (20, 6, 6)),
        (("train", "test"), (18, 2, 6)),
        (("train", "validation"), (18, 2, 6)),
        (("train", "val"), (18, 2, 6)),
        (("data",), (16, 2, 2)),
    ):
        sizes = (20, 6, 6)
        tables = {n: table(100 * i, s) for i, (n, s) in enumerate(zip(names, sizes, strict=False))}
        path = hub / "-".join(names)
        datasets.DatasetDict(tables).save_to_disk(str(path))
        dataset = hub_set("lsun_church", path)
        assert counts(dataset) == expected, names
        ids = everything(dataset)
        assert len({i for split in ids.values() for i in split}) == sum(expected)
        assert len(dataset.load("test", 2)) == 2


def test_other_images_of_a_table_are_another_revision(hub: Path) -> None:
    for start in (0, 1):
        table(start, 20).save_to_disk(str(hub / f"from{start}"))  # type: ignore[attr-defined]
    table(0, 20).to_parquet(hub / "a.parquet")  # type: ignore[attr-defined]
    one, two, packed = (
        hub_set("celeba_hq", hub / name).card.revision for name in ("from0", "from1", "a.parquet")
    )
    assert one == packed != two


def test_a_folder_of_images_is_a_local_data_set(hub: Path) -> None:
    layouts.write_celeba_hq_folder(hub / "faces", images=5, size=32)
    assert sum(counts(hub_set("celeba_hq", hub / "faces"))) == 20


@pytest.mark.parametrize("kind", ["bool", "0 and 1", "-1 and 1"])
@pytest.mark.parametrize("name", ["celeba_hq", "celeba"])
def test_columns_of_attributes_are_labels(hub: Path, name: str, kind: str) -> None:
    import datasets

    signs = np.random.default_rng(0).choice([False, True], (20, 40))
    values = {"bool": signs, "0 and 1": signs.astype(int), "-1 and 1": 2 * signs.astype(int) - 1}[
        kind
    ]
    feature = datasets.Value("bool" if kind == "bool" else "int64")
    columns = {c: (values[:, i].tolist(), feature) for i, c in enumerate(PUBLISHED_NAMES)}
    columns["Smiling".lower()] = columns.pop("Smiling")  # in whatever order and case
    table(0, 20, **columns).to_parquet(hub / "a.parquet")  # type: ignore[attr-defined]
    dataset = hub_set(name, hub / "a.parquet")
    batch = dataset.load("train", 16)
    rows = [int(i.partition("/")[2]) for i in batch.image_ids]
    beard = list(CELEBA_ATTRIBUTES).index("beard")
    expected = torch.from_numpy(signs[rows].copy())
    expected[:, beard] ^= True
    assert batch.attributes is not None and torch.equal(batch.attributes, expected)
    table(0, 20).to_parquet(hub / "b.parquet")  # type: ignore[attr-defined]
    without = hub_set(name, hub / "b.parquet")
    assert without.load("train", 1).attributes is None
    assert without.card.revision != dataset.card.revision


@pytest.mark.parametrize(
    ("left_out", "values", "message"),
    [
        (1, (0, 1), "39 of 40 attributes have a column, Young has none"),
        (39, (0, 1), "1 of 40 attributes have a column, Arched_Eyebrows, .* and 36 more have none"),
        (0, (0, 2), r"neither true or false.*column 5_o_Clock_Shadow"),
        (0, (-1, 0), "neither true or false, 0 or 1, nor -1 or 1"),
    ],
)
def test_columns_that_are_no_annotation_are_one_line(
    hub: Path, left_out: int, values: tuple[int, int], message: str
) -> None:
    import datasets

    names = PUBLISHED_NAMES[: 40 - left_out]
    kind = datasets.Value("int64")
    columns = {c: ([values[i % 2] for i in range(10)], kind) for c in names}
    table(0, 10, **columns).to_parquet(hub / "a.parquet")  # type: ignore[attr-defined]
    with pytest.raises(UsageError) as raised:
        hub_set("celeba_hq", hub / "a.parquet")
    text = str(raised.value)
    assert re.search(message, text), text
    assert "\n" not in text and len(text) < 400
    table(0, 10, **columns).to_parquet(hub / "a.parquet")  # type: ignore[attr-defined]
    assert hub_set("lsun_church", hub / "a.parquet").load("train", 1).attributes is None


def test_only_dogs_of_a_mixed_data_set(hub: Path) -> None:
    import datasets

    kind = datasets.ClassLabel(names=["cat", "dog", "wild"])
    table(0, 30, label=([i % 3 for i in range(30)], kind)).save_to_disk(  # type: ignore[attr-defined]
        str(hub / "animals")
    )
    dataset = hub_set("afhq_dog", hub / "animals")
    rows = [int(i.partition("/")[2]) for ids in everything(dataset).values() for i in ids]
    assert sorted(rows) == list(range(1, 30, 3))


def test_a_bad_cell_is_left_out(hub: Path) -> None:
    import datasets

    images = [{"bytes": layouts.encoded_picture(i, 32), "path": None} for i in range(10)]
    images[4]["bytes"] = b"broken"
    features = datasets.Features({"image": datasets.Image()})
    made = datasets.Dataset.from_dict({"image": images}, features=features)
    made.save_to_disk(str(hub / "set"))
    dataset = hub_set("lsun_church", hub / "set", skip=True)
    sizes = counts(dataset)
    for split, size in zip(SPLITS, sizes, strict=True):
        try:
            dataset.load(split, size)
        except InputError as error:
            assert "usable" in str(error)
    (bad,) = dataset.bad_images
    assert "row 4" in bad.path and "not an image" in bad.reason


@pytest.mark.parametrize("fault", ["unknown id", "no file", "no folder", "text", "no images"])
def test_what_is_no_data_set_is_one_line(fault: str, hub: Path) -> None:
    import datasets

    place = {
        "unknown id": "nobody-xyz/nothing-at-all",
        "no file": str(hub / "none.parquet"),
        "no folder": str(hub / "none"),
        "text": str(hub / "text.parquet"),
        "no images": str(hub / "numbers"),
    }[fault]
    (hub / "text.parquet").write_text("hello")
    datasets.Dataset.from_dict({"number": [1, 2]}).save_to_disk(str(hub / "numbers"))
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(UsageError) as raised:
        LsunChurch(DataSource(hub_id=place))
    text = str(raised.value)
    assert place in text and "\n" not in text and len(text) < 600
    assert before == datasets.config.HF_HUB_OFFLINE
