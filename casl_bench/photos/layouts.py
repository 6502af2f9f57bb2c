"""What a data set's folder, database or table holds: the images of each split, none decoded."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from casl_bench.cache.store import default_cache
from casl_bench.core.command import say
from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_bytes, hash_file, hash_json, write_text
from casl_bench.domains.dataset import Split
from casl_bench.photos.photo_file import MAX_BYTES, SUFFIXES, read_photo_bytes

T = TypeVar("T")
Sizes = dict[str, int]
"""Name of a file → its bytes."""

_HINT = "the layouts that are read are in docs/real_data_sets.md"


@dataclass(frozen=True)
class Photo:
    """An image that is not yet read."""

    image_id: str  # unique within the data set, the same on every machine
    where: str  # its path, or its database and key, for messages
    # Its encoded bytes, while the split is being walked; raises BadPhotoError
    read: Callable[[], bytes]


class Photos(Protocol):
    """The images of one split in their fixed order."""

    def __len__(self) -> int:
        """How many there are, found without reading any."""

    def walk(self) -> Generator[Photo, None, None]:
        """Each in turn. Close the generator when done: it may hold a database open."""


@dataclass(frozen=True)
class Layout:
    """A data set as it was found."""

    name: str  # the layout, for people
    splits: Mapping[Split, Photos]  # the images of each split; no image is in two
    contents: Any  # JSON that changes when a file is added, taken away or has other content
    # ids → [n, A] bool in the card's order, or None where the layout has none
    labels: Callable[[Sequence[str]], Tensor] | None = None


def shuffled(names: Sequence[str]) -> list[str]:
    """Names in an order of their own: by SHA-256, whatever order they come in.

    Sorted names come by source or class (all women before all men): of a hashed order the first n
    are a fair sample.
    """
    return sorted(names, key=lambda name: (hash_bytes(name.encode()), name))


def cut_in_three(items: Sequence[T]) -> dict[Split, Sequence[T]]:
    """The first eight tenths train, then one tenth validates and one tests."""
    first, second = len(items) * 8 // 10, len(items) * 9 // 10
    return {"train": items[:first], "validation": items[first:second], "test": items[second:]}


def cut_off_validation(train: Sequence[T], test: Sequence[T]) -> dict[Split, Sequence[T]]:
    """Published training and test images: the last tenth of the former validates."""
    end = last_tenth(len(train))
    return {"train": train[:end], "validation": train[end:], "test": test}


def last_tenth(count: int) -> int:
    """Where the last tenth of so many begins."""
    return count * 9 // 10


@dataclass(frozen=True)
class FilePhotos:
    """Image files below one folder."""

    base: Path  # the folder
    # Paths below it with forward slashes, in the split's order; they are the ids
    names: Sequence[str]
    # Name → path below the folder, of those that have another name on disk
    files: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def walk(self) -> Generator[Photo, None, None]:
        """Each file in turn."""
        for name in self.names:
            path = self.base / self.files.get(name, name)
            yield Photo(name, str(path), partial(read_photo_bytes, path))


def list_images(base: Path, folder: str = "", *, deep: bool = True) -> Sizes:
    """Image files below a folder by their suffix; other files and hidden ones are passed over.

    Name relative to `base` → size in bytes, sorted by name; -1 where the file is a broken link.
    Links to folders are not followed. Raises UsageError where a folder cannot be listed, or a name
    is no valid text.
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


def first_layout(
    root: Path, inner: Sequence[str], published: Callable[[Path], Layout | None]
) -> Layout | None:
    """The first layout that a folder, or one of its folders with the inner names, holds.

    `published` finds a data set's own. Else any images right in one of these folders are cut in
    three: the flat layout.
    """
    bases = [root, *(root / name for name in inner if (root / name).is_dir())]
    for base in bases:
        if layout := published(base):
            return layout
    for base in bases:
        if sizes := list_images(base, deep=False):
            return file_layout("flat folder", base, cut_in_three(shuffled(list(sizes))), sizes)
    return None


def layout_of_folders(name: str, base: Path, train: Sequence[str], test: Sequence[str]) -> Layout:
    """Published folders of training and of test images, none of which may be absent or empty."""
    sizes_of_train, sizes_of_test = (
        {image: size for folder in folders for image, size in _required(base, folder).items()}
        for folders in (train, test)
    )
    splits = cut_off_validation(shuffled(list(sizes_of_train)), shuffled(list(sizes_of_test)))
    return file_layout(name, base, splits, sizes_of_train | sizes_of_test)


def file_layout(
    name: str,
    base: Path,
    splits: Mapping[Split, Sequence[str]],
    sizes: Sizes,
    labels: Callable[[Sequence[str]], Tensor] | None = None,
    files: Mapping[str, str] | None = None,
) -> Layout:
    """A layout of files below `base`, from the names of each split and the sizes of all.

    `files` are the paths of images that have other names on disk.
    """
    photos = {split: FilePhotos(base, names, files or {}) for split, names in splits.items()}
    paths = [base / image for image in sizes]

    def digest() -> str:
        with ThreadPoolExecutor() as pool:
            return hash_json([*zip(sizes, pool.map(_hash_of, paths, sizes.values()), strict=True)])

    return Layout(name, photos, remembered(paths, digest), labels)


_SOON_READ = 10**9  # bytes; reading more is worth a word


def remembered(files: Sequence[Path], digest: Callable[[], str]) -> str:
    """What `digest` says of these files' content, asked once for as long as none of them changes.

    A data set of gigabytes is thus read once, and not at every start. It is kept in the cache, by
    the files' names, sizes and dates, those of the last change of anything about them included.
    """
    states = [_state(path) for path in files]
    known_as = [[str(path), *state] for path, state in zip(files, states, strict=True)]
    memo = default_cache() / "content" / hash_json(known_as)
    with contextlib.suppress(OSError):
        if re.fullmatch("[0-9a-f]{64}", known := memo.read_bytes().decode("latin-1")):
            return known
    if (size := sum(state[1] for state in states if state)) > _SOON_READ:
        say(f"reading {size / 1e9:,.1f} GB of images once, so that a change is seen")
    found = digest()
    with contextlib.suppress(UsageError):  # it can be read again
        write_text(memo, found)
    return found


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _hash_of(path: Path, size: int) -> str:
    """Of an image file; what no image can be, or cannot be read, is one when its turn comes."""
    if not 0 <= size <= MAX_BYTES:
        return f"{size} bytes"
    try:
        return hash_file(path)
    except OSError:
        return "unreadable"


def _required(base: Path, folder: str) -> Sizes:
    if not (base / folder).is_dir():
        raise UsageError("no such folder", where=str(base / folder), hint=_HINT)
    if sizes := list_images(base, folder):
        return sizes
    raise UsageError("the folder holds no image", where=str(base / folder), hint=_HINT)


def no_layout(dataset: str, root: Path, expected: str) -> UsageError:
    """The error for a folder that holds none of a data set's layouts."""
    return UsageError(
        f"the folder holds no layout of {dataset}",
        where=str(root),
        hint=f"expected {expected}; {_HINT}",
    )


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
            f"a file's name is no UTF-8: {name!a}", where=str(base), hint="rename the file"
        ) from error
    return name
