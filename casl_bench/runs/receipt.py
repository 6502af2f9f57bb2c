"""A finished run knows its own command again, and answers at once from its folder.

What could make the command do something is compared by content: what it asks for, the package with
its models and entrants, the libraries, and every result in the folder. Nothing of that needs torch
or a network. Only drawn data sets have a receipt, whose models are shipped with the package; a
plugin, an installed entrant and a user's own weights may depend on what nobody sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from casl_bench.cache.code_hash import PACKAGE, environment
from casl_bench.core.files import hash_file, hash_json, read_json, write_json
from casl_bench.core.registry import baselines_folder
from casl_bench.results.provenance import git_state
from casl_bench.runs.run_lock import MANIFEST, PLAN_FILE
from casl_bench.runs.suites import Shard, Suite, default_out, world_of_suite

RECEIPT = "receipt.json"
RESULTS = (MANIFEST, PLAN_FILE, "records.jsonl", "table.md", "cells", "pictures")
"""What a run leaves in its folder."""

_MODELS = PACKAGE / "worlds" / "assets"
_OF_NO_CONSEQUENCE = frozenset({"data_root", "weights_root", "on_bad_image", "allow_download"})
"""Options of the real world that a drawn one passes over."""


@dataclass(frozen=True)
class Receipt:
    """What a finished run leaves for the same command.

    Attributes:
        out: the run folder.
        command: everything that decides what is run.
    """

    out: Path
    command: Mapping[str, JsonValue]

    def write(self) -> None:
        """Say that the command is done, all of it.

        Raises:
            UsageError: where the folder cannot be written.
        """
        write_json(self.out / RECEIPT, self._content())

    def is_there(self) -> bool:
        """Whether the folder holds this very command's results, and nothing changed since."""
        try:
            return bool(read_json(self.out / RECEIPT) == self._content())
        except (OSError, ValueError):
            return False

    @property
    def table(self) -> str:
        """What the command has printed; a part without a cell has printed nothing."""
        path = self.out / "table.md"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def _content(self) -> dict[str, str]:
        """One hash of each thing that is compared."""
        return {
            "command": hash_json(dict(self.command)),
            "code and models": _hash_of([PACKAGE, baselines_folder()]),
            "environment": hash_json(dict(environment())),
            "results": _hash_of(self.out / name for name in RESULTS),
        }


def receipt_of(
    suite: Suite,
    datasets: Sequence[str],
    out: Path | None,
    seed: int,
    plugins: Sequence[Path],
    real: Mapping[str, Any],
    shard: Shard | None = None,
    **rest: JsonValue,
) -> Receipt | None:
    """The receipt of a command as parsed; None where it may depend on what no receipt compares.

    Args:
        suite: of the run.
        datasets: as asked for.
        out: as asked for.
        seed: of the run.
        plugins: files of the user's.
        real: options of the real world.
        shard: the part that is run.
        rest: all else that decides what is run.
    """
    names = _drawn(datasets, suite)
    given = [name for name, value in real.items() if value and name not in _OF_NO_CONSEQUENCE]
    strangers = [g for g in entry_points().groups if g.startswith("casl_bench.")]
    if names is None or plugins or given or strangers:
        return None
    command: dict[str, JsonValue] = {
        **rest, "suite": suite.model_dump(mode="json"), "datasets": [*names], "seed": seed,
    }  # fmt: skip
    if shard is not None:
        # Parts of different commits are not joined, whatever the commit has changed.
        command |= {"shard": str(shard), "commit": git_state(PACKAGE)[0]}
    return Receipt(out or default_out(names, suite.name, seed, shard), command)


def _drawn(datasets: Sequence[str], suite: Suite) -> tuple[str, ...] | None:
    """Names of drawn data sets, "all" written out; None if one is not drawn."""
    known = sorted(path.name for path in _MODELS.iterdir())
    of_all = known if world_of_suite(suite.name) == "synth" else [""]
    names = dict.fromkeys(n for name in datasets for n in (of_all if name == "all" else [name]))
    return tuple(names) if names.keys() <= set(known) else None


def _hash_of(places: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of all files of some folders, hex."""
    digest = hashlib.sha256()
    for place in places:
        paths = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in paths:
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(place.parent).as_posix()
                digest.update(f"{name}|{hash_file(path)}|".encode())
    return digest.hexdigest()
