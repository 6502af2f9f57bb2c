"""Folders of image files: listed quickly, in an order that is not the file system's."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from casl_bench.core.errors import UsageError
from casl_bench.images.dataset import Split
from casl_bench.images.photo_file import SUFFIXES, read_photo_bytes
from casl_bench.images.photo_layout import Layout, Photo, cut_in_three, shuffled

Sizes = dict[str, int]


@dataclass(frozen=True)
class FilePhotos:
    """Image files below one folder.

    Attributes:
        base: the folder.
        names: paths below it with forward slashes, in the split's order; they are the ids.
    """

    base: Path
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def walk(self) -> Generator[Photo, None, None]:
        """Each file in turn."""
        for name in self.names:
            path = self.base / name
            yield Photo(name, str(path), partial(read_photo_bytes, path))


def list_images(base: Path, folder: str = "", *, deep: bool = True) -> Sizes:
    """Image files below a folder by their suffix; other files and hidden ones are passed over.

    Args:
        base: what the names are relative to.
        folder: where to look, below `base`.
        deep: whether to look into its folders, too; links to folders are not followed.

    Returns:
        Name → size in bytes, sorted by name; -1 where the file is a broken link.

    Raises:
        UsageError: a folder cannot be listed, or a name is no valid text.
    """
    found: Sizes = {}
    todo = [folder]
    while todo:
        here = todo.pop()
        try:
            with os.scandir(base / here) as entries:
                for entry in entries:
                    name = f"{here}/{entry.name}" if here else entry.name
                    if entry.name.startswith("."):
                        continue
                    if Path(entry.name).suffix.lower() in SUFFIXES:
                        found[_as_text(name, base)] = _size(entry)
                    elif deep and entry.is_dir(follow_symlinks=False):
                        todo.append(name)
        except OSError as error:
            raise UsageError(
                f"cannot list the folder: {error.strerror or error}", where=str(base / here)
            ) from error
    return dict(sorted(found.items()))


def folders_of(root: Path, *names: str) -> list[Path]:
    """A folder, then those of its folders with these names that are there."""
    return [root, *(root / name for name in names if (root / name).is_dir())]


def flat_layout(folders: Sequence[Path]) -> Layout | None:
    """Any images right in the first folder that has some, cut in three; None where none has."""
    for folder in folders:
        if sizes := list_images(folder, deep=False):
            return file_layout("flat folder", folder, cut_in_three(shuffled(list(sizes))), sizes)
    return None


def file_layout(
    name: str,
    base: Path,
    splits: Mapping[Split, Sequence[str]],
    sizes: Sizes,
    labels: Callable[[Sequence[str]], Tensor] | None = None,
) -> Layout:
    """A layout of files below `base`, from the names of each split and the sizes of all."""
    photos = {split: FilePhotos(base, names) for split, names in splits.items()}
    return Layout(name, photos, sorted(sizes.items()), labels)


def required_images(base: Path, folder: str) -> Sizes:
    """`list_images` of a folder that must be there and must not be empty. Raises UsageError."""
    if not (base / folder).is_dir():
        raise UsageError("no such folder", where=str(base / folder), mend=_MEND)
    if sizes := list_images(base, folder):
        return sizes
    raise UsageError("the folder holds no image", where=str(base / folder), mend=_MEND)


def no_layout(dataset: str, root: Path, expected: str) -> UsageError:
    """The error for a folder that holds none of a data set's layouts."""
    return UsageError(
        f"the folder holds no layout of {dataset}",
        where=str(root),
        mend=f"expected {expected}; {_MEND}",
    )


_MEND = "the layouts that are read are in docs/real_data_sets.md"


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size if entry.is_file() else -1
    except OSError:
        return -1


def _as_text(name: str, base: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"a file's name is no UTF-8: {name!a}", where=str(base), mend="rename the file"
        ) from error
    return name
