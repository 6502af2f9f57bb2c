"""U-Net passes of a run by phase, counted by forward hooks: nothing that runs is asked or trusted.

A phase is the last word of a task's description, as in "casl / hat: fit". The encoder half is
counted where the network's first convolution runs and the decoder half where its last one does, in
images; a batch that was filled up counts in full, since that is what was paid for. A copy of a
network takes the hooks along, so fine-tuned weights are counted too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from casl_bench.runs.watching.progress import SilentProgress

OUTSIDE = "outside any task"

_Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]


class CallPhases(SilentProgress):
    """A run's progress that also counts the passes of U-Nets by phase.

    Attributes:
        calls: phase → U-Net passes in images; a half counts 0.5.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self._phases = [OUTSIDE]

    @property
    def total(self) -> float:
        """Passes of all phases."""
        return float(sum(self.calls.values()))

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

    def _hook(self) -> _Hook:
        # A plain function: a copied network then shares it, while a bound method would be copied.
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.calls[self._phases[-1]] += len(output) / 2  # type: ignore[assignment]

        return hook

    def _open(self, description: str, total: int) -> None:
        self._phases.append(description.rpartition(": ")[2])

    def _end(self, description: str, done: int, total: int) -> None:
        self._phases.pop()
