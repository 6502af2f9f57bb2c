"""diffusers' description of a noise schedule ↔ ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from casl_bench.backbones.diffusers_unet import BackboneConfig, ScheduleConfig
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import read_json

SCHEDULER_FILE = "scheduler_config.json"
SCHEDULER_FOLDERS = ("", "scheduler")

# Schedulers whose noise is what `ScheduleConfig` can say; they share their fields and defaults.
_SCHEDULERS = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler", "DEISMultistepScheduler",
)  # fmt: skip
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def scheduler_settings(folder: Path) -> dict[str, Any]:
    """The fields `schedule` and `prediction` of a `BackboneConfig`.

    Args:
        folder: with scheduler_config.json at its root or in `scheduler/`.

    Raises:
        InvalidBenchmarkError: if there is none, or it says what cannot be run here.
    """
    paths = [folder / sub / SCHEDULER_FILE for sub in SCHEDULER_FOLDERS]
    path = next((p for p in paths if p.exists()), None)
    if path is None:
        raise InvalidBenchmarkError(
            "there is no scheduler_config.json, so the noise is not known",
            where=str(folder),
            mend="put it beside config.json or in scheduler/",
        )
    found = read_json_object(path)
    kind, schedule = found.get("_class_name"), found.get("beta_schedule", "linear")
    prediction = found.get("prediction_type", "epsilon")
    for fault, told in (
        (kind not in _SCHEDULERS, f"scheduler {kind}"),
        (found.get("trained_betas") is not None, "trained_betas"),
        (bool(found.get("rescale_betas_zero_snr")), "rescale_betas_zero_snr"),
        (prediction not in _PREDICTIONS, f"prediction_type {prediction}"),
    ):
        if fault:
            raise InvalidBenchmarkError(f"{told} cannot be run", where=str(path))
    fields = {
        "kind": schedule,
        "num_timesteps": found.get("num_train_timesteps", 1000),
        "beta_start": found.get("beta_start", 1e-4),
        "beta_end": found.get("beta_end", 0.02),
    }
    try:
        noise = ScheduleConfig.model_validate(fields)
    except ValidationError as error:
        fault_at = error.errors()[0]["loc"][0]
        raise InvalidBenchmarkError(
            f"a noise schedule of {fault_at} {fields[str(fault_at)]} cannot be run",
            where=str(path),
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


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InvalidBenchmarkError: if the file is absent or holds something else.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise InvalidBenchmarkError(
            f"unreadable config: {error.strerror or type(error).__name__}", where=str(path)
        ) from error
    except ValueError as error:
        raise InvalidBenchmarkError("the config is not JSON", where=str(path)) from error
    if not isinstance(content, dict):
        raise InvalidBenchmarkError("the config is not a JSON object", where=str(path))
    return content
