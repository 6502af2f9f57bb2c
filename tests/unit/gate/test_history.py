"""What single gates let through adds up in the history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.gate.history import HistoryLine, accept, find_steps, read_history, trends
from casl_bench.gate.trend_plot import write_trend_plot
from casl_bench.gate.verdict import CellVerdict, GateReport, SideInfo, Verdict


def report(commit: str, value: float = 5.0, *, code: int = 0, dirty: bool = False) -> GateReport:
    cell = CellVerdict(
        dataset="faces", method="casl", verdict=Verdict.PASS, reason="why", head=value
    )
    head = SideInfo(where="head", commit=commit, dirty=dirty, suite="standard v3")
    return GateReport(tier="statistical", exit_code=code, headline="x", head=head, cells=(cell,))


def lines(values: list[float], suite: str = "standard v3") -> list[HistoryLine]:
    return [
        HistoryLine(commit=f"{i:040d}", suite=suite, precision={"faces/casl": v})
        for i, v in enumerate(values)
    ]


def test_accepted_runs_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    accept(path, report("a", 5.0))
    accept(path, report("b", 4.9))
    assert [(x.commit, x.precision) for x in read_history(path)] == [
        ("a", {"faces/casl": 5.0}), ("b", {"faces/casl": 4.9}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (report("b", code=1), "only a run that passed"),
        (report("b", code=4), "only a run that passed"),
        (report("b", dirty=True), "uncommitted changes"),
        (report("a"), "the last line already"),
    ],
)
def test_nothing_else_is(tmp_path: Path, refused: GateReport, said: str) -> None:
    path = tmp_path / "history.jsonl"
    accept(path, report("a"))
    before = path.read_bytes()
    with pytest.raises(UsageError, match=said):
        accept(path, refused)
    assert path.read_bytes() == before


def test_a_damaged_history_is_told(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"commit": 1}\n', encoding="utf-8")
    with pytest.raises(InvalidBenchmarkError, match=r"history\.jsonl:1"):
        read_history(path)


def test_steps_are_found_and_noise_is_none() -> None:
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal(24)
    assert find_steps(noise) == ()
    assert find_steps(noise - 0.08 * (np.arange(24) >= 10)) == (10,)
    assert find_steps(np.ones(24)) == () and find_steps(noise[:3] - [0, 0, 9]) == ()


def test_a_slow_drift_that_passes_every_gate_is_told() -> None:
    values = [5.0 * 0.97**k for k in range(12)]
    (trend,) = trends([*lines([50.0], "standard v2"), *lines(values)])
    assert len(trend.precision) == 12 and trend.steps
    assert trend.drift < np.log(0.85)


def test_the_picture_is_the_same_every_time(tmp_path: Path) -> None:
    found = trends(lines([5.0, 5.1, 4.0, 4.1, 4.05]))
    for name in ("a.svg", "b.svg"):
        write_trend_plot(found, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    write_trend_plot(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
