"""Per-image scores are the golden ones within 1e-5, or a version was raised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from casl_bench.core.errors import UsageError
from casl_bench.gate.exact import compare_exactly, difference, write_golden
from casl_bench.gate.gate import Scope
from casl_bench.gate.run_side import RunSide, read_side
from casl_bench.gate.verdict import Verdict
from casl_bench.results.score_table import ScoreTable
from tests.support.scored_run import MadeUpMethod

MakeRun = Callable[..., Path]
MakeSide = Callable[..., RunSide]
SOUND = {"casl": MadeUpMethod()}


@pytest.fixture
def table(make_side: MakeSide) -> ScoreTable:
    side = make_side("run", SOUND)
    return side.scores(side.edits["made_up", "casl"]["hat"][0])


def moved(table: ScoreTable, share: float) -> ScoreTable:
    """One score of one image moved by a share of itself."""
    logits = table.edit_logits.copy()
    largest = np.unravel_index(np.abs(logits).argmax(), logits.shape)
    logits[largest] *= 1 + share
    return replace(table, edit_logits=logits)


def test_a_score_may_move_by_its_last_digits_only(table: ScoreTable) -> None:
    assert difference(table, table) is None
    assert difference(table, moved(table, 5e-6)) is None
    assert difference(table, moved(table, 3e-5)) == "edit_logits differs by a relative 3.0e-05"


def test_a_logit_near_zero_is_measured_by_its_column(table: ScoreTable) -> None:
    logits = table.edit_logits.copy()
    logits[0, 0, 0, 1] = 0.0
    golden = replace(table, edit_logits=logits)
    logits[0, 0, 0, 1] = 1e-6
    assert difference(golden, replace(table, edit_logits=logits)) is None
    logits[0, 0, 0, 1] = 1e-3
    assert difference(golden, replace(table, edit_logits=logits)) is not None


def test_other_strengths_images_and_columns_are_told(table: ScoreTable) -> None:
    other = replace(table, strengths=(0.6,))
    assert difference(table, other) == "strengths 0.6 instead of 0.5"
    ids = (*table.image_ids[:-1], "another")
    assert difference(table, replace(table, image_ids=ids)) == "other image ids"
    identity = replace(table, identity=np.ones((1, len(table))))
    assert difference(table, identity) == "identity is there on one side only"


def test_a_golden_run_has_all_that_is_compared(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", SOUND)
    assert write_golden(run, tmp_path / "golden") == 7
    golden, head = read_side(tmp_path / "golden"), read_side(run)
    found = compare_exactly(golden, head, Scope())
    assert {c.method for c in found} == {"casl", "random_direction"}
    assert {c.verdict for c in found} == {Verdict.PASS}
    with pytest.raises(UsageError, match="not empty"):
        write_golden(run, tmp_path / "golden")


def test_numbers_move_only_with_a_version(make_run: MakeRun, make_side: MakeSide) -> None:
    golden = make_side("golden", SOUND)
    changed = {"casl": MadeUpMethod(damage=0.2001)}

    def casl(name: str, **changes: object) -> tuple[Verdict, str]:
        head = make_side(name, changed, changes=changes)
        found = {c.method: c for c in compare_exactly(golden, head, Scope())}
        return found["casl"].verdict, found["casl"].reason

    verdict, reason = casl("silent")
    assert verdict == Verdict.FAIL and "no version was raised (and 1 more)" in reason
    assert casl("method", method_version=2)[0] == Verdict.PASS
    assert casl("lowered", method_version=0)[0] == Verdict.FAIL
    assert casl("revision", dataset_revision="2")[0] == Verdict.NOT_COMPARABLE


def test_a_golden_cell_must_be_there(make_side: MakeSide) -> None:
    golden, head = make_side("golden", SOUND), make_side("head", {})
    found = {c.method: c for c in compare_exactly(golden, head, Scope())}
    assert found["casl"].verdict == Verdict.FAIL
    assert found["casl"].reason.startswith("missing: beard")
