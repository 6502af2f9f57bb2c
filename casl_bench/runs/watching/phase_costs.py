"""What each phase of a run costs: U-Net passes, counted by forward hooks, and wall time.

Nothing that runs is asked or trusted. The encoder half is counted where the network's first
convolution runs and the decoder half where its last one does, in images; a batch that was filled up
counts in full, since that is what was paid for. A copy of a network takes the hooks along, so
fine-tuned weights are counted too. Of phases within each other the innermost one pays.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d import UNet2DModel
    from torch import Tensor, nn

OTHER = "other"
"""What lies in no phase: loading, planning, writing."""


@dataclass(frozen=True)
class PhaseCost:
    """What one phase has cost.

    Attributes:
        passes: U-Net passes in images; a half counts 0.5.
        seconds: wall time, of all processes together.
    """

    passes: float
    seconds: float


class PhaseCosts:
    """Counts passes and time by phase, from the moment it is made.

    Args:
        clock: seconds, monotonic (a test gives its own).

    Attributes:
        passes: phase → U-Net passes in images; a half counts 0.5.
    """

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
        """The phase that pays now."""
        return self._phases[-1] or OTHER

    @contextmanager
    def phase(self, name: str | None) -> Iterator[None]:
        """Have a phase pay for the block; None where others tell what it costs."""
        self._settle()
        self._phases.append(name)
        try:
            yield
        finally:
            self._settle()
            self._phases.pop()

    @contextmanager
    def count(self, *unets: UNet2DModel) -> Iterator[None]:
        """Count what passes through these networks, and through copies made within the block."""
        hook = self._hook()
        halves = [half for unet in unets for half in (unet.conv_in, unet.conv_out)]
        handles = [half.register_forward_hook(hook) for half in halves]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def by_phase(self) -> dict[str, PhaseCost]:
        """Phase → its cost so far, the dearest in passes first, then in time."""
        self._settle()
        found = {
            name: PhaseCost(self.passes.get(name, 0.0), seconds)
            for name, seconds in self._seconds.items()
        }
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

    def _hook(self) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        # A plain function: a copied network then shares it, while a bound method would be copied.
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.passes[self.innermost] += len(output) / 2

        return hook
