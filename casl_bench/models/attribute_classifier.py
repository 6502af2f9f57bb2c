"""Which attributes an image shows: calibrated logits of small multi-label networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from casl_bench.models.model_files import ModelFiles, ShippedModel
from casl_bench.models.scorers import CalibratedNetwork, ScorerInfo


class PlainNet(nn.Module):
    """Strided 3×3 convolutions down to 4×4, then one linear map over all positions.

    `widths`: channels of the four stages.
    """

    def __init__(self, attributes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, 3, 2, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels * 16, attributes)

    def forward(self, pixels: Tensor) -> Tensor:
        """[n, 3, 64, 64] in [-1, 1] → [n, A]."""
        logits: Tensor = self.head(self.features(pixels).flatten(1))
        return logits


class _DepthwiseBlock(nn.Module):
    """x + expand-and-contract(depthwise 5×5 (x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 5, 1, 2, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.contract = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.contract(nn.functional.gelu(self.expand(self.norm(self.spatial(x)))))
        return x + inner


class DepthwiseNet(nn.Module):
    """Residual depthwise blocks on overlapping 8×8 patches, averaged over positions at the end.

    Unlike `PlainNet` it reads coarse patches from the first layer on and forgets where they were.
    `widths` and `blocks`: channels and number of blocks at 16×16 and at 8×8.
    """

    def __init__(self, attributes: int, widths: tuple[int, int], blocks: tuple[int, int]) -> None:
        super().__init__()
        (first, second), (many, more) = widths, blocks
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 8, 4, 2, bias=False),
            nn.BatchNorm2d(first),
            *(_DepthwiseBlock(first) for _ in range(many)),
            nn.Conv2d(first, second, 2, 2, bias=False),
            nn.BatchNorm2d(second),
            *(_DepthwiseBlock(second) for _ in range(more)),
        )
        self.norm = nn.LayerNorm(second)
        self.head = nn.Linear(second, attributes)

    def forward(self, pixels: Tensor) -> Tensor:
        """[n, 3, 64, 64] in [-1, 1] → [n, A]."""
        logits: Tensor = self.head(self.norm(self.features(pixels).mean((2, 3))))
        return logits


class _ResidualBlock(nn.Module):
    """Halves the side: relu(shortcut(x) + conv(relu(conv(x))))."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(channels, width, 2, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] → [n, width, h / 2, w / 2]."""
        return nn.functional.relu(self.inner(x) + self.shortcut(x))


class ResidualNet(nn.Module):
    """Residual blocks of two 3×3 convolutions; the mean and the maximum over 8×8 positions.

    Args:
        attributes: number of logits.
        widths: channels of the stem at 32×32 and of the two blocks.
    """

    def __init__(self, attributes: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = widths
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 5, 2, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU(),
            _ResidualBlock(first, second), _ResidualBlock(second, third),
        )  # fmt: skip
        self.head = nn.Linear(2 * third, attributes)

    def forward(self, pixels: Tensor) -> Tensor:
        """[n, 3, 64, 64] in [-1, 1] → [n, A]."""
        features = self.features(pixels)
        logits: Tensor = self.head(torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1))
        return logits


def build_classifier(config: Mapping[str, Any]) -> nn.Module:
    """The network a card's `config` describes: {"architecture": …, "attributes": [...], …}."""
    count = len(config["attributes"])
    match config["architecture"]:
        case "plain":
            return PlainNet(count, tuple(config["widths"]))
        case "depthwise":
            return DepthwiseNet(count, tuple(config["widths"]), tuple(config["blocks"]))
        case "residual":
            return ResidualNet(count, tuple(config["widths"]))
        case other:
            raise ValueError(f"unknown classifier architecture '{other}'")


class AttributeClassifier(CalibratedNetwork, ShippedModel):
    """A frozen classifier whose logits are calibrated: sigmoid(logit) is a probability.

    A `CalibratedNetwork` whose outputs [n, A] are named by `attributes`.
    """

    def __init__(
        self,
        info: ScorerInfo,
        attributes: tuple[str, ...],
        network: nn.Module,
        scale: Tensor,
        bias: Tensor,
        image_size: int,
    ) -> None:
        super().__init__(info, network, scale, bias, image_size)
        self.attributes = attributes

    @classmethod
    def _of_files(cls, files: ModelFiles) -> Self:
        config, network = files.card["config"], files.network(build_classifier)
        info = ScorerInfo(files.card["name"], "attributes", 1, files.weights_hash)
        names, size = tuple(config["attributes"]), int(config["image_size"])
        return cls(info, names, network, *files.calibration(len(names)), size)

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Calibrated logits [n, A] as `outputs`; above 0 the attribute is there."""
        return self.outputs(pixels)

    def logits_with_grad(self, pixels: Tensor) -> Tensor:
        """`logits`, through which gradients flow to the pixels; none to those out of [-1, 1]."""
        return self.outputs(pixels)
