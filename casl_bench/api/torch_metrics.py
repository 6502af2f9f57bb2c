"""EPR and its relatives as `torchmetrics.Metric`, for training loops. Needs the extra `metrics`.

Each is updated with logits before and after an edit, [n, A], and computes over all of them, in any
number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from casl_bench.core.errors import UsageError
from casl_bench.pairs import scores

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise UsageError(
        "these metrics need the package torchmetrics", hint="pip install 'casl-bench[metrics]'"
    ) from error


class _EditMetric(Metric):
    """Keeps all logits, since a ratio of means is no mean of ratios."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    base: list[Tensor]
    edit: list[Tensor]

    def __init__(self, target: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.target = target
        for name in ("base", "edit"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, base_logits: Tensor, edit_logits: Tensor) -> None:
        """Add n images: their logits [n, A] before and after the edit."""
        self.base.append(base_logits.detach())
        self.edit.append(edit_logits.detach())

    def _of(self, function: Callable[..., float], **options: Any) -> Tensor:
        base, edit = (dim_zero_cat(x).cpu().double().numpy() for x in (self.base, self.edit))
        return torch.tensor(function(base, edit, self.target, **options))


class EditingPrecisionRatio(_EditMetric):
    """`casl_bench.epr`: the target's mean absolute change over that of the others."""

    def compute(self) -> Tensor:
        """A scalar; NaN where it is undefined."""
        return self._of(scores.epr)


class SignedEditingPrecisionRatio(_EditMetric):
    """`casl_bench.signed_epr`; `spread` [A] as there."""

    def __init__(
        self,
        target: int,
        spread: Sequence[float] | None = None,
        remove: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(target, **settings)
        self.spread, self.remove = spread, remove

    def compute(self) -> Tensor:
        """A scalar; NaN where it is undefined."""
        return self._of(scores.signed_epr, spread=self.spread, remove=self.remove)


class FlipRate(_EditMetric):
    """`casl_bench.flip_rate`: of the images without the attribute, the share that gained it."""

    def __init__(self, target: int, remove: bool = False, **settings: Any) -> None:
        super().__init__(target, **settings)
        self.remove = remove

    def compute(self) -> Tensor:
        """A scalar in [0, 1]; NaN where every image had the attribute."""
        return self._of(scores.flip_rate, remove=self.remove)


class PreciseEditRate(_EditMetric):
    """`casl_bench.precise_edit_rate`; `tolerance` and `spread` as there."""

    def __init__(
        self,
        target: int,
        tolerance: float = scores.TOLERANCE,
        spread: Sequence[float] | None = None,
        remove: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(target, **settings)
        self.tolerance, self.spread, self.remove = tolerance, spread, remove

    def compute(self) -> Tensor:
        """A scalar in [0, 1]; NaN where every image had the attribute."""
        return self._of(
            scores.precise_edit_rate,
            tolerance=self.tolerance,
            spread=self.spread,
            remove=self.remove,
        )
