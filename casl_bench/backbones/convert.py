"""A published checkpoint → a backbone: its config and its weights under diffusers' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from casl_bench.backbones.adm_checkpoint import adm_state
from casl_bench.backbones.architecture import Architecture, architecture_of
from casl_bench.backbones.checkpoint_file import read_checkpoint
from casl_bench.backbones.ddpm_checkpoint import ddpm_state
from casl_bench.backbones.diffusers_unet import BackboneConfig, filled_unet
from casl_bench.backbones.named_config import CheckpointConfig, read_config
from casl_bench.backbones.weights import UnfitWeightsError
from casl_bench.core.errors import InvalidBenchmarkError, UsageError

FAULTS_TOLD = 50


@dataclass(frozen=True)
class Conversion:
    """A published checkpoint as a backbone.

    Attributes:
        config: of the backbone, with the U-Net's arguments.
        unet: filled, float32.
        architecture: what the file told.
        taken: which of the file's state dicts; empty where it holds one alone.
        assumed: what neither the file nor the caller told, "name value" each.
    """

    config: BackboneConfig
    unet: UNet2DModel
    architecture: Architecture
    taken: str
    assumed: tuple[str, ...]


def convert(
    path: Path,
    *,
    name: str,
    image_size: int | None = None,
    config: str | Path | None = None,
    head_channels: int | None = None,
) -> Conversion:
    """Read a published checkpoint of the DDPM or ADM family.

    Args:
        path: the file.
        name: of the backbone, as in a table.
        image_size: side of the image, pixels.
        config: name of a config of the package, or a JSON file; what the file tells is checked
            against it.
        head_channels: channels of an attention head, ADM only.

    Raises:
        UsageError: for an unknown config, or facts that contradict each other.
        UnfitWeightsError: naming what is missing, unexpected, misshapen or not finite.
        InvalidBenchmarkError: if the file cannot be read or its network not be run.
    """
    facts = CheckpointConfig() if config is None else read_config(config)
    facts = _with_given(facts, config, image_size=image_size, head_channels=head_channels)
    file = read_checkpoint(path)
    found = architecture_of(file.weights, str(path))
    _check_channels(found, str(path))
    if config is not None:
        facts.check(found, str(config), str(path))
    assumed = []
    if config is None and image_size is None:
        assumed.append(f"image size {facts.image_size}")
    heads = facts.head_channels
    if heads is None and found.family == "adm":
        heads = found.default_head_channels()
        assumed.append(f"{heads} channels a head")
    backbone = BackboneConfig(
        name=name,
        image_size=facts.image_size,
        prediction=facts.prediction,
        learned_sigma=found.learned_sigma,
        family=found.family,
        schedule=facts.schedule,
        unet=found.unet_config(facts.image_size, heads),
    )

    def state_for(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if found.family == "ddpm":
            return ddpm_state(file.weights, own, str(path))
        assert heads is not None
        return adm_state(file.weights, own, str(path), heads, facts.new_attention_order)

    try:
        unet = filled_unet(backbone.unet, state_for)
    except UnfitWeightsError as error:
        raise UnfitWeightsError(
            error.faults,
            where=str(path),
            mend="fetch the file again or name it as its authors do",
            told=FAULTS_TOLD,
        ) from error
    return Conversion(backbone, unet, found, file.taken, tuple(assumed))


def _with_given(
    facts: CheckpointConfig, config: str | Path | None, **given: int | None
) -> CheckpointConfig:
    """The facts with the caller's own, which may fill gaps of a config but not contradict it."""
    told = {field: value for field, value in given.items() if value is not None}
    for field, value in told.items():
        known = getattr(facts, field)
        if config is not None and known not in (None, value):
            raise UsageError(
                f"{field} {value} contradicts config '{config}', which says {known}",
                mend="give one of the two",
            )
    return facts.model_copy(update=told)


def _check_channels(found: Architecture, where: str) -> None:
    if found.in_channels != 3 or found.out_channels not in (3, 6):
        raise InvalidBenchmarkError(
            f"the network takes {found.in_channels} channels and gives {found.out_channels}",
            where=where,
            mend="networks on pictures take 3 and give 3, or 6 with a learned variance",
        )
