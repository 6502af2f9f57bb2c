"""Which attributes an image shows: calibrated logits of small multi-label networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.model_files import read_model
from casl_bench.models.scorers import ScorerInfo

MICRO_BATCH = 16


class PlainNet(nn.Module):
    """Strided 3×3 convolutions down to 4×4, then one linear map over all positions.

    Args:
        attributes: number of logits.
        widths: channels of the four stages.
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
        return self.head(self.features(pixels).flatten(1))


class _DepthwiseBlock(nn.Module):
    """x + expand-and-contract(depthwise 5×5 (x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 5, 1, 2, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.contract = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, width, h, w] → same shape."""
        inner = nn.functional.gelu(self.expand(self.norm(self.spatial(x))))
        return x + self.contract(inner)


class DepthwiseNet(nn.Module):
    """Residual depthwise blocks on overlapping 8×8 patches, averaged over positions at the end.

    Unlike `PlainNet` it reads coarse patches from the first layer on and forgets where they were.

    Args:
        attributes: number of logits.
        widths: channels at 16×16 and at 8×8.
        blocks: blocks at each.
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
        return self.head(self.norm(self.features(pixels).mean((2, 3))))


def build_classifier(config: Mapping[str, Any]) -> nn.Module:
    """The network a card's `config` describes: {"architecture": …, "attributes": [...], …}."""
    count = len(config["attributes"])
    match config["architecture"]:
        case "plain":
            return PlainNet(count, tuple(config["widths"]))
        case "depthwise":
            return DepthwiseNet(count, tuple(config["widths"]), tuple(config["blocks"]))
        case other:
            raise InvalidBenchmarkError(f"unknown classifier architecture '{other}'")


class AttributeClassifier:
    """A frozen classifier whose logits are calibrated: sigmoid(logit) is a probability.

    Args:
        info: its identity.
        attributes: names of the logits.
        network: [n, 3, H, W] → [n, A] raw logits.
        scale: [A], multiplies the raw logits.
        bias: [A], added after that.
        image_size: H = W that the network was made for.
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
        self.info, self.attributes, self.image_size = info, attributes, image_size
        self._network = network.eval().requires_grad_(False)
        self._scale, self._bias = scale, bias

    @classmethod
    def load(cls, folder: Path) -> AttributeClassifier:
        """Read a shipped classifier.

        Raises:
            InvalidBenchmarkError: files are damaged or do not fit together.
        """
        files = read_model(folder)
        config = files.card["config"]
        # Building draws random weights, which the caller's random state must not feel.
        with torch.random.fork_rng(devices=[]):
            network = build_classifier(config)
        try:
            network.load_state_dict(files.part("network"))
            scale, bias = files.tensors["calibration.scale"], files.tensors["calibration.bias"]
        except (RuntimeError, KeyError) as error:
            raise InvalidBenchmarkError("weights do not fit the card", where=str(folder)) from error
        info = ScorerInfo(files.card["name"], "attributes", 1, files.weights_hash)
        names = tuple(config["attributes"])
        return cls(info, names, network, scale, bias, int(config["image_size"]))

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Calibrated logits; above 0 the attribute is there.

        Args:
            pixels: [n, 3, H, W], nominally in [-1, 1]; values outside are clamped, as a viewer
                would.

        Returns:
            [n, A] float32; a row depends on its image alone.

        Raises:
            InputError: images of another size.
        """
        return self.logits_with_grad(pixels)

    def logits_with_grad(self, pixels: Tensor) -> Tensor:
        """`logits`, through which gradients flow to the pixels; none to those out of [-1, 1]."""
        expected = (3, self.image_size, self.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            raise InputError(
                f"images of shape {tuple(pixels.shape[1:])}, not {expected}", where=self.info.name
            )
        if not len(pixels):
            return torch.empty(0, len(self.attributes))
        raw = in_micro_batches(self._network, pixels.float().clamp(-1, 1), MICRO_BATCH)
        return raw * self._scale + self._bias
