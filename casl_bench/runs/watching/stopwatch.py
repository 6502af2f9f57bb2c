"""How long each phase of a piece of work takes, and how many U-Net passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from casl_bench.runs.watching.phase_costs import PhaseCosts


class Stopwatch:
    """Seconds and passes a phase, for provenance.

    Args:
        costs: of the run, whose phases pay for the same blocks; None where nobody adds them up.

    Attributes:
        seconds: phase → wall time, phases within it included.
        passes: phase → U-Net passes that it paid for itself, in images; none where there were none.
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
