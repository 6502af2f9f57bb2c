"""The run folder's door: one configuration a folder, one process at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from casl_bench.cache.store import cache_of
from casl_bench.core.errors import UsageError
from casl_bench.core.files import make_folder, read_json, write_json
from casl_bench.models.backbone import REFERENCE, Kernels
from casl_bench.runs.suites import RunConfig, Suite

MANIFEST = "manifest.json"
PLAN_FILE = "plan.json"
"""Of a shard: the whole plan."""

LOCK = ".lock"
_VERSION = 1
_LEFT_OUT = {"kernels": REFERENCE}
"""What a key means where it does not say so."""


def check_run_folder(config: RunConfig) -> None:
    """Refuse a folder that holds another run, or other things. Reads only.

    Raises:
        UsageError: where the folder cannot be used for this configuration.
    """
    out = config.out
    try:
        if not out.exists():
            return
        if not out.is_dir():
            raise UsageError("--out is not a folder", where=str(out), mend="give a folder")
        path = out / MANIFEST
        if not path.is_file():
            if any(entry.name != LOCK for entry in out.iterdir()):
                raise UsageError(
                    "the folder is not empty and holds no run",
                    where=str(out),
                    mend="give --out a new folder",
                )
            return
        manifest = read_json(path)
        stored = manifest["key"]
        if not isinstance(stored, dict):
            raise TypeError
    except OSError as error:
        raise UsageError(
            f"cannot use --out: {error.strerror or error}",
            where=str(out),
            mend="choose another folder",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "the run folder's manifest cannot be read",
            where=str(out / MANIFEST),
            mend="give --out a new folder",
        ) from error
    differences = _differences({**_LEFT_OUT, **stored}, {**_LEFT_OUT, **config.key()})
    if differences:
        raise UsageError(
            f"the run folder was made with another configuration: {', '.join(differences)}",
            where=str(out),
            mend="give --out another folder, or run with that configuration",
        )


def config_of_run(
    out: Path,
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    cache: Path | None = None,
) -> RunConfig:
    """The configuration that a run folder was made with, for what reads it later.

    Args:
        out: the run folder.
        datasets: of the run.
        methods: of the run.
        cache: of the run; None for its own, or the one that runs share by default.

    Raises:
        UsageError: where it is no run folder, or of a suite that this version does not know.
    """
    path = out / MANIFEST
    try:
        key = read_json(path)["key"]
        return RunConfig(
            methods=methods,
            datasets=datasets,
            concepts=None,
            suite=Suite.model_validate(key["suite"]),
            seed=key["seed"],
            device=key["device"],
            kernels=Kernels.parse({**_LEFT_OUT, **key}["kernels"]),
            out=out,
            cache=cache or cache_of(out),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "no run that can be read", where=str(path), mend="give the folder of a finished run"
        ) from error


@contextmanager
def claim_run_folder(config: RunConfig) -> Iterator[None]:
    """Hold the run folder for this process; its manifest is written the first time.

    A run that fails before it has kept anything leaves no folder behind.

    Raises:
        UsageError: where the folder cannot be written, belongs to another configuration, or is
            in use by another process.
    """
    check_run_folder(config)
    out = config.out
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    try:
        with hold(out):
            # Again, under the lock: another process may have written it since.
            check_run_folder(config)
            if not (out / MANIFEST).exists():
                write_json(out / MANIFEST, {"schema_version": _VERSION, "key": config.key()})
            yield
    finally:
        if made and {entry.name for entry in out.iterdir()} <= {MANIFEST, LOCK}:
            _remove(out, made)


@contextmanager
def hold(out: Path) -> Iterator[None]:
    """Keep other processes out of a run folder that is there.

    Raises:
        UsageError: where one is in it, or the folder cannot be written.
    """
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            "another process is running in this folder",
            where=str(out),
            mend="wait for it, or give another folder",
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot write: {error.strerror or error}", where=str(out), mend="give another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _remove(out: Path, made: list[Path]) -> None:
    """Take away what claiming the folder made; what somebody else has put there stays."""
    for name in (MANIFEST, LOCK):
        (out / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()


def _differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """One phrase a differing field; the suites' names alone where two suites differ."""
    flat_stored, flat_wanted = _flat(stored), _flat(wanted)
    if flat_stored.get("suite.name") != flat_wanted["suite.name"]:
        for flat in (flat_stored, flat_wanted):
            for name in [n for n in flat if n.startswith("suite.") and n != "suite.name"]:
                del flat[name]
    return [
        f"{name} {flat_stored.get(name)!r} there, {flat_wanted.get(name)!r} asked for"
        for name in sorted(flat_stored.keys() | flat_wanted.keys())
        if flat_stored.get(name) != flat_wanted.get(name)
    ]


def _flat(key: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in key.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            flat[name] = value
    return flat
