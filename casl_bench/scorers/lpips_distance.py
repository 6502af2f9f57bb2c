"""LPIPS with AlexNet: how differently two photographs look.

The heads come with the `lpips` package, AlexNet's ImageNet weights from a local file of
torchvision's; nothing is downloaded.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from casl_bench.backbones.weights import Source, fitted_state, read_torch_file
from casl_bench.core.content_hash import hash_tensors
from casl_bench.core.errors import InputError, UsageError
from casl_bench.core.micro_batch import run_in_micro_batches
from casl_bench.scorers.scorer import ScorerInfo

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
"""Name of torchvision's file of AlexNet weights (ImageNet; BSD 3-clause)."""

MICRO_BATCH = 16
# AlexNet's five stages need this many pixels to see more than padding.
MIN_SIZE = 64


class LpipsDistance:
    """Frozen LPIPS 0.1, AlexNet.

    Args:
        network: as `lpips.LPIPS`: two images [n, 3, H, W] in [-1, 1] → [n, 1, 1, 1].
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval().requires_grad_(False)
        self.device = torch.device("cpu")
        self.info = ScorerInfo("lpips_alex", "similarity", 1, hash_tensors(network.state_dict()))

    @classmethod
    def load(cls, alexnet: Path) -> LpipsDistance:
        """LPIPS on AlexNet weights from a file.

        Args:
            alexnet: torchvision's state dict; its classifier layers are not needed.

        Raises:
            UsageError: the `lpips` package is absent.
            InvalidBenchmarkError: the file is absent, damaged, unsafe or of another network.
        """
        weights = read_torch_file(alexnet)
        network = _untrained()
        features = {k: v for k, v in weights.items() if not k.startswith("classifier.")}
        trunk = network.net
        state = fitted_state(trunk.state_dict(), features, str(alexnet), _as_torchvision_names_it)
        trunk.load_state_dict(state)
        return cls(network)

    def to(self, device: str | torch.device) -> LpipsDistance:
        """Move the network; results stay on the CPU."""
        self.device = torch.device(device)
        self._network.to(self.device)
        return self

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """How differently two images look.

        Args:
            a: [n, 3, H, W], nominally in [-1, 1], clamped; compared at their own size, save that
                images whose shorter side is below 64 pixels are enlarged to it (bilinear).
            b: likewise.

        Returns:
            [n] >= 0 on the CPU, 0 for equal images; a row depends on its two images alone.

        Raises:
            InputError: shapes do not fit.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or not len(a):
            raise InputError(
                f"images of shapes {tuple(a.shape)} and {tuple(b.shape)}, not [n, 3, H, W] twice",
                where=self.info.name,
            )
        return run_in_micro_batches(self._distance, MICRO_BATCH, a, b)[0]

    def _distance(self, a: Tensor, b: Tensor) -> tuple[Tensor]:
        distance: Tensor = self._network(self._seen(a), self._seen(b))
        return (distance.flatten().float().cpu(),)

    def _seen(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self.device).float().clamp(-1, 1)
        short = min(x.shape[-2:])
        if short >= MIN_SIZE:
            return x
        size = [round(side * MIN_SIZE / short) for side in x.shape[-2:]]
        return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _untrained() -> Any:
    """LPIPS with its own heads on a random AlexNet."""
    try:
        import lpips
    except ImportError as error:
        raise UsageError(
            "LPIPS needs a package that is absent: lpips",
            mend="install the extra: pip install 'casl-bench[real]'",
        ) from error
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # It calls torchvision in a way that was deprecated after it was written.
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)


def _as_torchvision_names_it(name: str) -> Source:
    """`slice2.3.weight` of the package is torchvision's `features.3.weight`."""
    return Source("features." + name.split(".", 1)[1])
