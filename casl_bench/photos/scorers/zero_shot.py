"""Attributes without labels: a CLIP compares an image with a pair of texts.

A second opinion about images without annotation, no measurement of them: it knows an attribute by
its words alone, and its threshold is an assumed share.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from casl_bench.core.errors import InputError, UsageError
from casl_bench.core.files import hash_json
from casl_bench.models.clip import ClipModel
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.scorers import ScorerInfo

# Standard deviations below this are rounding of cosines, times CLIP's scale of about 100.
FLOOR = 1e-6

PromptPairs = Mapping[str, tuple[str, str]]
"""Attribute → (text without it, text with it)."""


class ZeroShotClassifier:
    """logit = scale · raw + bias; raw = logit_scale · (cos(image, with) - cos(image, without)).

    The CLIP never has the guide's weights; scale and bias are [A].
    """

    def __init__(
        self, clip: ClipModel, name: str, pairs: PromptPairs, scale: Tensor, bias: Tensor
    ) -> None:
        self.attributes = tuple(pairs)
        self._clip, self._scale, self._bias = clip, scale.float(), bias.float()
        self._direction = _directions(clip, pairs)
        digest = hash_json(
            {
                "clip": clip.weights_hash,
                "pairs": [[attribute, *pair] for attribute, pair in pairs.items()],
                "scale": self._scale.tolist(),
                "bias": self._bias.tolist(),
            }
        )
        self.info = ScorerInfo(f"zero_shot:{name}", "attributes", 1, digest)

    @classmethod
    def calibrated(
        cls,
        clip: ClipModel,
        name: str,
        pairs: PromptPairs,
        train_pixels: Tensor,
        prior: float = 0.2,
    ) -> ZeroShotClassifier:
        """A classifier whose units come from training images without labels.

        logit = (raw - q) / s: s is the standard deviation over these images, so that a logit counts
        spreads of the attribute; q is the (1 - prior) quantile, so that the share `prior` of them
        lies above 0. Choice: raw differences of cosines have no zero of their own (a longer text
        moves all of them), and the share of an attribute is easier to guess than its threshold.

        Of pixels [n >= 2, 3, H, W] in [-1, 1] of the training split. Raises InputError for too few
        images or a share that is none, and UsageError naming attributes whose raw score does not
        vary.
        """
        if not 0 < prior < 1:
            raise InputError(f"a prior of {prior:g}, not a share between 0 and 1")
        if len(train_pixels) < 2:
            raise InputError("a zero-shot classifier is calibrated on two images at least")
        raw = _raw(clip, _directions(clip, pairs), train_pixels).double()
        spread = raw.std(0, correction=0)
        flat = [a for a, s in zip(pairs, spread.tolist(), strict=True) if not s >= FLOOR]
        if flat:
            raise UsageError(
                f"the texts do not tell images apart for {', '.join(flat)}",
                where=f"zero_shot:{name}",
                hint="word the two texts differently",
            )
        threshold = raw.quantile(1 - prior, dim=0)
        return cls(clip, name, pairs, 1 / spread, -threshold / spread)

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Calibrated logits [n, A] float32 on the CPU; above 0 the attribute counts as there.

        Of [n, 3, H, W], nominally in [-1, 1], clamped. A row depends on its image alone. Raises
        InputError: not images of three channels.
        """
        if not len(pixels):
            return torch.empty(0, len(self.attributes))
        return _raw(self._clip, self._direction, pixels) * self._scale + self._bias


@torch.no_grad()
def _directions(clip: ClipModel, pairs: PromptPairs) -> Tensor:
    """[A, D]: text with the attribute less text without, times CLIP's scale."""
    without = clip.encode_text([pair[0] for pair in pairs.values()])
    with_it = clip.encode_text([pair[1] for pair in pairs.values()])
    return (clip.logit_scale * (with_it - without)).float().cpu()


@torch.no_grad()
def _raw(clip: ClipModel, directions: Tensor, pixels: Tensor) -> Tensor:
    """[n, A] uncalibrated, on the CPU."""
    embeddings = clip.encode_image(pixels.float().clamp(-1, 1)).float().cpu()
    # A product of another height may sum in another order, and a row must not feel its company.
    return in_micro_batches(lambda rows: rows @ directions.T, embeddings)
