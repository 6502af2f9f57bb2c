"""How far an edit went where its text points, told by a CLIP that guided nobody."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from casl_bench.backbones.clip_model import ClipModel
from casl_bench.core.errors import InputError
from casl_bench.scorers.scorer import ScorerInfo

# Displacements shorter than this (unit embeddings) are rounding, and their cosine is noise.
FLOOR = 1e-4


class ClipScorer:
    """Directional agreement of images with texts.

    Args:
        clip: the scoring CLIP; never the guide's weights.
    """

    def __init__(self, clip: ClipModel) -> None:
        self.clip = clip
        self.info = ScorerInfo(clip.name, "text", 1, clip.weights_hash)

    @classmethod
    def load(cls, folder: Path) -> ClipScorer:
        """Read a shipped scoring CLIP. Raises InvalidBenchmarkError where files are damaged."""
        return cls(ClipModel.load(folder))

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Unit embeddings [n, D] of images [n, 3, H, W], clamped to [-1, 1] as a viewer would."""
        return self.clip.encode_image(pixels.float().clamp(-1, 1)).cpu()

    def direction_similarity(
        self, original: Tensor, edited: Tensor, source: str, target: str
    ) -> Tensor:
        """cos(E(edited) - E(original), T(target) - T(source)).

        Args:
            original: [n, D] as from `embed`.
            edited: [..., n, D], e.g. one row of images a strength.
            source: prompt before the edit.
            target: prompt after it.

        Returns:
            [..., n] in [-1, 1]; 0 where the image did not move.

        Raises:
            InputError: shapes do not fit.
        """
        if original.ndim != 2 or edited.shape[-2:] != original.shape:
            raise InputError(
                f"embeddings of shape {tuple(edited.shape)} against {tuple(original.shape)}"
            )
        moved = edited - original
        length = moved.norm(dim=-1)
        cosine = moved @ self.clip.text_direction(source, target) / length.clamp(min=FLOOR)
        return torch.where(length < FLOOR, 0.0, cosine).clamp(-1, 1)
