"""Networks that timm and torchvision describe, with weights from a local file, each one checked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from casl_bench.backbones.weights import fitted_state, read_torch_file
from casl_bench.core.errors import InvalidBenchmarkError, UsageError

_MEND = "write timm:NAME or torchvision:NAME, such as timm:resnet18"


def build_network(architecture: str, outputs: int) -> nn.Module:
    """A classifier with random weights; nothing is downloaded, no random state is touched.

    Args:
        architecture: `timm:NAME` or `torchvision:NAME`.
        outputs: width of its last layer.

    Returns:
        [n, 3, H, W] → [n, outputs].

    Raises:
        UsageError: the library has no such network.
    """
    library, _, name = architecture.partition(":")
    # Asked first: timm would take `hf-hub:…` for an order to fetch it.
    known = {
        "timm": lambda: timm.is_model(name),
        "torchvision": lambda: name in torchvision.models.list_models(torchvision.models),
    }
    if library not in known or not known[library]():
        raise UsageError(f"no such architecture '{architecture}'", mend=_MEND)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # How some of them draw weights that are thrown away is no concern of the user's.
        warnings.simplefilter("ignore")
        network: nn.Module
        if library == "timm":
            network = timm.create_model(name, pretrained=False, num_classes=outputs)
        else:
            network = torchvision.models.get_model(name, weights=None, num_classes=outputs)
    return network


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of one saved by torch; no code in it is run.

    Raises:
        InvalidBenchmarkError: absent, truncated, unsafe, or not a dict of tensors.
    """
    if path.suffix != ".safetensors":
        content = read_torch_file(path)
        tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
        if len(tensors) < len(content) or not tensors:
            raise InvalidBenchmarkError(
                "not a dict of weights", where=str(path), mend="save the bare state dict"
            )
        return tensors
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidBenchmarkError(
            f"unreadable weights: {reason}", where=str(path), mend="fetch or train them again"
        ) from error


def fill(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a network.

    Args:
        network: changed in place.
        weights: under the network's own names.
        where: the file, for the message.

    Raises:
        InvalidBenchmarkError: naming what is missing, unexpected, of another shape or not finite.
    """
    own = network.state_dict()
    # Files older than torch 1.0 lack these counters, which no evaluation reads.
    absent = {k for k in own if k.endswith("num_batches_tracked") and k not in weights}
    wanted = {k: v for k, v in own.items() if k not in absent}
    network.load_state_dict(fitted_state(wanted, weights, where), strict=False)
