"""The annotation of CelebA-HQ is read strictly: any fault is one line that names the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.photos.celeba_annotation import (
    CELEBA_ATTRIBUTES,
    PUBLISHED_NAMES,
    read_annotation,
)
from casl_bench.photos.photo_dataset import read_concepts

HEADER = " ".join(PUBLISHED_NAMES)
ONES = " ".join(["1"] * 40)
GOOD = f"2\n{HEADER}\n0.jpg  {ONES}\n1.jpg  -1{ONES[1:]}\n"


def test_our_names_are_the_published_ones_but_for_the_beard() -> None:
    assert len(CELEBA_ATTRIBUTES) == 40
    assert CELEBA_ATTRIBUTES["smiling"] == ("Smiling", 1)
    assert CELEBA_ATTRIBUTES["5_o_clock_shadow"] == ("5_o_Clock_Shadow", 1)
    assert CELEBA_ATTRIBUTES["beard"] == ("No_Beard", -1)
    assert "no_beard" not in CELEBA_ATTRIBUTES
    assert [sign for _, sign in CELEBA_ATTRIBUTES.values()].count(-1) == 1


def test_labels_and_the_inverted_beard(tmp_path: Path) -> None:
    path = tmp_path / "anno.txt"
    path.write_text(GOOD)
    annotation = read_annotation(path)
    assert annotation.names == ("0.jpg", "1.jpg") and annotation.labels.dtype == torch.bool
    expected = torch.tensor([name != "beard" for name in CELEBA_ATTRIBUTES])
    assert torch.equal(annotation.labels[0], expected)
    assert not annotation.labels[1, 0]
    assert torch.equal(annotation.of(["1.jpg", "0.jpg"]), annotation.labels.flip(0))


AS_LABS_HAVE_IT: dict[str, str] = {
    "Windows": GOOD.replace("\n", "\r\n"),
    "a byte order mark": f"\ufeff{GOOD}",
    "single blanks": GOOD.replace("  ", " "),
    "blanks aligned": GOOD.replace(" 1", "  1"),
    "blanks at the ends of lines": GOOD.replace("\n", " \n"),
    "an empty line at the end": GOOD + "\n",
    "a tab": GOOD.replace("1.jpg  ", "1.jpg\t"),
    "no count": GOOD.partition("\n")[2],
    "a byte order mark and no count": "\ufeff" + GOOD.partition("\n")[2],
    "comma-separated": f"image_id {GOOD.partition(chr(10))[2]}".replace("  ", " ").replace(
        " ", ","
    ),
}


@pytest.mark.parametrize("form", AS_LABS_HAVE_IT)
def test_forms_that_labs_have_give_the_same_labels(form: str, tmp_path: Path) -> None:
    good, path = tmp_path / "good.txt", tmp_path / "anno.txt"
    good.write_text(GOOD)
    path.write_bytes(AS_LABS_HAVE_IT[form].encode())
    found = read_annotation(path)
    assert found.names == ("0.jpg", "1.jpg")
    assert torch.equal(found.labels, read_annotation(good).labels)


def test_the_real_annotation(golden_path: Callable[[str], Path]) -> None:
    annotation = read_annotation(golden_path("annotations/CelebAMask-HQ-attribute-anno.txt"))
    assert annotation.labels.shape == (30_000, 40)
    assert annotation.names == tuple(f"{i}.jpg" for i in range(30_000))
    share = dict(zip(CELEBA_ATTRIBUTES, annotation.labels.float().mean(0).tolist(), strict=True))
    # Facts about the celebrities that a wrong column or sign would break.
    assert 0.4 < share["smiling"] < 0.55 and 0.3 < share["male"] < 0.45
    assert 0.1 < share["beard"] < 0.25 and 0.7 < share["young"] < 0.85
    labels = dict(zip(CELEBA_ATTRIBUTES, annotation.labels.T, strict=True))
    assert (labels["beard"] & ~labels["male"]).float().mean() < 0.01
    assert (labels["goatee"] & ~labels["beard"]).float().mean() < 0.01


FAULTS: dict[str, tuple[str, str]] = {
    "empty file": ("", "line 1"),
    "count in words": (GOOD.replace("2\n", "two\n", 1), "line 1"),
    "a count of 5,000 digits": (GOOD.replace("2\n", f"{'9' * 5000}\n", 1), "line 1"),
    "negative count": (GOOD.replace("2\n", "-2\n", 1), "line 1"),
    "no images": (f"0\n{HEADER}\n", "line 1"),
    "no images and no count": (f"{HEADER}\n", "no image follows"),
    "count too large": (GOOD.replace("2\n", "3\n", 1), "3 images are announced, 2 follow"),
    "count too small": (GOOD.replace("2\n", "1\n", 1), "1 images are announced, 2 follow"),
    "no header": (f"2\n0.jpg  {ONES}\n1.jpg  {ONES}\n", "line 2"),
    "39 names": (GOOD.replace(" Young", ""), "line 2"),
    "a name mistyped": (GOOD.replace("Smiling", "Smilling"), "line 2"),
    "two names swapped": (GOOD.replace("Bald Bangs", "Bangs Bald"), "line 2"),
    "39 values": (GOOD.replace(ONES + "\n1", ONES[2:] + "\n1"), "line 3"),
    "41 values": (GOOD.rstrip() + " 1\n", "line 4"),
    "a zero": (GOOD.rstrip()[:-1] + "0\n", "line 4"),
    "a two": (GOOD.rstrip()[:-1] + "2\n", "line 4"),
    "a word": (GOOD.rstrip()[:-1] + "yes\n", "40 times 1 or -1"),
    "an empty line between": (GOOD.replace("\n1.jpg", "\n\n1.jpg"), "line 4"),
    "a file twice": (GOOD.replace("1.jpg", "0.jpg"), "'0.jpg' is on line 3, too"),
    "a path": (GOOD.replace("1.jpg", "../1.jpg"), "line 4"),
    "cut in a line": (GOOD[:-30], "line 4"),
    "commas": (GOOD.replace("1 1", "1,1"), "line 3"),
}


def one_line(error: BenchError, path: Path) -> None:
    assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 400


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line(name: str, tmp_path: Path) -> None:
    text, message = FAULTS[name]
    path = tmp_path / "anno.txt"
    path.write_text(text)
    with pytest.raises(InvalidBenchmarkError) as raised:
        read_annotation(path)
    assert message in str(raised.value)
    one_line(raised.value, path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "anno.txt"
    path.write_bytes(GOOD.encode().replace(b"0.jpg", b"\xff.jpg"))
    with pytest.raises(InvalidBenchmarkError, match="line 3"):
        read_annotation(path)


def test_an_absent_annotation(tmp_path: Path) -> None:
    for path in (tmp_path / "anno.txt", tmp_path):
        with pytest.raises(UsageError) as raised:
            read_annotation(path)
        one_line(raised.value, path)


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    """One that takes no place on the disk, and would fill the memory."""
    path = tmp_path / "endless.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="cannot be read"):
        read_annotation(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_concepts(path)
