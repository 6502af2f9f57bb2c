"""`render_embedder`: how alike two rendered images look, and whether they show the same person.

A small network of our own, trained on renders of this domain. It is neither LPIPS nor a face
recogniser, and its numbers compare with neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from casl_bench.core.errors import InputError
from casl_bench.models.micro_batch import MICRO_BATCH, pad_rows, row_blocks
from casl_bench.models.model_files import ModelFiles, ShippedModel
from casl_bench.models.scorers import ScorerInfo

EPS = 1e-3


class EmbedderNet(nn.Module):
    """Strided convolutions whose every stage is a feature, and a unit embedding on top.

    `widths`: channels of the stages, each half the size of the one before.
    """

    def __init__(self, widths: Sequence[int], embed_dim: int) -> None:
        super().__init__()
        channels = [3, *widths]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(channels)
        )
        self.head = nn.Linear(channels[-1], embed_dim)

    def features(self, pixels: Tensor) -> list[Tensor]:
        """[n, 3, H, W] in [-1, 1] → one [n, C, h, w] >= 0 a stage."""
        out = []
        for stage in self.stages:
            pixels = stage(pixels)
            out.append(pixels)
        return out

    def embed(self, features: list[Tensor]) -> Tensor:
        """Unit embeddings [n, D] of the last stage's features."""
        return F.normalize(self.head(features[-1].mean((2, 3))), dim=1)


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Half the squared distance of channel vectors of unit length, averaged: [n] in [0, 1].

    Averaged over positions, then over stages, each [n, C, h, w] >= 0; exactly 0 for equal features.
    """
    return _unit_distance(_unit(a), _unit(b))


def _unit(features: Sequence[Tensor]) -> list[Tensor]:
    """Every channel vector divided by its length."""
    return [f / (f.norm(dim=1, keepdim=True) + EPS) for f in features]


def _unit_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    total = torch.zeros(len(a[0]))
    for p, q in zip(a, b, strict=True):
        total = total + (p - q).pow(2).sum(1).mean((1, 2)) / 2
    return total / len(a)


class RenderEmbedder(ShippedModel):
    """The frozen embedder of images of one size."""

    def __init__(self, info: ScorerInfo, network: EmbedderNet, image_size: int) -> None:
        self.info, self.image_size = info, image_size
        self._network = network.eval().requires_grad_(False)

    @classmethod
    def _of_files(cls, files: ModelFiles) -> Self:
        network = files.network(lambda config: EmbedderNet(config["widths"], config["embed_dim"]))
        info = ScorerInfo(files.card["name"], "similarity", 1, files.weights_hash)
        return cls(info, network, int(files.card["config"]["image_size"]))

    @torch.no_grad()
    def perceptual_distance(self, a: Tensor, b: Tensor) -> Tensor:
        """How differently two images look: [n] in [0, 1], 0 for equal images.

        Of [n, 3, H, W] twice, nominally in [-1, 1], clamped. A row depends on its two images alone.
        """
        return self.compare(a[None], b)[0][0]

    @torch.no_grad()
    def identity_similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Whether two images show the same person: cosine of embeddings, [n] in [-1, 1].

        Trained to ignore the eight attributes and to keep what else makes up a portrait: shape,
        pose, tones, colours. Arguments as `perceptual_distance`.
        """
        return self.compare(a[None], b)[1][0]

    @torch.no_grad()
    def compare(self, edits: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
        """`perceptual_distance` and `identity_similarity` of all edits of some images, [S, n] each.

        Of edits [S, n, 3, H, W] and originals [n, 3, H, W], nominally in [-1, 1], clamped. The
        features of each image are computed once, those of the originals for all edits. Raises
        InputError where shapes do not fit.
        """
        expected = (3, self.image_size, self.image_size)
        fit = edits.ndim == 5 and edits.shape[1:] == originals.shape and len(originals)
        if not fit or tuple(originals.shape[1:]) != expected:
            raise InputError(
                f"images of shapes {tuple(edits.shape[1:])} and {tuple(originals.shape)}, "
                f"not [n, *{expected}]",
                where=self.info.name,
            )
        distances, cosines = [], []
        for rows in row_blocks(len(originals), MICRO_BATCH):
            before = self._features(originals[rows])
            placed, before = self._network.embed(before), _unit(before)
            count = rows.stop - rows.start
            for images in edits:
                after = self._features(images[rows])
                cosine = (self._network.embed(after) * placed).sum(1).clamp(-1, 1)
                distances.append(_unit_distance(_unit(after), before)[:count])
                cosines.append(cosine[:count])
        return _by_edit(distances, len(edits)), _by_edit(cosines, len(edits))

    def _features(self, pixels: Tensor) -> list[Tensor]:
        """Of a micro-batch of at most `MICRO_BATCH` images, filled up."""
        return self._network.features(pad_rows(pixels.float().clamp(-1, 1), MICRO_BATCH))


def _by_edit(blocks: list[Tensor], edits: int) -> Tensor:
    """Blocks of rows, each for every edit in turn → [S, n]."""
    return torch.stack([torch.cat(blocks[place::edits]) for place in range(edits)])
