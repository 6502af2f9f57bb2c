"""Progress with the time left: bars on a terminal, plain lines elsewhere.

A run is a sum of tasks. How long each takes is known from earlier runs on this machine
(`runs.durations`); until there is one, time is taken to go with U-Net passes. A thread keeps the
bar moving, and lines coming, in phases that count nothing and while other processes work.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

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
        """One line: all passes and seconds, and the share of the costliest phases."""
        costs, total = self.by_phase(), self.total
        seconds = sum(cost.seconds for cost in costs.values())
        if not total:
            return "no U-Net pass was made"
        most = sorted(costs.items(), key=lambda x: -x[1].seconds)[:4]
        shares = ", ".join(f"{name} {cost.seconds / max(seconds, 1e-9):.0%}" for name, cost in most)
        return f"{total:,.0f} U-Net passes (images) in {seconds:,.0f} s of all processes: {shares}"

    def _settle(self) -> None:
        now, phase = self._clock(), self._phases[-1]
        if phase is not None:
            self._seconds[phase] += now - self._since
        self._since = now


Advance = Callable[[int], None]

BEAT_SECONDS = 4.0
"""A line is written at least this often for the first `EAGER_SECONDS`; a bar moves every second."""
EAGER_SECONDS = 600.0
LATER_SECONDS = 60.0
"""Between two lines after that: a log of hours stays readable."""


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        share: of its time that is over, in [0, 1]; None where that is not known.
        seconds_left: estimated; None likewise.
        running: what is being done now, in words.
    """

    share: float | None
    seconds_left: float | None
    running: tuple[str, ...] = ()


class Follows(Protocol):
    """Knows how far a run is."""

    def status(self) -> Status:
        """Now."""
        ...


class Progress:
    """Counts the work of a run; subclasses show it. Used as a context manager."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.costs = PhaseCosts(clock)
        self._started = clock()
        self._work_total = 0.0
        self._work_done = 0.0
        self._followed: Follows | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def start(self, work: float) -> None:
        """Say how much work lies ahead, without what is done already. The clock starts here."""
        self._started = self._clock()
        self._work_total, self._work_done = work, 0.0

    @contextmanager
    def following(self, run: Follows) -> Iterator[None]:
        """Ask `run` how far it is, within the block."""
        self._followed = run
        try:
            yield
        finally:
            self._followed = None

    @contextmanager
    def task(
        self, description: str, total: int, work: float = 0.0, unit: str = ""
    ) -> Iterator[Advance]:
        """One stretch of work, such as "casl / smiling: fit", shown while it lasts.

        It has `total` steps, called `unit`, and a share `work` of the run's work, in the unit of
        `start`. Yields a function to be called with the number of steps just done.
        """
        done = 0

        def advance(count: int = 1) -> None:
            nonlocal done
            count = min(count, total - done)
            done += count
            if total:
                self._work_done += work * count / total
            self._show(description, done, total, unit)

        self._open(description, total, unit)
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
        return self.status().seconds_left

    def status(self) -> Status:
        """How far the run is: by the time of earlier runs, or else by U-Net passes."""
        known = self._followed.status() if self._followed is not None else Status(None, None)
        if known.seconds_left is not None or self._work_done <= 0 or self._work_total <= 0:
            return known
        left = max(self._work_total - self._work_done, 0.0)
        seconds = (self._clock() - self._started) * left / self._work_done
        return Status(1 - left / self._work_total, seconds, known.running)

    def note(self, line: str) -> None:
        """Show a line once."""

    def _open(self, description: str, total: int, unit: str) -> None: ...

    def _show(self, description: str, done: int, total: int, unit: str) -> None: ...

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


class _Beating(Progress):
    """Calls `_beat` from a thread of its own, every `every` seconds, until it is closed."""

    every = 0.5

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beats, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def _beats(self) -> None:
        while not self._over.wait(self.every):
            # A stream that is gone, or a run that ends just now, is no reason to fail.
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                self._beat()

    def _beat(self) -> None: ...

    def _close(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()


class LineProgress(_Beating):
    """Plain lines, for logs: one as a task begins, then one whenever nothing was said for long."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream
        self._born = self._last = clock()
        self._now = ""

    def note(self, line: str) -> None:
        """Write the line."""
        self._last = self._clock()
        print(visible(line, keep="\n"), file=self._stream, flush=True)

    def _open(self, description: str, total: int, unit: str) -> None:
        self._now = description
        if total:  # of what counts nothing a line is written once it takes long
            self.note(f"{description} …{_left_words(self.seconds_left())}")

    def _show(self, description: str, done: int, total: int, unit: str) -> None:
        self._now = f"{description} {_count(done, total, unit)}"

    def _end(self, description: str, done: int, total: int) -> None:
        self._now = ""

    def _beat(self) -> None:
        now = self._clock()
        eager = now - self._born < EAGER_SECONDS
        if now - self._last < (BEAT_SECONDS if eager else LATER_SECONDS):
            return
        status = self.status()
        share = "" if status.share is None else f"{status.share:.0%}, "
        doing = self._now or ", ".join(status.running) or "working"
        elapsed = f"{now - self._started:.0f} s so far"
        self.note(f"{doing}: {share}{elapsed}{_left_words(status.seconds_left)}")


class BarProgress(_Beating):
    """Bars on a terminal: the run's above, the task's below."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._console = Console(file=stream)
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._run = self._bars.add_task("run", total=None, left="", count="")
        self._task = self._bars.add_task("", total=None, left="", count="", visible=False)
        self._bars.start()

    def note(self, line: str) -> None:
        """Write the line above the bars."""
        self._console.print(visible(line, keep="\n"), markup=False, highlight=False)

    def _open(self, description: str, total: int, unit: str) -> None:
        self._bars.reset(
            self._task, total=total or None, description=description, visible=True, left="",
            count=_count(0, total, unit),
        )  # fmt: skip

    def _show(self, description: str, done: int, total: int, unit: str) -> None:
        self._bars.update(self._task, completed=done, count=_count(done, total, unit))

    def _end(self, description: str, done: int, total: int) -> None:
        self._bars.update(self._task, visible=False)

    def _beat(self) -> None:
        status = self.status()
        left = _left_words(status.seconds_left).removeprefix(", ")
        share = status.share
        self._bars.update(
            self._run,
            description=", ".join(status.running)[:60] or "run",
            total=None if share is None else 1.0,
            completed=share or 0.0,
            count="" if share is None else f"{share:.0%}",
            left=left,
        )

    def _close(self) -> None:
        super()._close()
        self._bars.stop()


def open_progress(stream: TextIO | None = None) -> Progress:
    """Bars where the stream (stderr) is a terminal, plain lines elsewhere."""
    stream = sys.stderr if stream is None else stream
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)


def _count(done: int, total: int, unit: str) -> str:
    return f"{done:,}/{total:,} {unit}".rstrip() if total else ""


def _left_words(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f", about {max(round(seconds), 1)} s left"
    return f", about {round(seconds / 60)} min left"


class Stopwatch:
    """Seconds and passes by phase, for provenance; the phases of `costs` are charged as well.

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
