"""What a run asks of whoever tells the attributes of an image, trained or not."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from casl_bench.scorers.scorer import ScorerInfo

LabelSource = Literal["annotation", "zero-shot"]
"""Where a scorer's notion of an attribute comes from: labelled images, or words alone."""


@runtime_checkable
class AttributeScorer(Protocol):
    """A frozen network with one logit an attribute.

    Attributes:
        info: its identity.
        attributes: names of the logits.
    """

    info: ScorerInfo
    attributes: tuple[str, ...]

    def logits(self, pixels: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] → [n, A] float32 on the CPU; above 0 the attribute is there."""
        ...


@runtime_checkable
class Differentiable(AttributeScorer, Protocol):
    """A scorer that shows how its logits depend on the pixels. For controls: no method sees one."""

    def logits_with_grad(self, pixels: Tensor) -> Tensor:
        """`logits`, through which gradients flow to the pixels."""
        ...


def label_source(scorer: AttributeScorer) -> LabelSource:
    """Where its notion of an attribute comes from; "annotation" where it does not say."""
    source: LabelSource = getattr(scorer, "label_source", "annotation")
    return source
