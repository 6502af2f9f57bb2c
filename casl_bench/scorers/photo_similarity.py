"""How alike two photographs are: LPIPS, and the person's identity where the data show persons."""

from __future__ import annotations

import torch
from torch import Tensor

from casl_bench.core.content_hash import hash_json
from casl_bench.scorers.face_identity import FaceIdentity
from casl_bench.scorers.lpips_distance import LpipsDistance
from casl_bench.scorers.scorer import ScorerInfo


class PhotoSimilarity:
    """What `RenderEmbedder` is for drawings.

    Args:
        lpips: distance of looks.
        identity: None for dogs and churches.
    """

    def __init__(self, lpips: LpipsDistance, identity: FaceIdentity | None = None) -> None:
        self._lpips, self._identity = lpips, identity
        parts = [lpips.info] + ([identity.info] if identity else [])
        name = "+".join(part.name for part in parts)
        digest = hash_json([part.weights_hash for part in parts]) if identity else (
            lpips.info.weights_hash
        )  # fmt: skip
        self.info = ScorerInfo(name, "similarity", 1, digest)

    @property
    def faces_missed(self) -> int | None:
        """Originals so far in which no face was found; None where none is looked for."""
        return self._identity.faces_missed if self._identity else None

    def to(self, device: str | torch.device) -> PhotoSimilarity:
        """Move the networks; results stay on the CPU."""
        self._lpips.to(device)
        if self._identity:
            self._identity.to(device)
        return self

    def perceptual_distance(self, edited: Tensor, original: Tensor) -> Tensor:
        """LPIPS, [n] >= 0: `LpipsDistance.distance`."""
        return self._lpips.distance(edited, original)

    def identity_similarity(self, edited: Tensor, original: Tensor) -> Tensor | None:
        """Cosine [n], the face found on `original`: `FaceIdentity.identity_similarity`."""
        if self._identity is None:
            return None
        return self._identity.identity_similarity(original=original, edited=edited)
