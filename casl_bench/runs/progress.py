"""Progress with the time left: bars on a terminal, plain lines elsewhere.

A run is a sum of tasks whose work is estimated beforehand in one unit (U-Net calls in images), so
that the time left is that of the whole run and not of the bar at hand.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from tabulate import tabulate

from casl_bench.core.text import visible

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d import UNet2DModel
    from torch import Tensor, nn


OTHER = "other"
"""Phase of what belongs to no other: loading, planning, writing."""


@dataclass(frozen=True)
class PhaseCost:
    """U-Net passes in images (a half counts 0.5), and wall time of all processes together."""

    passes: float
    seconds: float


class PhaseCosts:
    """Counts U-Net passes (in images) and time by phase, from the moment it is made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.passes: defaultdict[str, float] = defaultdict(float)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._clock = clock
        self._phases: list[str | None] = [OTHER]
        self._since = clock()

    @property
    def total(self) -> float:
        """Passes of all phases."""
        return float(sum(self.passes.values()))

    @property
    def innermost(self) -> str:
        """The phase that is charged now."""
        return self._phases[-1] or OTHER

    @contextmanager
    def phase(self, name: str | None) -> Iterator[None]:
        """Charge the block to a phase; None where another process reports its cost."""
        self._settle()
        self._phases.append(name)
        try:
            yield
        finally:
            self._settle()
            self._phases.pop()

    @contextmanager
    def count(self, unet: UNet2DModel) -> Iterator[None]:
        """Count what passes through this network, and through copies made within the block."""

        # A plain function: a copied network then shares it, while a bound method would be copied.
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.passes[self.innermost] += len(output) / 2

        handles = [half.register_forward_hook(hook) for half in (unet.conv_in, unet.conv_out)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def by_phase(self) -> dict[str, PhaseCost]:
        """Phase → its cost so far, most passes first, then most time."""
        self._settle()
        found = {n: PhaseCost(self.passes.get(n, 0.0), s) for n, s in self._seconds.items()}
        return dict(sorted(found.items(), key=lambda x: (-x[1].passes, -x[1].seconds)))

    def add(self, costs: Mapping[str, PhaseCost]) -> None:
        """Add what another process has found by `by_phase`."""
        for name, cost in costs.items():
            self.passes[name] += cost.passes
            self._seconds[name] += cost.seconds

    def text(self) -> str:
        """A small table for people; one line where no pass was made."""
        costs, total = self.by_phase(), self.total
        if not total:
            return "no U-Net pass was made"
        rows = [
            (name, cost.passes, f"{cost.passes / total:.1%}", cost.seconds)
            for name, cost in costs.items()
        ]
        seconds = sum(cost.seconds for cost in costs.values())
        return tabulate(
            [*rows, ("all", total, "", seconds)],
            ("phase", "U-Net passes (images)", "share", "seconds"),
            floatfmt=("", ",.1f", "", ",.1f"),
            colalign=("left", "right", "right", "right"),
        )

    def _settle(self) -> None:
        now, phase = self._clock(), self._phases[-1]
        if phase is not None:
            self._seconds[phase] += now - self._since
        self._since = now


Advance = Callable[[int], None]
LINE_SECONDS = 15.0
"""At least this long between two plain lines of one task."""


class Progress:
    """Counts the work of a run; subclasses show it. Used as a context manager."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.costs = PhaseCosts(clock)
        self._started = clock()
        self._work_total = 0.0
        self._work_done = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def start(self, work: float) -> None:
        """Say how much work lies ahead, without what is done already. The clock starts here."""
        self._started = self._clock()
        self._work_total, self._work_done = work, 0.0

    @contextmanager
    def task(self, description: str, total: int, work: float = 0.0) -> Iterator[Advance]:
        """One stretch of work, such as "casl / smiling: fit", shown while it lasts.

        It has `total` steps and a share `work` of the run's work, in the unit of `start`. Yields a
        function to be called with the number of steps just done.
        """
        done = 0

        def advance(count: int = 1) -> None:
            nonlocal done
            count = min(count, total - done)
            done += count
            if total:
                self._work_done += work * count / total
            self._show(description, done, total)

        self._open(description, total)
        try:
            yield advance
            # A task may end early (a cached fit): what was estimated for it is no longer ahead.
            self._work_done += work * (1 - done / total) if total else work
        finally:
            self._end(description, done, total)

    def settle(self, work: float) -> None:
        """Say how much of the run's work is done by now, whatever its tasks have counted."""
        self._work_done = work

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end of the run; None before anything can be said."""
        if self._work_done <= 0 or self._work_total <= 0:
            return None
        left = max(self._work_total - self._work_done, 0.0)
        return (self._clock() - self._started) * left / self._work_done

    def note(self, line: str) -> None:
        """Show a line once."""

    def _open(self, description: str, total: int) -> None: ...

    def _show(self, description: str, done: int, total: int) -> None: ...

    def _end(self, description: str, done: int, total: int) -> None: ...

    def _close(self) -> None: ...


class SilentProgress(Progress):
    """Counts and shows nothing."""


class BufferedProgress(SilentProgress):
    """Shows nothing and keeps notes, for another process to show."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)


class LineProgress(Progress):
    """Plain lines, for logs: one as a task begins, then one every `LINE_SECONDS`."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream
        self._last = clock()

    def note(self, line: str) -> None:
        """Write the line."""
        print(visible(line), file=self._stream, flush=True)

    def _open(self, description: str, total: int) -> None:
        self._last = self._clock()
        self.note(f"{description} …{_left_words(self.seconds_left())}")

    def _show(self, description: str, done: int, total: int) -> None:
        if self._clock() - self._last >= LINE_SECONDS:
            self._last = self._clock()
            self.note(f"{description} {done}/{total}{_left_words(self.seconds_left())}")


class BarProgress(Progress):
    """Bars on a terminal: the run's above, the task's below."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._console = Console(file=stream)
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
        )
        self._run = self._bars.add_task("run", total=None, left="")
        self._task = self._bars.add_task("", total=None, left="", visible=False)
        self._bars.start()

    def start(self, work: float) -> None:
        """Say how much work lies ahead; the run's bar starts."""
        super().start(work)
        self._bars.reset(self._run, total=round(work))

    def note(self, line: str) -> None:
        """Write the line above the bars."""
        self._console.print(visible(line), markup=False, highlight=False)

    def _open(self, description: str, total: int) -> None:
        self._bars.reset(self._task, total=total, description=description, visible=True)

    def _show(self, description: str, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done)
        self._update_run()

    def _end(self, description: str, done: int, total: int) -> None:
        self._bars.update(self._task, visible=False)
        self._update_run()

    def _update_run(self) -> None:
        left = _left_words(self.seconds_left()).removeprefix(", ")
        self._bars.update(self._run, completed=round(self._work_done), left=left)

    def _close(self) -> None:
        self._bars.stop()


def open_progress(stream: TextIO | None = None) -> Progress:
    """Bars where the stream (stderr) is a terminal, plain lines elsewhere."""
    stream = sys.stderr if stream is None else stream
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)


def _left_words(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f", about {max(round(seconds), 1)} s left"
    return f", about {round(seconds / 60)} min left"


class Stopwatch:
    """Seconds and passes by phase, for provenance.

    The phases of `costs`, those of the run, are charged as well.

    Attributes:
        seconds: phase → wall time, phases within it included.
        passes: phase → U-Net passes charged to it alone, in images; none where there were none.
    """

    def __init__(self, costs: PhaseCosts | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.passes: dict[str, float] = {}
        self._costs = costs or PhaseCosts()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's cost to a phase."""
        passes = self._costs.passes
        started, before = time.monotonic(), passes[name]
        try:
            with self._costs.phase(name):
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
            if spent := passes[name] - before:
                self.passes[name] = self.passes.get(name, 0.0) + spent
