"""The `afhq_dog` data set: the dogs of Animal Faces-HQ, without labels.

Layouts of the folder, the first that fits (each also below `afhq/`, `afhq_v2/` or `afhqv2/`):

- version 1: `train/dog/*.jpg`, `val/dog/*.jpg`;
- version 2: `train/dog/*.png`, `test/dog/*.png`;
- flat: images right in the folder, cut in three: eight, one and one tenth.

The published `val` or `test` tests; the last tenth of `train` validates. Images are in the order of
the hash of their names, so that the two web sites they come from are mixed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from casl_bench.core.errors import UsageError
from casl_bench.domains.dataset import DATASETS
from casl_bench.photos.layouts import (
    Layout,
    cut_off_validation,
    file_layout,
    flat_layout,
    folders_of,
    no_layout,
    required_images,
    shuffled,
)
from casl_bench.photos.photo_dataset import PhotoDataset, PhotoKind, shipped_concepts


def find_layout(root: Path) -> Layout:
    """What a folder holds. Raises UsageError where it is no layout, or a part is missing."""
    bases = folders_of(root, "afhq", "afhq_v2", "afhqv2")
    for base in bases:
        if (base / "train" / "dog").is_dir():
            return _published(base)
    if layout := flat_layout(bases):
        return layout
    raise no_layout("afhq_dog", root, "train/dog/ beside val/dog/ or test/dog/, or images")


def _published(base: Path) -> Layout:
    both = [split for split in ("val", "test") if (base / split / "dog").is_dir()]
    if len(both) == 2:
        raise UsageError(
            "val/dog and test/dog are both there: two versions are mixed",
            where=str(base),
            hint="keep each version of AFHQ in a folder of its own",
        )
    tests = both[0] if both else "val"
    train, test = required_images(base, "train/dog"), required_images(base, f"{tests}/dog")
    splits = cut_off_validation(shuffled(list(train)), shuffled(list(test)))
    return file_layout("AFHQ v1" if tests == "val" else "AFHQ v2", base, splits, train | test)


_CONCEPTS = shipped_concepts("afhq_dog")
KIND = PhotoKind(
    name="afhq_dog",
    attributes=tuple(concept.attribute for concept in _CONCEPTS),
    concepts=_CONCEPTS,
    description="AFHQ-Dog: about 5,000 close-ups of dogs' faces, without labels.",
    licence="CC BY-NC 4.0",
    source="https://github.com/clovaai/stargan-v2",
    find_layout=find_layout,
    hub_class="dog",
)

AfhqDog = partial(PhotoDataset, KIND)
"""Dogs' faces without labels: takes a source and a resolution."""

DATASETS.register("afhq_dog", AfhqDog)
