"""What each setting of `--kernels` is worth on this very device: time a pass, how far eps moves.

A probe informs; it never chooses. Its times depend on what else the machine does, and numbers must
not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from casl_bench.core.errors import UsageError
from casl_bench.models.backbone import Backbone, CallCounter, Kernels

TOLERANCE = 0.005
"""Largest deviation of eps, relative to its largest, that a setting may have. Choice: two and a
half roundings of a bfloat16 number (2**-9 each); rounding explains that, a fault gives more."""

GAIN = 0.10
"""A setting pays from this share of time saved on."""

_TIMESTEP = 500
_REPETITIONS = 5
_HOPELESS = 2.0
"""What takes so many times as long as the reference is not passed again."""


@dataclass(frozen=True)
class Probed:
    """What one setting came to.

    Attributes:
        kernels: the setting.
        ms: milliseconds a whole pass of one micro-batch, the least of several, of all threads
            together on a CPU; NaN if refused.
        deviation: max |eps - eps of the reference| / max |eps of the reference|; NaN if refused.
        refusal: why it cannot be done here; empty where it can.
    """

    kernels: Kernels
    ms: float = math.nan
    deviation: float = math.nan
    refusal: str = ""

    def pays(self, reference: Probed) -> bool:
        """Whether it saves time enough, and moves eps little enough."""
        return self.ms <= (1 - GAIN) * reference.ms and self.deviation <= TOLERANCE


def probe(
    backbone: Backbone,
    settings: Sequence[Kernels],
    seconds: float = 10.0,
    clock: Callable[[], float] | None = None,
) -> list[Probed]:
    """Time each setting beside the reference, which comes first.

    Settings take turns, so that a disturbance of the machine meets all of them.

    Args:
        backbone: of the reference; it is left as it is.
        settings: others to be tried.
        seconds: wall time after each has had its first pass; no further one begins after so long.
        clock: seconds, monotonic. Default: on a CPU processor time, which other work on the
            machine disturbs less; elsewhere wall time.
    """
    if clock is None:
        clock = time.process_time if backbone.device.type == "cpu" else time.perf_counter
    x_t = _noise(backbone)
    expected = backbone.eps(x_t, _TIMESTEP)  # and warms up what all share
    found = {k: _Trial(backbone, k, x_t, expected, clock) for k in (Kernels(), *settings)}
    reference, started = found[Kernels()], time.perf_counter()
    for _ in range(_REPETITIONS - 1):
        for trial in found.values():
            in_question = trial.probed.ms <= _HOPELESS * reference.probed.ms
            if in_question and time.perf_counter() - started < seconds:
                trial.again()
    return [trial.probed for trial in found.values()]


class _Trial:
    """One setting: its first pass, and as many more as there is time for."""

    def __init__(
        self,
        backbone: Backbone,
        kernels: Kernels,
        x_t: Tensor,
        expected: Tensor,
        clock: Callable[[], float],
    ) -> None:
        self._x_t, self._clock = x_t, clock
        try:
            self._backbone = _like(backbone, kernels)
            if kernels.compiled:
                self._timed()  # code is made on the first pass
            ms, eps = self._timed()
        except UsageError as error:
            self.probed = Probed(kernels, refusal=error.what)
        except Exception as error:  # noqa: BLE001 - a compiler may fail in any way
            self.probed = Probed(kernels, refusal=_one_line(error))
        else:
            deviation = float((eps - expected).abs().max() / expected.abs().max())
            self.probed = Probed(kernels, ms, deviation)

    def again(self) -> None:
        """Keep the least time."""
        ms, _ = self._timed()
        self.probed = replace(self.probed, ms=min(ms, self.probed.ms))

    def _timed(self) -> tuple[float, Tensor]:
        start = self._clock()
        eps = self._backbone.eps(self._x_t, _TIMESTEP)
        eps.flatten()[0].item()  # waits for the device
        return 1e3 * (self._clock() - start), eps


def recommended(found: Sequence[Probed]) -> Kernels:
    """The fastest setting that pays; the reference, which is the first, where none does."""
    reference = found[0]
    paying = [row for row in found[1:] if row.pays(reference)]
    return min(paying, key=lambda row: row.ms, default=reference).kernels


def _like(backbone: Backbone, kernels: Kernels) -> Backbone:
    """A copy that runs otherwise, and counts for itself."""
    twin = backbone.twin()
    twin.calls = CallCounter()
    return twin.use(kernels)


def _noise(backbone: Backbone) -> Tensor:
    """[micro-batch, 3, H, W]: what x_T looks like."""
    shape = (backbone.micro_batch, 3, backbone.image_size, backbone.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(backbone.device)


def _one_line(error: Exception) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line.strip()}"[:120]
