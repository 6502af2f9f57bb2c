"""The files of a diffusers folder with an unconditional U-Net: read as a backbone, and written.

diffusers says what the network is and how noise grows. What it has no field for is in
`casl_bench.json`, where we wrote the folder; for other folders it is derived.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from pydantic import RootModel, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError, UsageError, first_fault
from casl_bench.core.files import partial_folder, read_checked, write_json
from casl_bench.models.unet import CONFIG_FILE, BackboneConfig, ScheduleConfig, filled_unet
from casl_bench.models.weights import AGAIN, fitted_state, read_checkpoint

SCHEDULER_FILE = "scheduler_config.json"
SCHEDULER_FOLDERS = ("", "scheduler")
_STEM = "diffusion_pytorch_model"
SAFE_WEIGHTS, TORCH_WEIGHTS = f"{_STEM}.safetensors", f"{_STEM}.bin"
OTHER_WEIGHTS = f"{_STEM}*.safetensors*"
"""Pattern of half precision and of parts, which are taken where there is nothing else."""
# One file, or the index of several, in the order in which they are preferred.
_FILES = (SAFE_WEIGHTS, TORCH_WEIGHTS, f"{_STEM}.fp16.safetensors", f"{_STEM}.bf16.safetensors")
_INDICES = (
    f"{SAFE_WEIGHTS}.index.json", f"{TORCH_WEIGHTS}.index.json",
    f"{SAFE_WEIGHTS}.index.fp16.json", f"{_STEM}.fp16.safetensors.index.json",
)  # fmt: skip
OWN_FILE = "casl_bench.json"
# Where a training kept an average of its weights, that comes first.
UNET_FOLDERS = ("unet_ema", "", "unet")

# Names of the attention's projections before diffusers 0.15.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# Schedulers whose noise is what `ScheduleConfig` can say; they share their fields and defaults.
_SCHEDULERS = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler", "DEISMultistepScheduler",
)  # fmt: skip
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def scheduler_settings(folder: Path) -> dict[str, Any]:
    """The fields `schedule` and `prediction` of a `BackboneConfig`, from scheduler_config.json.

    Raises InvalidBenchmarkError if there is none at the root or in `scheduler/`, or it says what
    cannot be run here.
    """
    paths = [folder / sub / SCHEDULER_FILE for sub in SCHEDULER_FOLDERS]
    path = next((p for p in paths if p.exists()), None)
    if path is None:
        raise InvalidBenchmarkError(
            "there is no scheduler_config.json, so the noise is not known",
            where=str(folder),
            hint="put it beside config.json or in scheduler/",
        )
    found = _object(path)
    kind, schedule = found.get("_class_name"), found.get("beta_schedule", "linear")
    prediction = found.get("prediction_type", "epsilon")
    for fault, told, hint in (
        (kind not in _SCHEDULERS, f"scheduler {kind}",
         f"if the network was trained on the noise of one of {', '.join(_SCHEDULERS)}, save that "
         "scheduler there"),
        (found.get("trained_betas") is not None, "trained_betas",
         "networks trained on a beta_schedule can be run"),
        (bool(found.get("rescale_betas_zero_snr")), "rescale_betas_zero_snr",
         "networks trained without it can be run"),
        (str(prediction) not in _PREDICTIONS, f"prediction_type {prediction}",
         f"networks that predict one of {', '.join(_PREDICTIONS)} can be run"),
    ):  # fmt: skip
        if fault:
            raise InvalidBenchmarkError(f"{told} cannot be run", where=str(path), hint=hint)
    fields = {
        "kind": schedule,
        "num_timesteps": found.get("num_train_timesteps", 1000),
        "beta_start": found.get("beta_start", 1e-4),
        "beta_end": found.get("beta_end", 0.02),
    }
    try:
        noise = ScheduleConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InvalidBenchmarkError(
            f"a noise schedule of {name} {fields[name]} cannot be run: {first['msg']}",
            where=str(path),
            hint="see docs/checkpoints.md",
        ) from error
    return {"schedule": noise, "prediction": _PREDICTIONS[prediction]}


def scheduler_json(config: BackboneConfig) -> dict[str, Any]:
    """Content of a scheduler_config.json with a backbone's noise and prediction."""
    predictions = {ours: theirs for theirs, ours in _PREDICTIONS.items()}
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": config.schedule.num_timesteps,
        "beta_schedule": config.schedule.kind,
        "beta_start": config.schedule.beta_start,
        "beta_end": config.schedule.beta_end,
        "prediction_type": predictions[config.prediction],
        "variance_type": "learned_range" if config.learned_sigma else "fixed_small",
        # Clipping x_0 loses information: an inverted image would not come back.
        "clip_sample": False,
    }


class _JsonObject(RootModel[dict[str, Any]]):
    """Whatever a config says."""


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InvalidBenchmarkError: absent, or something else."""
    return read_checked(_JsonObject, path, "config", AGAIN).root


def is_diffusers_folder(folder: Path) -> bool:
    """Whether a folder has a network's config in diffusers' form.

    Raises InvalidBenchmarkError where a config is there and cannot be read.
    """
    return _unet_folder(folder) is not None


def read_diffusers_folder(folder: Path) -> tuple[BackboneConfig, UNet2DModel]:
    """Config and float32 U-Net of a diffusers folder, named as we wrote it, else as the folder.

    The U-Net is in `unet_ema/`, at its root or in `unet/`, the first of them that is there; the
    scheduler at its root or in `scheduler/`. Raises InvalidBenchmarkError if a file is absent,
    damaged or does not fit another, or the network or its schedule cannot be run here.
    """
    unet_folder = _unet_folder(folder)
    if unet_folder is None:
        raise InvalidBenchmarkError("no config.json of diffusers", where=str(folder))
    config_path = unet_folder / CONFIG_FILE
    content = _object(config_path)
    unet = {k: v for k, v in content.items() if not k.startswith("_")}
    kind = content["_class_name"]
    if kind != "UNet2DModel":
        raise InvalidBenchmarkError(
            f"the network is a {kind}", where=str(config_path), hint="only UNet2DModel can be run"
        )
    own = folder / OWN_FILE
    settings = _own_settings(own) if own.exists() else _derived_settings(folder, unet, config_path)
    try:
        config = BackboneConfig.model_validate({**settings, "unet": unet})
    except ValidationError as error:
        raise InvalidBenchmarkError(
            f"invalid backbone config: {first_fault(error)}",
            where=str(own if own.exists() else config_path),
            hint=AGAIN,
        ) from error
    weights, where = _read_weights(unet_folder)
    unet_of = filled_unet(unet, lambda own: fitted_state(own, weights, where), str(config_path))
    return config, unet_of


def write_diffusers_folder(
    folder: Path,
    config: BackboneConfig,
    unet: UNet2DModel,
    *,
    dtype: torch.dtype = torch.float32,
    source: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder that both diffusers and `Backbone.from_folder` read; whole or absent.

    `source` says where the weights come from, for a reader. Raises UsageError if the folder holds
    something or cannot be written.
    """
    check_vacant(folder)
    weights = {k: v.detach().to("cpu", dtype).contiguous() for k, v in unet.state_dict().items()}
    own = {"backbone": config.model_dump(exclude={"unet"}), "source": dict(source or {})}
    with partial_folder(folder.parent, folder.name) as aside:
        temporary = aside / "folder"
        temporary.mkdir()
        save_file(weights, temporary / SAFE_WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / CONFIG_FILE, {"_class_name": "UNet2DModel", **config.unet})
        write_json(temporary / SCHEDULER_FILE, scheduler_json(config))
        write_json(temporary / OWN_FILE, own)
        # safetensors makes files private (0600); weights are as readable as the config.
        (temporary / SAFE_WEIGHTS).chmod((temporary / CONFIG_FILE).stat().st_mode)
        temporary.replace(folder)


def check_channels(inputs: int, outputs: int, where: str) -> None:
    """Refuse a network that is not one on pictures. Raises InvalidBenchmarkError."""
    if inputs != 3 or outputs not in (3, 6):
        raise InvalidBenchmarkError(
            f"the network takes {inputs} channels and gives {outputs}",
            where=where,
            hint="networks on pictures take 3 and give 3, or 6 with a learned variance",
        )


def check_vacant(folder: Path) -> None:
    """Make sure that a folder is absent or empty. Raises UsageError otherwise."""
    try:
        vacant = not folder.exists() or not any(folder.iterdir())
    except OSError:
        vacant = False
    if not vacant:
        raise UsageError(
            "the folder to write is there already", where=str(folder), hint="choose another --out"
        )


def _unet_folder(folder: Path) -> Path | None:
    for place in (folder / sub for sub in UNET_FOLDERS):
        config = place / CONFIG_FILE
        if os.path.lexists(config) and "_class_name" in _object(config):
            return place
    return None


def _own_settings(path: Path) -> dict[str, Any]:
    settings = _object(path).get("backbone")
    if not isinstance(settings, dict):
        raise InvalidBenchmarkError("no backbone is described", where=str(path), hint=AGAIN)
    return settings


def _derived_settings(folder: Path, unet: Mapping[str, Any], where: Path) -> dict[str, Any]:
    size = unet.get("sample_size")
    if isinstance(size, list) and size == size[:1] * len(size) and size:
        size = size[0]
    if not isinstance(size, int):
        raise InvalidBenchmarkError(
            f"sample_size is {size}, not the side of a square image",
            where=str(where),
            hint="put there the side in pixels of the images that it was trained on",
        )
    inputs, outputs = unet.get("in_channels", 3), unet.get("out_channels", 3)
    check_channels(inputs, outputs, str(where))
    scaled = unet.get("resnet_time_scale_shift") == "scale_shift"
    return {
        "name": folder.name,
        "image_size": size,
        "learned_sigma": outputs == 2 * inputs,
        "family": "adm" if scaled else "ddpm",
        **scheduler_settings(folder),
    }


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a folder and the file that they are from; of an index, of all its parts."""
    path = next((folder / name for name in (*_FILES[:2], *_INDICES[:2], *_FILES[2:], *_INDICES[2:])
                 if os.path.lexists(folder / name)), None)  # fmt: skip
    if path is None:
        raise _other_weights(folder)
    weights: dict[str, Tensor] = {}
    for part in _parts(path) if path.suffix == ".json" else [path]:
        weights |= read_checkpoint(part).weights
    return {_new_name(name): tensor for name, tensor in weights.items()}, str(path)


def _parts(index: Path) -> list[Path]:
    """The files that an index names, all beside it."""
    named = _object(index).get("weight_map")
    names = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
    if not names or any(Path(name).name != name for name in names):
        what = "the index names no files" if not names else "the index names files elsewhere"
        raise InvalidBenchmarkError(what, where=str(index), hint=AGAIN)
    return [index.parent / name for name in names]


def _other_weights(folder: Path) -> InvalidBenchmarkError:
    """The error for a folder without weights, from what lies there in their place."""
    found = sorted(path.name for path in folder.glob(f"{_STEM}*"))
    what, hint = "No such file", "put it beside config.json"
    if found:
        what = f"only {', '.join(found[:2])}{' …' if len(found) > 2 else ''} is there"
        hint = f"rename it to {SAFE_WEIGHTS}, or put the index of the parts there"
    return InvalidBenchmarkError(
        f"unreadable weights: {what}", where=str(folder / SAFE_WEIGHTS), hint=hint
    )


def _new_name(name: str) -> str:
    module, _, kind = name.rpartition(".")
    parent, _, part = module.rpartition(".")
    if ".attentions." in name and part in _OLD_NAMES:
        return f"{parent}.{_OLD_NAMES[part]}.{kind}"
    return name
