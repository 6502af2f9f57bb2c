"""The `lsun_church` data set: the outdoor churches of LSUN, without labels.

Layouts of the folder, the first that fits (each also below `lsun/`):

- LSUN's databases: `church_outdoor_train_lmdb`, `church_outdoor_val_lmdb`, in the order of their
  keys, which are hashes already (the package `lmdb` is needed);
- exported: `church_outdoor_train/`, `church_outdoor_val/`, with folders inside or without;
- flat: images right in the folder, cut in three: eight, one and one tenth.

The published `val` tests; the last tenth of `train` validates.
"""

from __future__ import annotations

from pathlib import Path

from casl_bench.core.errors import UsageError
from casl_bench.images.concept_file import shipped_concepts
from casl_bench.images.data_source import DataSource
from casl_bench.images.dataset import DATASETS
from casl_bench.images.photo_dataset import PhotoDataset, PhotoKind
from casl_bench.images.photo_folder import (
    file_layout,
    flat_layout,
    folders_of,
    no_layout,
    required_images,
)
from casl_bench.images.photo_layout import Layout, cut_off_validation, last_tenth, shuffled
from casl_bench.images.photo_lmdb import LmdbPhotos, count_images

TRAIN, VAL = "church_outdoor_train", "church_outdoor_val"


def find_layout(root: Path) -> Layout:
    """What a folder holds.

    Raises:
        UsageError: none of the layouts, a part of one is missing, or `lmdb` is not installed.
        InvalidBenchmarkError: a database is damaged.
    """
    bases = folders_of(root, "lsun")
    for base in bases:
        if any((base / f"{name}_lmdb").is_dir() for name in (TRAIN, VAL)):
            return _databases(base)
        if any((base / name).is_dir() for name in (TRAIN, VAL)):
            train, test = required_images(base, TRAIN), required_images(base, VAL)
            splits = cut_off_validation(shuffled(list(train)), shuffled(list(test)))
            return file_layout("exported LSUN", base, splits, train | test)
    if layout := flat_layout(bases):
        return layout
    if packed := next((p for n in (TRAIN, VAL) if (p := root / f"{n}_lmdb.zip").is_file()), None):
        raise UsageError("the database is still packed", where=str(packed), mend="unzip it there")
    raise no_layout("lsun_church", root, f"{TRAIN}_lmdb/ beside {VAL}_lmdb/, {TRAIN}/, or images")


def _databases(base: Path) -> Layout:
    counts, sizes = {}, {}
    for name in (f"{TRAIN}_lmdb", f"{VAL}_lmdb"):
        data = base / name / "data.mdb"
        if not data.is_file():
            raise UsageError("no database", where=str(data), mend="download and unpack it")
        counts[name], sizes[name] = count_images(base / name), data.stat().st_size
    (train, total), (test, tests) = ((base / name, count) for name, count in counts.items())
    end = last_tenth(total)
    return Layout(
        "LSUN LMDB",
        {
            "train": LmdbPhotos(train, 0, end),
            "validation": LmdbPhotos(train, end, total),
            "test": LmdbPhotos(test, 0, tests),
        },
        [sorted(sizes.items()), sorted(counts.items())],
    )


_CONCEPTS = shipped_concepts("lsun_church").concepts
KIND = PhotoKind(
    name="lsun_church",
    attributes=tuple(concept.attribute for concept in _CONCEPTS),
    concepts=_CONCEPTS,
    description="LSUN-Church: 126,527 photographs of churches from outside, without labels.",
    licence="LSUN states none for its images; collected from the web for research",
    source="https://www.yf.io/p/lsun",
    find_layout=find_layout,
)


class LsunChurch(PhotoDataset):
    """Churches from outside, without labels.

    Args:
        source: where the files are; None only for the card.
        resolution: side of the images in pixels.
    """

    def __init__(self, source: DataSource | None = None, resolution: int = 256) -> None:
        super().__init__(KIND, source, resolution)


DATASETS.register("lsun_church", LsunChurch)
