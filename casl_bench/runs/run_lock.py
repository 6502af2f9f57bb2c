"""One configuration per run folder, and one process at a time in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from casl_bench.cache.code_hash import PACKAGE, environment
from casl_bench.cache.store import default_cache
from casl_bench.core.errors import UsageError
from casl_bench.core.files import (
    PARTIAL,
    clear_partial,
    hash_json,
    make_folder,
    read_json,
    regular,
    unwritable,
    write_json,
    write_text,
)
from casl_bench.core.registry import baselines_folder
from casl_bench.results.run_folder import SUMMARY_FILE
from casl_bench.runs.suites import (
    DEFAULT_SAE,
    RunConfig,
    Shard,
    Suite,
    default_out,
    domain_kind_of_suite,
)

MANIFEST = "manifest.json"
LOCK = ".lock"
FINISHED = "finished"
"""File of a run folder: a hash of the command that has finished in it and of what it left."""

_VERSION = 1


def check_run_folder(config: RunConfig) -> None:
    """Refuse, with a UsageError, a folder that holds another run, or other things. Reads only."""
    _check(config.out, config.key(), "run with that configuration")


def key_of_run(run: Path) -> dict[str, Any]:
    """What all records of a run folder have in common; UsageError where it is none."""
    try:
        key = read_json(run / MANIFEST)["key"]
        if not isinstance(key, dict):
            raise TypeError
        return key
    except (OSError, ValueError, KeyError, TypeError) as error:
        fault = "no run whose manifest can be read"
        raise UsageError(fault, where=str(run), hint="give another folder") from error


def _check(out: Path, key: Mapping[str, Any], otherwise: str) -> None:
    try:
        if not out.exists():
            return
        if not out.is_dir():
            raise UsageError("--out is not a folder", where=str(out), hint="give a folder")
        if not (out / MANIFEST).is_file():
            # A comparison that fails leaves its report beside a run that never was.
            others = {entry.name for entry in out.iterdir()} - {LOCK, "gate"}
            if any(not name.startswith(PARTIAL) for name in others):
                raise UsageError(
                    "the folder is not empty and holds no run",
                    where=str(out),
                    hint="give --out a new folder",
                )
            return
    except OSError as error:
        raise unwritable(out, error, "choose another folder", "use --out") from error
    if found := differences(key_of_run(out), key):
        raise UsageError(
            f"the run folder was made with another configuration: {', '.join(found)}",
            where=str(out),
            hint=f"give another folder, or {otherwise}",
        )


def config_of_run(
    out: Path,
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    cache: Path | None = None,
) -> RunConfig:
    """The configuration of a run folder, for what reads it later; UsageError where it is none."""
    key = key_of_run(out)
    try:
        return RunConfig(
            methods=methods,
            datasets=datasets,
            concepts=None,
            suite=Suite.model_validate(key["suite"]),
            seed=key["seed"],
            device=key["device"],
            sae=key.get("sae", [DEFAULT_SAE, None])[0],
            sae_hash=key.get("sae", [DEFAULT_SAE, None])[1],
            out=out,
            cache=cache or default_cache(),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "no run of this version", where=str(out), hint="give the folder of a finished run"
        ) from error


@dataclass(frozen=True)
class FinishedCommand:
    """Lets a finished command answer from its folder when it is given again, without torch.

    It is recognised by its options (as text), the libraries, and names, sizes and dates of the
    package's files and of all results. Whatever differs, the command runs as usual.
    """

    out: Path
    asked: Mapping[str, str]

    @classmethod
    def of(
        cls,
        asked: Mapping[str, str],
        out: Path | None,
        suite: str,
        datasets: Sequence[str],
        seed: int,
        shard: Shard | None,
    ) -> FinishedCommand | None:
        """None where files take part that are not compared: photographs, installed plugins."""
        rendered = sorted(path.name for path in (PACKAGE / "domains" / "assets").iterdir())
        every = rendered if domain_kind_of_suite(suite) == "synth" else [""]
        named = dict.fromkeys(n for d in datasets for n in (every if d == "all" else [d]))
        plugins = any(group.startswith("casl_bench.") for group in entry_points().groups)
        if plugins or not named.keys() <= set(rendered):
            return None
        return cls(out or default_out(tuple(named), suite, seed, shard), asked)

    @property
    def table(self) -> str:
        """What the command printed; empty for a shard."""
        path = self.out / SUMMARY_FILE
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def is_current(self) -> bool:
        """Whether this command has finished here and nothing changed since."""
        try:
            return regular(self.out / FINISHED).read_text(encoding="utf-8") == self._stamp()
        except OSError:
            return False

    def write(self) -> None:
        """Note that the command has finished, all of it."""
        write_text(self.out / FINISHED, self._stamp())

    def _stamp(self) -> str:
        folders = [PACKAGE, baselines_folder()]
        folders += [path for path in self.out.iterdir() if path.name not in (FINISHED, LOCK)]
        files = (f for top in folders for f in (top.rglob("*") if top.is_dir() else [top]))
        return hash_json(
            [
                dict(self.asked),
                dict(environment()),
                sorted(
                    [str(f), f.stat().st_size, f.stat().st_mtime_ns]
                    for f in files
                    if f.is_file() and "__pycache__" not in f.parts
                ),
            ]
        )


def claim_run_folder(config: RunConfig) -> AbstractContextManager[None]:
    """Hold the run folder for this process; its manifest is written the first time.

    A run that fails before it has kept anything leaves no folder behind, or an empty one that was
    there before. Raises UsageError where the folder cannot be written, belongs to another
    configuration, or is in use by another process.
    """
    return claim_folder(config.out, config.key(), "run with that configuration")


@contextmanager
def claim_folder(out: Path, key: Mapping[str, Any], otherwise: str) -> Iterator[None]:
    """`claim_run_folder` by the key of its records; `otherwise` is a hint for the user."""
    _check(out, key, otherwise)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    is_new = not (out / MANIFEST).exists()
    make_folder(out)
    try:
        with _hold(out):
            # Again, under the lock: another process may have written it since.
            _check(out, key, otherwise)
            clear_partial(out)
            if not (out / MANIFEST).exists():
                write_json(out / MANIFEST, {"schema_version": _VERSION, "key": dict(key)})
            yield
    finally:
        for folder in [*out.glob("scratch/*"), out / "scratch"]:
            with contextlib.suppress(OSError):  # what a fit goes on from stays
                folder.rmdir()
        if is_new and {entry.name for entry in out.iterdir()} <= {MANIFEST, LOCK}:
            for name in (MANIFEST, LOCK):
                (out / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # files of others stay
                for folder in made:
                    folder.rmdir()


@contextmanager
def _hold(out: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; UsageError where one is in it."""
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            "another process is running in this folder",
            where=str(out),
            hint="wait for it, or give another folder",
        ) from error
    except OSError as error:
        raise unwritable(out, error) from error
    try:
        yield
    finally:
        lock.release()


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One phrase per field in which two keys differ; of two suites their names alone."""
    flat_stored, flat_wanted = _flat(stored), _flat(wanted)
    if flat_stored.get("suite.name") != flat_wanted.get("suite.name"):
        for flat in (flat_stored, flat_wanted):
            for name in [n for n in flat if n.startswith("suite.") and n != "suite.name"]:
                del flat[name]
    return [
        f"{name} {flat_stored.get(name)!r} there, {flat_wanted.get(name)!r} asked for"
        for name in sorted(flat_stored.keys() | flat_wanted.keys())
        if flat_stored.get(name) != flat_wanted.get(name)
    ]


def _flat(key: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in key.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            flat[name] = value
    return flat
