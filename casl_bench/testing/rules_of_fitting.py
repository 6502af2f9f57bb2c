"""What is asked of a method before and while it is fitted."""

from __future__ import annotations

import json
import re
from typing import get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from casl_bench.methods.method import MethodConfig, MethodInfo, Supervision
from casl_bench.testing.method_trial import MethodTrial
from casl_bench.testing.rules import (
    CheckFailed,
    NotRun,
    RuleBook,
    first_line,
    require,
    require_equal,
)
from casl_bench.testing.toy_task import UndeclaredUse

FITTING: RuleBook[MethodTrial] = RuleBook()


@FITTING.rule
def check_info(trial: MethodTrial) -> None:
    """Its info is complete."""
    info = trial.info
    require(isinstance(info, MethodInfo), f"info is a {type(info).__name__}, not a MethodInfo")
    require(
        bool(re.fullmatch(r"[a-z][a-z0-9_]*", info.name)), f"name '{info.name}' is not lower_snake"
    )
    require(
        type(info.version) is int and info.version >= 1, f"version is {info.version!r}, not >= 1"
    )
    require(bool(info.title.strip()), "title is empty")
    require(bool(info.source.strip()), 'source is empty: name the paper, or "control"')
    require(
        info.supervision in get_args(Supervision),
        f"supervision '{info.supervision}' is none of {', '.join(get_args(Supervision))}",
    )
    for part in ("needs_oracle", "needs_scorer", "beside", "matched", "draws", "on_present"):
        require(info.control or not getattr(info, part), f"{part} is for controls only")


@FITTING.rule
def check_settings(trial: MethodTrial) -> None:
    """Its settings survive JSON."""
    for method in (trial.method_class(), trial.make_method()):
        config = method.config
        require(
            isinstance(config, MethodConfig),
            f"config is a {type(config).__name__}, not a MethodConfig",
        )
        try:
            text = json.dumps(config.model_dump(mode="json"), allow_nan=False)
        except ValueError as error:
            raise CheckFailed(f"the settings are not JSON: {error}") from error
        again = trial.method_class(**json.loads(text)).config
        require(again == config, f"settings {config} come back from JSON as {again}")


@FITTING.rule
def check_declarations(trial: MethodTrial) -> None:
    """It uses only what it declares."""
    try:
        trial.fit_outcome()
    except UndeclaredUse as error:
        raise CheckFailed(str(error)) from None
    except Exception as error:
        raise NotRun("the method does not fit the toy task") from error


@FITTING.rule
def check_fit(trial: MethodTrial) -> None:
    """It fits the toy task."""
    try:
        trial.fit_outcome()
    except UndeclaredUse as error:
        raise NotRun(str(error)) from error


@FITTING.rule
def check_unet_calls(trial: MethodTrial) -> None:
    """U-Net calls are reported as made."""
    first = trial.needed(trial.fit_outcome)
    reported = trial.editor.cost.unet_calls
    require(
        reported == first.unet_calls,
        f"the fit reports {reported} U-Net calls, {first.unet_calls} were made",
    )
    second = trial.needed(trial.second_fit_outcome)
    again = second.result.cost.unet_calls
    require(
        (again, second.unet_calls) == (reported, first.unet_calls),
        f"two equal fits report {reported} and {again} U-Net calls",
    )


@FITTING.rule
def check_parameters(trial: MethodTrial) -> None:
    """Parameters are counted."""
    cost, kept = trial.editor.cost, sum(t.numel() for t in trial.editor.state().values())
    require(
        type(cost.parameters) is int and cost.parameters >= 0,
        f"cost.parameters is {cost.parameters!r}, not an integer >= 0",
    )
    require(
        cost.parameters <= kept,
        f"cost.parameters is {cost.parameters}, but the state holds only {kept} numbers",
    )
    require(cost.seconds >= 0, f"cost.seconds is {cost.seconds}")


@FITTING.rule
def check_state(trial: MethodTrial) -> None:
    """A stored and restored state gives the same pixels."""
    edited, editor = trial.edited, trial.editor
    state = editor.state()
    require(
        isinstance(state, dict)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()),
        "state() is not a dict of names to tensors",
    )
    try:
        # As the runner keeps it.
        stored = load(save({k: v.detach().contiguous() for k, v in state.items()}))
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckFailed(f"state() cannot be kept as safetensors: {first_line(error)}") from error
    restored = trial.make_method().restore(trial.task("restored"), stored)
    require_equal(trial.edit(restored), edited, "edits before and after storing the state")


@FITTING.rule
def check_resumed_fit(trial: MethodTrial) -> None:
    """A repeated fit in the same workspace gives the same pixels."""
    edited = trial.edited
    if not torch.equal(trial.needed(trial.second_edit_outcome), edited):
        raise NotRun("two fits differ already in fresh workspaces")
    editor = trial.make_method().fit(trial.task("first"))
    require_equal(
        trial.edit(editor), edited, "edits after a fit, and after it was repeated in its workspace"
    )
