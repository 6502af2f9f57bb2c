"""Stand-ins for published weights, in the places and forms that scorers of photographs want.

Random numbers of the right shapes: with them the whole way from files to tables can be tried where
nothing can be downloaded. What comes out means nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from casl_bench.conformance.toy_domain import seeded
from casl_bench.core.files import hash_file
from casl_bench.models.diffusers_folder import write_diffusers_folder
from casl_bench.models.unet import BackboneConfig, build_unet
from casl_bench.photos.published_weights import WEIGHTS, Weight
from casl_bench.photos.scorers.classifier import build_network

_WEIGHTS = "stand-in weights"

_TINY_TOWER = {"layers": 1, "width": 32}
_TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {**_TINY_TOWER, "image_size": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {**_TINY_TOWER, "context_length": 77, "vocab_size": 49408, "heads": 2},
}
TINY_CLIP = "tiny-test-clip"
"""Name of an architecture that `register_tiny_clip` makes known to open_clip."""


def register_tiny_clip(folder: Path) -> str:
    """Make a tiny architecture known to open_clip for this process; returns its name."""
    path = folder / f"{TINY_CLIP}.json"
    path.write_text(json.dumps(_TINY_CLIP), encoding="utf-8")
    open_clip.add_model_config(path)
    return TINY_CLIP


def write_clip(path: Path, architecture: str, purpose: str) -> Path:
    """A CLIP of an open_clip architecture. Returns `path`."""
    network = seeded(
        _WEIGHTS, purpose, lambda: open_clip.create_model(architecture, pretrained=None)
    )
    return _save(path, network.state_dict())


def write_backbone(folder: Path, unet: dict[str, Any], **settings: Any) -> Path:
    """A diffusers folder of an untrained U-Net whose eps hardly depends on x_t.

    So images come back from inversion, and no number overflows on the way.

    Args:
        folder: where.
        unet: arguments of `UNet2DModel`.
        settings: of `BackboneConfig`.
    """
    config = BackboneConfig(name=folder.name, image_size=unet["sample_size"], unet=unet, **settings)
    network = seeded(_WEIGHTS, folder.name, lambda: build_unet(unet))
    with torch.no_grad():
        network.conv_out.weight *= 0.01
    write_diffusers_folder(folder, config, network)
    return folder


def tiny_unet(image_size: int = 32) -> dict[str, Any]:
    """Arguments of a U-Net with an h-space of 32 channels at a quarter of the image's side."""
    return {
        "sample_size": image_size,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [8, 16, 32],
        "down_block_types": ["DownBlock2D"] * 3,
        "up_block_types": ["UpBlock2D"] * 3,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "add_attention": False,
        "downsample_padding": 0,
    }


def write_alexnet(path: Path) -> Path:
    """AlexNet below LPIPS. Returns `path`."""
    from torchvision.models import alexnet

    network = seeded(_WEIGHTS, "alexnet", lambda: alexnet(weights=None).features)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"features.{k}": v for k, v in network.state_dict().items()}, path)
    return path


def write_vggface2(path: Path) -> Path:
    """InceptionResnetV1. Returns `path`."""
    from facenet_pytorch import InceptionResnetV1

    network = seeded(_WEIGHTS, "faces", lambda: InceptionResnetV1(pretrained=None, classify=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return path


def publish(weights: Path, folder: Path) -> tuple[Weight, ...]:
    """The table of weights with what has an address moved to a folder, whose addresses it names."""
    folder.mkdir()
    table = []
    for weight in WEIGHTS:
        if weight.url and (weights / weight.place).is_file():
            source = (weights / weight.place).rename(folder / Path(weight.place).name)
            weight = replace(weight, sha256=hash_file(source), url=source.as_uri())
        table.append(weight)
    return tuple(table)


def write_classifier(
    path: Path, attributes: tuple[str, ...], pixels: Tensor, labels: Tensor
) -> Path:
    """A classifier that is right on these images: a last layer fitted on features at random.

    Args:
        path: NAME.pt.
        attributes: A names of its outputs.
        pixels: [n, 3, S, S] in [-1, 1], with n well below the 1,024 features.
        labels: [n, A] bool.
    """
    architecture = "torchvision:shufflenet_v2_x0_5"
    network = seeded(_WEIGHTS, "classifier", lambda: build_network(architecture, len(attributes)))
    head, network.fc = network.fc, nn.Identity()
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # means over all: layers at random would let all fade away
        network.train()(pixels)
        features = network.eval()(pixels)
        flat = torch.cat([features, torch.ones(len(pixels), 1)], 1).double()
        solution = torch.linalg.lstsq(flat, 2 * labels.double() - 1, driver="gelsd").solution
        head.weight.copy_(solution[:-1].T)
        head.bias.copy_(solution[-1])
    network.fc = head
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    described = {
        "architecture": architecture,
        "attributes": attributes,
        "image_size": pixels.shape[-1],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    path.with_suffix(".json").write_text(json.dumps(described), encoding="utf-8")
    return path


def _save(path: Path, tensors: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.clone().contiguous() for k, v in tensors.items()}, path)
    return path
