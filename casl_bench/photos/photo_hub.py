"""Data sets read through the package `datasets`: an id on the Hub, or a folder or table on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_file, hash_json
from casl_bench.core.option_types import expand_home
from casl_bench.domains.dataset import Split
from casl_bench.photos import extra_package
from casl_bench.photos.layouts import (
    Layout,
    Photo,
    cut_in_three,
    cut_off_validation,
    remembered,
    shuffled,
)
from casl_bench.photos.photo_file import BadPhotoError, read_photo_bytes

# Names under which the three splits are published; the first that is there counts.
_ALIASES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}


@dataclass(frozen=True)
class HubPhotos:
    """Rows of tables."""

    hub_id: str  # for messages
    tables: Mapping[str, Any]  # of each published split, the image column alone, undecoded
    # `<published split>/<row>`, in the order in which they are walked; they are the ids
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def walk(self) -> Generator[Photo, None, None]:
        """Each row in turn."""
        for name in self.names:
            split, _, row = name.rpartition("/")
            where = f"{self.hub_id}, {split} row {int(row)}"
            yield Photo(name, where, partial(_cell, self.tables[split], int(row), where))


PublishedNames = Mapping[str, tuple[str, int]]
"""Our attribute → the published one and +1, or -1 where that is its opposite (No_Beard)."""


def hub_layout(
    hub_id: str,
    wanted_class: str | None,
    published: PublishedNames | None,
    allow_download: bool,
) -> Layout:
    """The images of a `datasets` data set: an id on the Hub, a folder, or a parquet file.

    Images are in the one column of type Image, or in that named `image`. Where a column of class
    labels knows `wanted_class`, other rows are left out. Published train, validation and test
    splits are kept; where one of the two last is missing, the other tests and the last tenth of
    train validates; where there is only one split, it is cut in three. Columns with the `published`
    names of attributes, in whatever case, are labels. Raises UsageError where the package is not
    installed, there are no such images, or only some of the attributes have a column.
    """
    tables = _tables(hub_id, allow_download)
    rows: dict[str, Sequence[str]] = {}
    images: dict[str, Any] = {}
    labels: dict[str, Tensor] = {}
    contents = []
    for split in sorted(tables):
        column = _image_column(hub_id, tables[split])
        kept = _rows_of_class(tables[split], wanted_class)
        rows[split] = shuffled([f"{split}/{row:06d}" for row in kept])
        images[split] = _undecoded(hub_id, tables[split], column)
        found: list[Any] = [split, len(tables[split]), _content(images[split])]
        if (
            published
            and (own := _labels(f"{hub_id}, {split}", tables[split], published)) is not None
        ):
            labels[split] = own
            found.append(hashlib.sha256(own.numpy().tobytes()).hexdigest())
        contents.append(found)
    if labels and (without := sorted(tables.keys() - labels.keys())):
        raise UsageError(f"the split {without[0]} has no columns of attributes", where=hub_id)
    splits = {name: HubPhotos(hub_id, images, names) for name, names in _split(rows).items()}
    if not any(len(photos) for photos in splits.values()):
        wanted = f" of class '{wanted_class}'" if wanted_class else ""
        raise UsageError(f"there is no image{wanted}", where=hub_id)

    def labels_of(ids: Sequence[str]) -> Tensor:
        parts = (name.rpartition("/") for name in ids)
        return torch.stack([labels[split][int(row)] for split, _, row in parts])

    return Layout("datasets", splits, contents, labels_of if labels else None)


def _labels(where: str, table: Any, published: PublishedNames) -> Tensor | None:
    """[n, A] bool in the order of `published`; None where no column is of an attribute."""
    columns = {name.lower(): name for name in table.features}
    known = {name for name, _ in published.values() if name.lower() in columns}
    if not known:
        return None
    if missing := [name for name, _ in published.values() if name not in known]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UsageError(
            f"{len(known)} of {len(published)} attributes have a column, "
            f"{', '.join(missing[:3])}{more} {'has' if len(missing) == 1 else 'have'} none",
            where=where,
            hint="give all of them, or remove them to run without labels",
        )
    numbers = table.select_columns(list(columns.values())).with_format("numpy")
    found = []
    for name, sign in published.values():
        column = columns[name.lower()]
        values = np.asarray(numbers[column][:])
        kinds = set(np.unique(values).tolist()) if values.dtype.kind in "biu" else {None}
        if not (kinds <= {0, 1} or kinds <= {-1, 1}):
            raise UsageError(
                "an attribute is neither true or false, 0 or 1, nor -1 or 1",
                where=f"{where}, column {column}",
                hint="write the column anew",
            )
        found.append((values == 1) != (sign < 0))
    return torch.from_numpy(np.stack(found, axis=1))


def _tables(hub_id: str, allow_download: bool) -> dict[str, Any]:
    datasets = extra_package("datasets", "this", hub_id)
    hub_id = expand_home(hub_id, "--data-id")
    path = Path(hub_id)
    try:
        with _quiet(datasets), _online(datasets, allow_download):
            if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
                loaded = datasets.load_from_disk(hub_id)
            elif path.suffix == ".parquet":
                if not path.is_file():
                    raise UsageError("no such file", where=hub_id)
                loaded = datasets.load_dataset("parquet", data_files=hub_id)
            else:
                loaded = datasets.load_dataset(hub_id)
    except UsageError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        if path.exists() or allow_download:
            raise UsageError(f"no readable data set: {text}", where=hub_id) from error
        raise UsageError(
            f"no such data set on disk: {text}",
            where=hub_id,
            hint="give a local copy, or add --allow-download",
        ) from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}


def _split(rows: Mapping[str, Sequence[str]]) -> dict[Split, Sequence[str]]:
    found: dict[Split, Sequence[str]] = {}
    for split, names in _ALIASES.items():
        published = next((name for name in names if name in rows), None)
        if published is not None:
            found[split] = rows[published]
    if len(found) == 3:
        return found
    if "train" in found and len(found) == 2:
        return cut_off_validation(found["train"], found.get("test") or found["validation"])
    # One split, or none by a known name: all rows are one pool.
    return cut_in_three(shuffled([name for names in rows.values() for name in names]))


def _image_column(hub_id: str, table: Any) -> str:
    import datasets

    columns = [n for n, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if len(columns) == 1:
        return str(columns[0])
    if "image" in table.features:
        return "image"
    raise UsageError(
        f"{len(columns)} columns of images and none named 'image'",
        where=hub_id,
        hint=f"columns: {', '.join(table.features)}",
    )


def _rows_of_class(table: Any, wanted: str | None) -> Sequence[int]:
    import datasets

    for name, kind in table.features.items():
        if isinstance(kind, datasets.ClassLabel) and wanted in kind.names:
            labels = np.asarray(table.with_format("numpy")[name][:])
            rows: list[int] = np.flatnonzero(labels == kind.str2int(wanted)).tolist()
            return rows
    return range(len(table))


def _undecoded(hub_id: str, table: Any, column: str) -> Any:
    import datasets

    try:
        with _quiet(datasets):
            return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    except Exception as error:
        raise UsageError(f"column '{column}' holds no encoded images", where=hub_id) from error


def _content(images: Any) -> str:
    """SHA-256 of all images, hex, from the table and the files beside it; none is decoded."""
    chunks = images.data.column(images.column_names[0]).chunks

    def digest() -> str:
        return hash_json([_hash_of(*cell) for chunk in chunks for cell in
                          zip(chunk.field("bytes"), chunk.field("path"), strict=True)])  # fmt: skip

    files = [Path(file["filename"]) for file in images.cache_files]
    whole = all(chunk.field("bytes").null_count == 0 for chunk in chunks)
    return remembered(files, digest) if files and whole else digest()


def _hash_of(encoded: Any, path: Any) -> str:
    if encoded.is_valid:
        return hashlib.sha256(encoded.as_buffer()).hexdigest()
    file = Path(path.as_py() or "")
    return hash_file(file) if file.is_file() else "absent"


def _cell(images: Any, row: int, where: str) -> bytes:
    cell = images[row][images.column_names[0]]
    if cell is None:
        raise BadPhotoError("an empty cell", where)
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    return read_photo_bytes(Path(cell["path"]))


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No progress bars or log lines among our own: what fails is raised as an error."""
    shown, verbosity = datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _online(datasets: Any, allowed: bool) -> Iterator[None]:
    """Keep both packages off the network unless it is allowed; their switch is a global."""
    import huggingface_hub.constants as hub

    places = [(datasets.config, "HF_HUB_OFFLINE"), (hub, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in places]
    try:
        if not allowed:
            for module, name in places:
                setattr(module, name, True)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)
