"""CLIP directions: how far an edit moved along the text's direction.

Source: directional CLIP loss of StyleGAN-NADA (Gal et al. 2021) as used by DiffusionCLIP (Kim et
al. 2022, eq. 9) and Asyrp (Kwon et al. 2023, eq. 9).
"""

from __future__ import annotations

import torch
from torch import Tensor

from casl_bench.backbones.clip_model import ClipModel

EPS = 1e-6


def direction_cosine(edited: Tensor, original: Tensor, text_direction: Tensor) -> Tensor:
    """Cosine between the image's displacement and the text's, in CLIP space.

    cos(E_I(edited) - E_I(original), E_T(target) - E_T(source)).

    Args:
        edited: [n, D] unit image embeddings after the edit.
        original: [n, D] unit image embeddings before it.
        text_direction: [D] unit displacement of the text.

    Returns:
        [n] in [-1, 1]; 0 where nothing moved.
    """
    delta = edited - original
    return (delta @ text_direction.to(delta.device)) / (delta.norm(dim=-1) + EPS)


def directional_loss(edited: Tensor, original: Tensor, text_direction: Tensor) -> Tensor:
    """L_dir = 1 - cos, [n] in [0, 2]; shapes as `direction_cosine`."""
    return 1 - direction_cosine(edited, original, text_direction)


def log_directional_loss(edited: Tensor, original: Tensor, text_direction: Tensor) -> Tensor:
    """-log((2 - L_dir) / 2), [n] >= 0: the form in Asyrp's and DiffusionCLIP's code.

    0 where the directions agree, unbounded where they are opposite, so it is clamped at
    L_dir = 2 - 1e-4.
    """
    loss = directional_loss(edited, original, text_direction).clamp(max=2 - 1e-4)
    return -torch.log((2 - loss) / 2)


def text_similarity(clip: ClipModel, source: str, target: str) -> float:
    """Cosine of the two prompts' text embeddings; Asyrp scales its L1 term by it."""
    source_embedding, target_embedding = clip.encode_text([source, target])
    return float(source_embedding @ target_embedding)
