"""Concept files are read strictly; ours offer only what can be measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.core.errors import UsageError
from casl_bench.domains.dataset import Concept
from casl_bench.photos.celeba_annotation import CELEBA_ATTRIBUTES
from casl_bench.photos.photo_dataset import read_concepts, shipped_concepts

GOOD = """
[[concept]]
name = "smiling"
source = "face"
target = "smiling face"
attribute = "smiling"

[[concept]]
name = "young"
source = "face"
target = "young face"
attribute = "young"
"""
ATTRIBUTES = ("smiling", "young")


def written(folder: Path, text: str) -> Path:
    path = folder / "concepts.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    found = read_concepts(written(tmp_path, GOOD), ATTRIBUTES)
    assert found[0] == Concept("smiling", "face", "smiling face", "smiling")
    assert [concept.name for concept in found] == ["smiling", "young"]
    assert read_concepts(written(tmp_path, GOOD)) == found


FAULTS: dict[str, tuple[str, str]] = {
    "not TOML": ("[[concept", "not TOML"),
    "empty": ("", "concept: Field required"),
    "unknown table": (GOOD.replace("[[concept]]", "[[concpt]]", 1), "concpt: Extra inputs"),
    "one table": ("[concept]\nname = 'a'\n", "concept: Input should be a valid list"),
    "a list of words": ("concept = ['a']\n", "concept.0: Input should be a valid dictionary"),
    "unknown field": (GOOD.replace("target =", "targt =", 1), "concept.0.target: Field required"),
    "missing attribute": (
        GOOD.replace('attribute = "smiling"\n', ""),
        "0.attribute: Field",
    ),
    "empty text": (GOOD.replace('"smiling face"', '" "'), "concept.0.target: String should have"),
    "a number": (
        GOOD.replace('"smiling face"', "3"),
        "0.target: Input should be a valid str",
    ),
    "equal texts": (GOOD.replace('"smiling face"', '"face "'), "the same text"),
    "a name twice": (
        GOOD.replace('name = "young"', 'name = "smiling"'),
        "is there twice",
    ),
    "a name with a blank": (
        GOOD.replace('name = "young"', 'name = "so young"'),
        "1.name: ",
    ),
    "unknown attribute": (
        GOOD.replace('attribute = "smiling"', 'attribute = "smilin"'),
        "did you mean 'smiling'",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line(name: str, tmp_path: Path) -> None:
    text, message = FAULTS[name]
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        read_concepts(path, ATTRIBUTES)
    assert message in str(raised.value)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_without_labels_the_attribute_is_the_name(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace('attribute = "smiling"', 'attribute = "happy"'))
    with pytest.raises(UsageError, match="not the concept's own name"):
        read_concepts(path)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no concept file"):
        read_concepts(tmp_path / "none.toml")


def test_faces_offer_what_is_annotated_and_nothing_else() -> None:
    faces = shipped_concepts("celeba_hq", tuple(CELEBA_ATTRIBUTES))
    names = {concept.name for concept in faces}
    assert {"smiling", "young", "man", "makeup", "beard", "blond", "gray_hair", "bald"} <= names


def test_slips_of_the_papers_are_not_copied() -> None:
    faces = shipped_concepts("celeba_hq", tuple(CELEBA_ATTRIBUTES))
    assert "grey" in next(c.target_prompt for c in faces if c.name == "gray_hair")
    churches = {c.name: c for c in shipped_concepts("lsun_church")}
    assert churches["snow"].target_prompt == "Snow Covered Church"


@pytest.mark.parametrize("dataset", ["afhq_dog", "lsun_church"])
def test_dogs_and_churches_are_judged_by_their_concepts(dataset: str) -> None:
    concepts = shipped_concepts(dataset)
    assert len(concepts) >= 10
    assert all(concept.attribute == concept.name for concept in concepts)
