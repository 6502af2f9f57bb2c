"""What a run shows: nothing silent for long, a bar that moves, a time learned from earlier runs."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from casl_bench.runs.durations import FILE, Durations, RunClock
from casl_bench.runs.progress import (
    BEAT_SECONDS,
    BarProgress,
    LineProgress,
    Status,
    open_progress,
)
from casl_bench.runs.tasks import Attempts, Task
from tests.support.tiny_suite import tiny_suite


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def waited(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_phase_that_counts_nothing_is_not_silent() -> None:
    clock, out = Clock(), io.StringIO()
    progress = LineProgress(out, clock)
    progress.every = 0.005
    with progress, progress.task("loading", 0):
        assert out.getvalue() == ""
        clock.now = BEAT_SECONDS
        assert waited(lambda: "loading: 4 s so far" in out.getvalue())
        clock.now = 2 * BEAT_SECONDS
        assert waited(lambda: out.getvalue().count("loading") == 2)
    assert BEAT_SECONDS < 5


def test_after_ten_minutes_lines_are_rare() -> None:
    clock, out = Clock(), io.StringIO()
    progress = LineProgress(out, clock)
    clock.now = 601
    progress._beat()
    for clock.now in range(602, 650):
        progress._beat()
    assert out.getvalue().count("\n") == 1


def test_lines_say_count_unit_share_and_time_left() -> None:
    clock, out = Clock(), io.StringIO()
    progress = LineProgress(out, clock)
    progress.start(100.0)
    with progress.task("test: inversion", 10, 100.0, "images") as advance:
        clock.now = 6
        advance(4)
        progress._beat()
    assert out.getvalue().splitlines()[-1] == (
        "test: inversion 4/10 images: 40%, 6 s so far, about 9 s left"
    )


def test_a_bar_moves_while_nothing_is_counted() -> None:
    progress = BarProgress(io.StringIO())
    seen = iter([0.1, 0.2])

    class Run:
        def status(self) -> Status:
            return Status(next(seen), 30.0, ("faces / hat / casl (3 s)",))

    with progress.following(Run()):
        places = []
        for _ in range(2):
            progress._beat()
            places.append(progress._bars.tasks[0].completed)
        fields = progress._bars.tasks[0]
        assert places == [0.1, 0.2]
        assert fields.fields["count"] == "20%" and fields.fields["left"] == "about 30 s left"
        assert fields.description.startswith("faces / hat / casl")
    progress._bars.stop()


def test_lines_where_the_stream_is_no_terminal() -> None:
    assert isinstance(open_progress(io.StringIO()), LineProgress)


# How long tasks take ----------------------------------------------------------------

SUITE = tiny_suite()
INVERSION, SCORERS = Task("inversions", "toy", "train"), Task("dataset", "toy", "scorers")


def test_the_time_of_a_task_is_learned_and_kept(tmp_path: Path) -> None:
    known = Durations(tmp_path)
    assert known.seconds(SUITE, INVERSION, 0.0) is None
    known.note(SUITE, INVERSION, 0.0, 40.0)
    known.save()
    again = Durations(tmp_path)
    assert again.seconds(SUITE, INVERSION, 0.0) == 40.0
    # Of another data set it is a first guess; of another kind of task none.
    assert again.seconds(SUITE, replace(INVERSION, dataset="other"), 0.0) == 40.0
    assert again.seconds(SUITE, SCORERS, 0.0) is None


def test_what_came_from_the_cache_teaches_nothing(tmp_path: Path) -> None:
    known = Durations(tmp_path)
    known.note(SUITE, INVERSION, 0.0, 40.0)
    known.note(SUITE, INVERSION, 0.0, 0.1)
    assert known.seconds(SUITE, INVERSION, 0.0) == 40.0
    known.note(SUITE, INVERSION, 0.0, 30.0)
    assert known.seconds(SUITE, INVERSION, 0.0) == 35.0


@pytest.mark.parametrize("content", ["", "[]", '{"x": "y"}', "\0"])
def test_a_damaged_file_of_times_is_no_fault(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content, encoding="utf-8")
    assert Durations(tmp_path).seconds(SUITE, INVERSION, 0.0) is None


def test_the_share_moves_with_time_and_waits_for_what_takes_longer(tmp_path: Path) -> None:
    clock = Clock()
    expected = {INVERSION.name: 10.0, SCORERS.name: 30.0}
    run = RunClock([INVERSION, SCORERS], expected, 1, None, clock)
    assert run.status() == Status(0.0, 40.0, ("toy / inversion of train images (0 s)",))
    clock.now = 5.0
    assert run.status().share == pytest.approx(5 / 40)
    clock.now = 100.0
    assert run.status().share == pytest.approx(9.5 / 40)  # one that is late is not over
    assert run.end(INVERSION.name) == 100.0
    clock.now = 115.0
    assert run.status() == Status(25 / 40, 15.0, ("toy / scorers (15 s)",))


def test_what_other_processes_do_is_read_off_their_marks(tmp_path: Path) -> None:
    clock, attempts = Clock(), Attempts(tmp_path)
    run = RunClock(
        [INVERSION, SCORERS], {INVERSION.name: None, SCORERS.name: 1.0}, 2, attempts, clock
    )
    with attempts.begun(SCORERS.key):
        run.status()
        clock.now = 7.0
        status = run.status()
    assert status.running == ("toy / scorers (7 s)",)
    assert status.share is None and status.seconds_left is None  # one of them was never run
    assert run.end(SCORERS.name) == 7.0
