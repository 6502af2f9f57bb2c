"""A run folder elsewhere: in an object store, or whatever else fsspec reads and writes.

A listing with the size and SHA-256 of every file is taken away first and written last, so an upload
that did not come to its end has none. Fetched is what the listing names, and nothing is believed
that is not what it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.registry import known_implementations

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError, unknown_name
from casl_bench.core.files import FileSum, inside, json_text, parse_json
from casl_bench.core.option_types import is_address
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs.receipt import RESULTS
from casl_bench.runs.run_lock import MANIFEST, PLAN_FILE, hold

LISTING = "published.json"
_VERSION = 1

Sums = dict[str, FileSum]
"""Path within the run folder, with "/" → what is expected there."""


def publish(run: Path, address: str) -> int:
    """Copy a run folder's results to an address; those of the same run there are replaced.

    Args:
        run: a run folder that no command is running in.
        address: such as "s3://bucket/run".

    Returns:
        How many files were copied: 0 where just these are there.

    Raises:
        UsageError: if it is no run folder, another run is published there, or the address cannot
            be written.
        InvalidBenchmarkError: if a record of the run is corrupt.
    """
    if not is_address(address):
        raise UsageError(
            f"'{address}' is no address",
            mend="give one such as s3://bucket/run, or copy the folder",
        )
    if not any((run / name).is_file() for name in (MANIFEST, PLAN_FILE)):
        raise UsageError("no run folder", where=str(run), mend="give the folder of a run")
    with hold(run), _opened(address) as (files, root):
        for _ in RecordStore(run):
            pass  # each is checked as it is read
        sums = _sums(run)
        if (text := _listing(files, root)) is not None:
            # Half a listing is that of nothing: its own upload was cut.
            with suppress(ValueError):
                before = _listed(text)
                if before == sums:
                    return 0
                _check_same_run(before, sums, address)
            files.rm_file(f"{root}/{LISTING}")
        files.put([str(run / name) for name in sums], [f"{root}/{name}" for name in sums])
        listing = {"schema_version": _VERSION, "files": {n: asdict(s) for n, s in sums.items()}}
        files.pipe_file(f"{root}/{LISTING}", json_text(listing).encode())
        return len(sums)


def fetch(address: str, folder: Path) -> None:
    """Bring a published run into an empty folder.

    Raises:
        UsageError: if the address cannot be read, or holds no run or half of one.
        InvalidBenchmarkError: if a file is not what was published, or would lie elsewhere.
    """
    with _opened(address) as (files, root):
        text = _listing(files, root)
        if text is None:
            raise UsageError(
                "no run is there, or its upload did not come to its end",
                where=address,
                mend=f"casl-bench push RUN {address}",
            )
        try:
            sums = _listed(text)
        except ValueError as error:
            raise InvalidBenchmarkError(
                f"{LISTING} makes no sense: {error}", where=address, mend="push the run again"
            ) from error
        for name in sums:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            files.get([f"{root}/{name}" for name in sums], [str(folder / name) for name in sums])
        except FileNotFoundError as error:
            raise InvalidBenchmarkError(
                f"a file that was published is gone: {error}", where=address,
                mend="push the run again",
            ) from error  # fmt: skip
        for name, expected in sums.items():
            if FileSum.of(folder / name) != expected:
                raise InvalidBenchmarkError(
                    f"'{name}' is not what was published", where=address, mend="push the run again"
                )


@contextmanager
def _opened(address: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """The store that an address is of, and the path in it. Its faults are told in one line."""
    protocol = address.partition("://")[0]
    try:
        # Object stores have no folders to be made, and a mistyped bucket must not be made.
        here = {"auto_mkdir": True} if protocol in ("file", "local") else {}
        files, root = url_to_fs(address, **here)
        files.invalidate_cache()
        yield files, root.rstrip("/")
    except BenchError:
        raise
    except ImportError as error:
        package = known_implementations.get(protocol, {"class": "fsspec"})["class"].split(".")[0]
        raise UsageError(
            f"what reads {protocol}:// is not installed: {error}",
            where=address,
            mend="see there" if package == "fsspec" else f"pip install {package}",
        ) from error
    except Exception as error:
        if protocol.partition("::")[0] not in known_implementations:
            raise unknown_name("protocol", protocol, known_implementations) from error
        raise UsageError(
            f"{type(error).__name__}: {error}",
            where=address,
            mend="check the address, that the bucket exists, and what you may do there",
        ) from error


def _sums(run: Path) -> Sums:
    """Of everything that a run leaves in its folder."""
    found = [path for name in RESULTS for path in (run / name, *(run / name).rglob("*"))]
    return {p.relative_to(run).as_posix(): FileSum.of(p) for p in sorted(found) if p.is_file()}


def _listing(files: AbstractFileSystem, root: str) -> bytes | None:
    try:
        return bytes(files.cat_file(f"{root}/{LISTING}"))
    except FileNotFoundError:
        return None


def _listed(listing: bytes) -> Sums:
    """What a listing says. Raises ValueError where it makes no sense."""
    try:
        listed = parse_json(listing.decode())["files"]
        return {inside(name): FileSum(**file) for name, file in listed.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error


def _check_same_run(before: Sums, sums: Sums, address: str) -> None:
    for name in (MANIFEST, PLAN_FILE):
        if before.get(name) != sums.get(name):
            raise UsageError(
                f"another run, or another part of one, is published there: its {name} differs",
                where=address,
                mend="give another address, or delete what is there",
            )
