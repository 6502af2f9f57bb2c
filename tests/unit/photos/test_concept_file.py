"""Concept files are read strictly; ours offer only what can be measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.core.errors import UsageError
from casl_bench.domains.dataset import Concept
from casl_bench.photos.celeba_hq import CELEBA_ATTRIBUTES
from casl_bench.photos.photo_dataset import read_concepts, shipped_concepts

GOOD = """
[[concept]]
name = "smiling"
source = "face"
target = "smiling face"
attribute = "smiling"

[[unmeasured]]
name = "angry"
source = "face"
target = "angry face"
"""
ATTRIBUTES = ("smiling", "young")


def written(folder: Path, text: str) -> Path:
    path = folder / "concepts.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    found = read_concepts(written(tmp_path, GOOD), ATTRIBUTES)
    assert found.concepts == (Concept("smiling", "face", "smiling face", "smiling"),)
    assert [pair.name for pair in found.unmeasured] == ["angry"]
    assert read_concepts(written(tmp_path, GOOD)) == found


FAULTS: dict[str, tuple[str, str]] = {
    "not TOML": ("[[concept", "not TOML"),
    "empty": ("", "no [[concept]]"),
    "unknown table": (GOOD.replace("[[unmeasured]]", "[[unmesured]]"), "mean 'unmeasured'"),
    "one table": ("[concept]\nname = 'a'\n", "no list of tables"),
    "a list of words": ("concept = ['a']\n", "not a table"),
    "unknown field": (GOOD.replace("target =", "targt =", 1), "did you mean 'target'"),
    "field of the other table": (GOOD + "attribute = 'smiling'\n", "unknown field 'attribute'"),
    "missing text": (GOOD.replace('target = "smiling face"\n', ""), "'target' is missing"),
    "missing attribute": (GOOD.replace('attribute = "smiling"\n', ""), "'attribute' is missing"),
    "empty text": (GOOD.replace('"smiling face"', '" "'), "'target' is no text"),
    "a number": (GOOD.replace('"smiling face"', "3"), "'target' is no text"),
    "equal texts": (GOOD.replace('"smiling face"', '"face "'), "the same text"),
    "equal unmeasured texts": (GOOD.replace('"angry face"', '"face"'), "the same text"),
    "a name twice": (GOOD + GOOD.partition("[[unm")[0], "'smiling' is there twice"),
    "a name in both": (GOOD.replace('"angry"', '"smiling"'), "'smiling' is there twice"),
    "a name with a blank": (GOOD.replace('name = "angry"', 'name = "so angry"'), "lower_snake"),
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
    names = {concept.name for concept in faces.concepts}
    assert {"smiling", "young", "man", "makeup", "beard", "blond", "gray_hair", "bald"} <= names
    assert {"angry", "surprised", "tanned"} <= {pair.name for pair in faces.unmeasured}


def test_slips_of_the_papers_are_not_copied() -> None:
    faces = shipped_concepts("celeba_hq", tuple(CELEBA_ATTRIBUTES))
    target = {c.name: c.target_prompt for c in (*faces.concepts, *faces.unmeasured)}
    assert "grey" in target["gray_hair"] and "short" in target["short_hair"]
    churches = {c.name: c for c in shipped_concepts("lsun_church").concepts}
    assert churches["snow"].target_prompt == "Snow Covered Church"


@pytest.mark.parametrize("dataset", ["afhq_dog", "lsun_church"])
def test_dogs_and_churches_are_judged_by_their_concepts(dataset: str) -> None:
    concepts = shipped_concepts(dataset).concepts
    assert len(concepts) >= 10
    assert all(concept.attribute == concept.name for concept in concepts)
