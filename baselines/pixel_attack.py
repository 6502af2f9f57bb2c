"""Control: an adversarial attack on one classifier. Nothing is edited that anybody can see.

Pixels move by a few grey levels so that the primary classifier sees the target and
nothing else change. It is to win the published EPR by that classifier and to fail by any other:
what is optimised against a scorer must not be scored by it alone.

Source: projected signed gradient ascent, Madry et al., "Towards deep learning models resistant to
adversarial attacks", ICLR 2018, with the momentum of Dong et al., "Boosting adversarial attacks
with momentum", CVPR 2018. Choices of ours: what is climbed is the target's logit less a penalty on
the mean change of the others, which is numerator less denominator of EPR in the logits' own units;
steps shrink linearly; logits and slope are taken at whole grey levels, so that what was found
survives the rounding of stored images; and the best of all steps is kept.
"""

from __future__ import annotations

from math import copysign
from typing import ClassVar

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import (
    EditTask,
    MethodConfig,
    MethodInfo,
    UnfittedMethod,
    register_method,
)
from casl_bench.methods.pixel_editor import PixelEdit, PixelEditor
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.scorers import Differentiable

HALF_RANGE = 127.5
"""Grey levels from -1 to 0."""


class PixelAttackConfig(MethodConfig):
    """Settings of the attack."""

    epsilon: int = 8  # largest change of a value at strength 1, in grey levels of 255
    steps: int = 20  # of the ascent
    penalty: float = 4.0  # what a change of the others' logits costs, per change of the target's
    # Share of earlier slopes in a step; without it steps jump over the penalty's kinks
    momentum: float = 0.8


class PixelAttackEditor(PixelEditor):
    """Attacks one logit of a classifier, image by image."""

    def __init__(self, scorer: Differentiable, attribute: str, config: PixelAttackConfig) -> None:
        """Keep the classifier and the attribute that it is to see."""
        self._scorer, self._config = scorer, config
        self._target = scorer.attributes.index(attribute)

    def prepare(self, inversions: Inversions) -> PixelEdit:
        """The reconstruction in whole grey levels, attacked within strength · epsilon of them.

        A negative strength lowers the logit. What is within half a grey level is not moved.
        """
        levels = ((inversions.reconstruction.clamp(-1, 1) + 1) * HALF_RANGE).round()

        def attacked(strength: float) -> Tensor:
            return in_micro_batches(lambda rows: self._attack(rows, strength), levels)

        return attacked

    def _attack(self, levels: Tensor, strength: float) -> Tensor:
        """[n, 3, H, W] of 0 … 255 → pixels in [-1, 1] of whole levels."""
        config = self._config
        radius, sign = round(abs(strength) * config.epsilon), copysign(1, strength)
        before = self._scorer.logits(_pixels(levels))
        change = best = course = torch.zeros_like(levels)
        best_gain = torch.zeros(len(levels))
        for step in range(config.steps + 1):
            rounded = change.round()
            gain, slope = self._gain(levels + rounded, before, sign)
            better = gain > best_gain
            best = torch.where(better[:, None, None, None], rounded, best)
            best_gain = torch.where(better, gain, best_gain)
            course = config.momentum * course + slope / _mean_size(slope)
            size = radius / 2 * (1 - step / config.steps)
            change = (change + size * course.sign()).clamp(-radius, radius)
            change = (levels + change).clamp(0, 2 * HALF_RANGE) - levels
        return _pixels(levels + best)

    def _gain(self, levels: Tensor, before: Tensor, sign: float) -> tuple[Tensor, Tensor]:
        """What is climbed, [n], and its slope, [n, 3, H, W]."""
        pixels = _pixels(levels).requires_grad_(True)
        with torch.enable_grad():
            moved = self._scorer.logits_with_grad(pixels) - before
            target = moved[:, self._target]
            others = (moved.abs().sum(1) - target.abs()) / max(1, moved.shape[1] - 1)
            gain = sign * target - self._config.penalty * others
            (slope,) = torch.autograd.grad(gain.sum(), pixels)
        return gain.detach(), slope


def _pixels(levels: Tensor) -> Tensor:
    return levels / HALF_RANGE - 1


def _mean_size(slope: Tensor) -> Tensor:
    """[n, 1, 1, 1] > 0 of [n, 3, H, W]."""
    return slope.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-12)


@register_method
class PixelAttack(UnfittedMethod[PixelAttackConfig]):
    """Signed gradient ascent on the first classifier.

    `guided_by` is ("primary",): the primary classifier of the domain at hand.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        name="pixel_attack",
        title="pixel attack",
        source="control",
        version=1,
        guided_by=("primary",),
        control=True,
        needs_scorer=True,
    )
    config_class = PixelAttackConfig

    def fit(self, task: EditTask) -> PixelAttackEditor:
        """Nothing to learn: the classifier is attacked anew for each image.

        Raises InputError where the task grants no classifier, or one without gradients.
        """
        if not isinstance(task.scorer, Differentiable):
            name = "none" if task.scorer is None else task.scorer.info.name
            raise InputError(
                "an attack needs a classifier that gives gradients", where=f"classifier: {name}"
            )
        return PixelAttackEditor(task.scorer, task.concept.attribute, self.config)
