"""What is known of a published checkpoint beside its file: a JSON file, named or one's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from casl_bench.backbones.architecture import Architecture
from casl_bench.backbones.diffusers_unet import ScheduleConfig
from casl_bench.core.errors import InvalidBenchmarkError, UsageError, unknown_name
from casl_bench.core.files import parse_json

_CONFIGS = files("casl_bench.backbones") / "configs"


class CheckpointConfig(BaseModel):
    """Facts of a published network. Those that its file tells are checked against it.

    Attributes:
        description: for a person.
        image_size: side of the image, pixels; not in the file.
        head_channels: channels of an attention head of the ADM family; not in the file.
        new_attention_order: q, k, v of all heads rather than head by head; not in the file.
        schedule: of the noise; not in the file.
        prediction: what the network's output means; not in the file.
        family: and all that follow: as in `Architecture`, None leaves it to the file.
        attention_resolutions: sides of the feature maps with attention, pixels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    image_size: int = Field(256, ge=1)
    head_channels: int | None = Field(None, ge=1)
    new_attention_order: bool = False
    schedule: ScheduleConfig = ScheduleConfig()
    prediction: Literal["eps", "v", "x0"] = "eps"
    family: Literal["ddpm", "adm"] | None = None
    in_channels: int | None = None
    base_channels: int | None = None
    multipliers: tuple[int, ...] | None = None
    res_blocks: int | None = None
    attention_resolutions: tuple[int, ...] | None = None
    learned_sigma: bool | None = None

    def check(self, found: Architecture, name: str, where: str) -> None:
        """Compare with what the file tells.

        Raises:
            InvalidBenchmarkError: naming the fields that differ.
        """
        told: dict[str, Any] = {
            "family": found.family,
            "in_channels": found.in_channels,
            "base_channels": found.base_channels,
            "multipliers": found.multipliers,
            "res_blocks": found.res_blocks,
            "attention_resolutions": found.attention_resolutions(self.image_size),
            "learned_sigma": found.learned_sigma,
        }
        differing = [
            f"{field} is {_text(value)} in the file, {_text(wanted)} in the config"
            for field, value in told.items()
            if (wanted := getattr(self, field)) is not None and wanted != value
        ]
        if differing:
            raise InvalidBenchmarkError(
                f"the file is not of config '{name}': {', '.join(differing)}",
                where=where,
                mend="give another config or leave it out",
            )


def config_names() -> list[str]:
    """Names of the configs that come with the package, sorted."""
    return sorted(
        p.name.removesuffix(".json") for p in _CONFIGS.iterdir() if p.name.endswith(".json")
    )


def read_config(name: str | Path) -> CheckpointConfig:
    """A config by its name or, where it ends in .json, from a file.

    Raises:
        UsageError: for an unknown name, an absent file or invalid content.
    """
    source = Path(name) if str(name).endswith(".json") else None
    if source is None and name not in config_names():
        raise unknown_name("config", str(name), config_names())
    try:
        text = (source or _CONFIGS / f"{name}.json").read_text(encoding="utf-8")
        return CheckpointConfig.model_validate(parse_json(text))
    except OSError as error:
        raise UsageError(
            f"unreadable config: {error.strerror or type(error).__name__}", where=str(name)
        ) from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "config"
        raise UsageError(f"invalid config: {place}: {fault['msg']}", where=str(name)) from error
    except ValueError as error:
        raise UsageError(f"invalid config: {error}", where=str(name)) from error


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
