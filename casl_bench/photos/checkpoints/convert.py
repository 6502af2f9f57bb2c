"""A backbone from a published checkpoint, a folder or the Hub, under diffusers' names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from casl_bench.core.command import show
from casl_bench.core.errors import InvalidBenchmarkError, UsageError, unknown_name
from casl_bench.core.files import hash_file, read_checked
from casl_bench.core.option_types import BoundedInt, LocalPath, expand_home
from casl_bench.models.backbone import Backbone
from casl_bench.models.diffusers_folder import (
    OTHER_WEIGHTS,
    OWN_FILE,
    SAFE_WEIGHTS,
    SCHEDULER_FILE,
    SCHEDULER_FOLDERS,
    TORCH_WEIGHTS,
    UNET_FOLDERS,
    check_channels,
    check_vacant,
    is_diffusers_folder,
    read_diffusers_folder,
    write_diffusers_folder,
)
from casl_bench.models.unet import (
    CONFIG_FILE,
    MOST_PIXELS,
    BackboneConfig,
    ScheduleConfig,
    filled_unet,
    load_folder,
)
from casl_bench.models.weights import MOST, read_checkpoint
from casl_bench.photos import hub_folder
from casl_bench.photos.checkpoints.formats import (
    Architecture,
    adm_state,
    architecture_of,
    ddpm_state,
)

_PATH = LocalPath()
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CONFIGS = Path(__file__).with_name("configs")


class CheckpointConfig(BaseModel):
    """Facts of a published network. Those that its file shows are checked against it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""  # for a person
    # Side of the image, pixels; not in the file
    image_size: int = Field(256, ge=1, le=MOST_PIXELS)
    # Channels of an attention head of the ADM family; not in the file
    head_channels: int | None = Field(None, ge=1, le=MOST)
    new_attention_order: bool = False  # q, k, v of all heads, not head by head; not in the file
    schedule: ScheduleConfig = ScheduleConfig()  # of the noise; not in the file
    # What the network's output means; not in the file
    prediction: Literal["eps", "v", "x0"] = "eps"
    # These are as in `Architecture`; None leaves them to the file.
    family: Literal["ddpm", "adm"] | None = None
    in_channels: int | None = None
    base_channels: int | None = None
    multipliers: tuple[int, ...] | None = None
    res_blocks: int | None = None
    # Sides of the feature maps with attention, pixels
    attention_resolutions: tuple[int, ...] | None = None
    learned_sigma: bool | None = None

    def check(self, found: Architecture, name: str, where: str) -> None:
        """Compare with what the file shows. Raises InvalidBenchmarkError naming differences."""
        told: dict[str, Any] = {
            **vars(found),
            "attention_resolutions": found.attention_resolutions(self.image_size),
            "learned_sigma": found.learned_sigma,
        }
        differing = [
            f"{field} is {_text(value)} in the file, {_text(wanted)} in the config"
            for field, value in told.items()
            if (wanted := getattr(self, field, None)) is not None and wanted != value
        ]
        if differing:
            raise InvalidBenchmarkError(
                f"the file is not of config '{name}': {', '.join(differing)}",
                where=where,
                hint="give another config or leave it out",
            )


def config_names() -> list[str]:
    """Names of the configs that come with the package, sorted."""
    return sorted(p.stem for p in _CONFIGS.glob("*.json"))


def read_config(name: str | Path) -> CheckpointConfig:
    """A config by its name or, where it ends in .json, from a file.

    Raises UsageError for an unknown name, an absent file or invalid content.
    """
    if not str(name).endswith(".json"):
        if name not in config_names():
            raise unknown_name("config", str(name), config_names())
        name = _CONFIGS / f"{name}.json"
    path = Path(expand_home(str(name)))
    return read_checked(CheckpointConfig, path, "config", "see docs/checkpoints.md", UsageError)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


@dataclass(frozen=True)
class Conversion:
    """A published checkpoint as a backbone."""

    config: BackboneConfig  # of the backbone, with the U-Net's arguments
    unet: UNet2DModel  # filled, float32
    architecture: Architecture  # as read from the file
    taken: str  # which of the file's state dicts; empty where it holds one alone
    assumed: tuple[str, ...]  # what neither the file nor the caller said, "name value" each


def convert(
    path: Path,
    *,
    name: str,
    image_size: int | None = None,
    config: str | Path | None = None,
    head_channels: int | None = None,
) -> Conversion:
    """Read a published checkpoint of the DDPM or ADM family.

    `config` is the name of a config of the package, or a JSON file; what the file shows is checked
    against it. `image_size` is the image's side in pixels; `head_channels`, the channels of an
    attention head, is for ADM only.

    Raises:
        UsageError: for an unknown config, or facts that contradict each other.
        UnfitWeightsError: naming what is missing, unexpected, misshapen or not finite.
        InvalidBenchmarkError: if the file cannot be read or its network not be run.
    """
    facts = CheckpointConfig() if config is None else read_config(config)
    facts = _with_given(facts, config, image_size=image_size, head_channels=head_channels)
    file = read_checkpoint(path)
    found = architecture_of(file.weights, str(path))
    check_channels(found.in_channels, found.out_channels, str(path))
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

    unet = filled_unet(backbone.unet, state_for)
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
                hint="give one of the two",
            )
    return facts.model_copy(update=told)


def open_backbone(
    place: str | Path,
    *,
    name: str,
    micro_batch: int | Callable[[BackboneConfig], int],
    allow_download: bool = False,
    config: str | Path | None = None,
    image_size: int | None = None,
    head_channels: int | None = None,
) -> Backbone:
    """The backbone kept at a place, whichever kind of place it is.

    A folder of ours or of diffusers, a published checkpoint file (of which the last three arguments
    say what it does not tell, see `convert`), or an id on the Hugging Face Hub (owner/name), whose
    local cache alone is looked at unless `allow_download`. `micro_batch` are the rows of a pass, or
    what tells them of the network that was found. Raises UsageError if there is nothing at
    the place, or it must be downloaded and may not be, and InvalidBenchmarkError if what is there
    cannot be read or run.
    """
    path = Path(place)
    if path.is_file():
        made = convert(
            path, name=name, image_size=image_size, config=config, head_channels=head_channels
        )
        found, unet = made.config, made.unet
    else:
        if not path.exists() and _HUB_ID.fullmatch(str(place)):
            path = _from_hub(str(place), allow_download)
        if str(place) and is_diffusers_folder(path):
            found, unet = read_diffusers_folder(path)
        elif str(place) and (path / CONFIG_FILE).exists():
            found, unet = load_folder(path)
        else:
            raise UsageError(
                "no backbone is there",
                where=str(place),
                hint="give a folder with a config.json, a checkpoint file, or owner/name of a "
                "network on the Hub",
            )
    rows = micro_batch(found) if callable(micro_batch) else micro_batch
    return Backbone(found.model_copy(update={"name": name, "micro_batch": rows}), unet)


def _from_hub(hub_id: str, allow_download: bool) -> Path:
    """Folder of the local cache with the files of a network on the Hub (owner/name)."""
    wanted = [OWN_FILE, *(_below(UNET_FOLDERS, CONFIG_FILE))]
    wanted += _below(SCHEDULER_FOLDERS, SCHEDULER_FILE)
    safe, pickled = (_below(UNET_FOLDERS, file) for file in (SAFE_WEIGHTS, TORCH_WEIGHTS))
    folder = hub_folder(hub_id, [*wanted, *safe], allow_download)
    # The same weights lie beside each other in several forms: one of them is enough.
    if any((folder / file).exists() for file in safe):
        return folder
    folder = hub_folder(hub_id, [*wanted, *pickled], allow_download)
    if any((folder / file).exists() for file in pickled):
        return folder
    return hub_folder(hub_id, [*wanted, *_below(UNET_FOLDERS, OTHER_WEIGHTS)], allow_download)


def _below(folders: tuple[str, ...], file: str) -> list[str]:
    return [f"{folder}/{file}" if folder else file for folder in folders]


@click.command("convert")
@click.argument("checkpoint", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder to write; absent or empty.")
@click.option("--config", metavar="NAME|FILE",
              help="What is known of the network: docs/checkpoints.md.")  # fmt: skip
@click.option(
    "--image-size", type=BoundedInt(most=MOST_PIXELS), help="Side, pixels.  [default: 256]"
)
@click.option("--head-channels", type=BoundedInt(),
              help="Channels of an attention head, ADM only.  [default: 64]")  # fmt: skip
@click.option("--half", is_flag=True, help="Keep the weights in half precision.")
def convert_command(
    checkpoint: Path,
    out: Path,
    config: str | None,
    image_size: int | None,
    head_channels: int | None,
    half: bool,
) -> Callable[[], int]:
    """Make a backbone folder of CHECKPOINT, a published file of the DDPM or ADM family."""

    def action() -> int:
        if not checkpoint.exists():
            raise UsageError("no such file", where=str(checkpoint))
        if checkpoint.is_dir():
            raise UsageError(
                "a folder is no checkpoint file",
                where=str(checkpoint),
                hint="a diffusers folder is read as it is and needs no conversion",
            )
        check_vacant(out)
        made = convert(
            checkpoint,
            name=out.resolve().name,
            image_size=image_size,
            config=config,
            head_channels=head_channels,
        )
        source = {
            "file": checkpoint.name,
            "sha256": hash_file(checkpoint),
            "taken": made.taken,
            "config": config or "",
            "assumed": list(made.assumed),
        }
        write_diffusers_folder(
            out,
            made.config,
            made.unet,
            dtype=torch.float16 if half else torch.float32,
            source=source,
        )
        show(report(made))
        show(f"written       {out} ({'half' if half else 'single'} precision)")
        return 0

    return action


def report(made: Conversion) -> str:
    """What was found, a line a fact."""
    found, size = made.architecture, made.config.image_size
    side = size // 2 ** (len(found.multipliers) - 1)
    heads = made.config.unet["attention_head_dim"]
    sides = ", ".join(f"{s} px" for s in found.attention_resolutions(size)) or "the middle only"
    facts = {
        "weights": made.taken or "the file's only state dict",
        "family": found.family,
        "image size": f"{size} px",
        "channels": f"{found.base_channels} × {', '.join(map(str, found.multipliers))}; "
        f"{found.res_blocks} residual block{'s' if found.res_blocks > 1 else ''} a level",
        "attention": f"{sides}; {f'{heads} channels a head' if heads else 'one head'}",
        "output": f"{made.config.prediction}{' and a variance' if found.learned_sigma else ''}",
        "parameters": f"{sum(p.numel() for p in made.unet.parameters()):,}",
        "h-space": f"{found.mid_channels} × {side} × {side}",
    }
    if made.assumed:
        facts["assumed"] = f"{', '.join(made.assumed)}: the file does not tell"
    return "".join(f"{name:<14}{value}\n" for name, value in facts.items())
