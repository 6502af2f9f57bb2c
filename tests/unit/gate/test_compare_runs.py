"""Base and head of one job: run, gated, extended once, and told whatever happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.gate import compare_runs as module
from casl_bench.gate.compare_runs import (
    GateOptions,
    HeadRun,
    NoBaseError,
    compare_runs,
    without_own,
)
from casl_bench.gate.gate import Scope
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

COMMIT = "c" * 40
SOUND = MadeUpMethod()
LOUD = MadeUpMethod(fit_sd=0.4)
STOCHASTIC = GateOptions(scope=Scope(stochastic=frozenset({"casl"})))


@dataclass
class Base:
    """Stands for a commit: its runs are made up."""

    method: MadeUpMethod
    commit: str = COMMIT
    has_own_package: bool = True
    says: str = COMMIT
    missing: bool = False
    calls: list[list[str]] = field(default_factory=list)

    def run(self, arguments: Sequence[str], path_options: frozenset[str]) -> None:
        if self.missing:
            raise NoBaseError("mine.py is not in cccc")
        self.calls.append(list(arguments))
        out, fits = arguments[-3], int(arguments[-1])
        made = MadeUpRun({"casl": self.method}, fits=fits, commit=self.says)
        write_made_up_run(Path(out), made)


Compare = Callable[..., int]


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compare:
    """(base, method of the head) → exit code; `fits_run` are the head's calls."""

    def make(
        base: Base | Path, head: MadeUpMethod, code: int = 0, fits_run: list[int] | None = None,
        options: GateOptions | None = None,
    ) -> int:  # fmt: skip
        @contextmanager
        def opened(name: str, here: Path) -> Iterator[Base]:
            assert isinstance(base, Base) and name == "main"
            yield base

        def run(fits: int) -> int:
            if fits_run is not None:
                fits_run.append(fits)
            write_made_up_run(tmp_path / "run", MadeUpRun({"casl": head}, fits=fits))
            return code

        monkeypatch.setattr(module, "base_revision", opened)
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
        arguments = ("--methods", "casl", "--compare", "main", "--out", "run", "--quick")
        own = HeadRun(arguments, frozenset(), tmp_path / "run", 1, run)
        name = "main" if isinstance(base, Base) else str(base)
        return compare_runs(name, own, options or GateOptions(), tmp_path, lambda line: None)

    return make


def told(tmp_path: Path) -> dict[str, object]:
    text = (tmp_path / "run" / "gate" / "gate.json").read_text(encoding="utf-8")
    found: dict[str, object] = json.loads(text)
    return found


def test_what_is_clear_is_run_once(compare: Compare, tmp_path: Path) -> None:
    base, fits_run = Base(SOUND), []
    assert compare(base, SOUND, fits_run=fits_run) == 0
    out = str((tmp_path / f"run-base-{COMMIT[:12]}").absolute())
    assert base.calls == [["--methods", "casl", "--quick", "--out", out, "--fit-seeds", "1"]]
    assert fits_run == [1]
    assert compare(Base(SOUND), MadeUpMethod(damage=0.3)) == 1


def test_what_is_not_is_extended_once_with_fresh_fits(compare: Compare, tmp_path: Path) -> None:
    base, fits_run = Base(LOUD), []
    assert compare(base, replace(LOUD, luck=1), fits_run=fits_run, options=STOCHASTIC) == 4
    assert fits_run == [1, 5]
    assert [call[-1] for call in base.calls] == ["1", "5"]
    assert told(tmp_path)["notes"] == ["Extended once, from 1 to 5 fits."]


def test_a_folder_is_extended_as_far_as_it_has_fits(compare: Compare, tmp_path: Path) -> None:
    for fits, expected in ((1, [1]), (5, [1, 5])):
        fits_run: list[int] = []
        folder = tmp_path / f"base{fits}"
        write_made_up_run(folder, MadeUpRun({"casl": LOUD}, fits=fits))
        assert compare(folder, replace(LOUD, luck=1), fits_run=fits_run, options=STOCHASTIC) == 4
        assert fits_run == expected


def test_a_first_run_is_told(compare: Compare, tmp_path: Path) -> None:
    assert compare(Base(SOUND, missing=True), SOUND) == 4
    assert "first run, mine.py is not in cccc (exit 4)" in str(told(tmp_path)["headline"])
    allowed = GateOptions(allow_missing_base=True)
    assert compare(Base(SOUND, missing=True), SOUND, options=allowed) == 0


def test_cells_of_the_head_that_failed_are_not_green(compare: Compare) -> None:
    assert compare(Base(SOUND), SOUND, code=3) == 3


def test_a_base_run_by_other_code_compares_nothing(compare: Compare, tmp_path: Path) -> None:
    with pytest.raises(InvalidBenchmarkError, match="not run by its own code"):
        compare(Base(SOUND, says="d" * 40), SOUND)
    assert told(tmp_path)["exit_code"] == 5
    assert "no verdict" in (tmp_path / "run" / "gate" / "summary.md").read_text(encoding="utf-8")


def test_only_the_commands_own_options_are_left_out() -> None:
    arguments = ["--compare=main", "--out", "x", "--methods", "casl", "--fit-seeds=5", "--quick"]
    assert without_own(arguments) == ["--methods", "casl", "--quick"]
