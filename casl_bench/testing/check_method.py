"""The conformance suite: what the benchmark relies upon in every editing method, ours and yours.

Each check is a small function of a `MethodTrial`; its name reads as the rule it checks. The same
list serves `python -m casl_bench.testing my_method.py` and our own tests.
"""

from __future__ import annotations

import json
import re
import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from casl_bench.methods.method import (
    Editor,
    MethodConfig,
    MethodInfo,
    Supervision,
    SupportsDeltaH,
    SupportsLatentRanking,
)
from casl_bench.testing.method_trial import (
    STRENGTHS,
    CheckFailed,
    MethodClass,
    MethodTrial,
    NotRun,
)
from casl_bench.testing.toy_task import NUM_TEST, UndeclaredUse
from casl_bench.testing.watch import PlannedFailure, failing_decoder

Check = Callable[[MethodTrial], None]


def method_checks(method_class: MethodClass) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every check that applies to a method class, in a sensible order.

    The checks share one lazily made trial: they may be called in any order, or only some of them.

    Args:
        method_class: as registered.

    Yields:
        (readable name, callable); the callable raises `CheckFailed`, or whatever the method
        raised, where the rule is broken, and `NotRun` where an earlier failure makes the check
        meaningless.
    """
    folder = tempfile.TemporaryDirectory(prefix="casl_bench_checks_")
    trial = MethodTrial(method_class, Path(folder.name).resolve())
    # The folder lives as long as the trial, which the checks below keep.
    weakref.finalize(trial, folder.cleanup)
    for name, check in CHECKS.items():
        yield name, partial(check, trial)


def check_info(trial: MethodTrial) -> None:
    info = trial.info
    _require(isinstance(info, MethodInfo), f"info is a {type(info).__name__}, not a MethodInfo")
    _require(
        bool(re.fullmatch(r"[a-z][a-z0-9_]*", info.name)), f"name '{info.name}' is not lower_snake"
    )
    _require(
        type(info.version) is int and info.version >= 1, f"version is {info.version!r}, not >= 1"
    )
    _require(bool(info.title.strip()), "title is empty")
    _require(bool(info.source.strip()), 'source is empty: name the paper, or "control"')
    _require(
        info.supervision in get_args(Supervision),
        f"supervision '{info.supervision}' is none of {', '.join(get_args(Supervision))}",
    )
    for part in ("needs_oracle", "beside"):
        _require(info.control or not getattr(info, part), f"{part} is for controls only")


def check_settings(trial: MethodTrial) -> None:
    for method in (trial.method_class(), trial.make_method()):
        config = method.config
        _require(
            isinstance(config, MethodConfig),
            f"config is a {type(config).__name__}, not a MethodConfig",
        )
        try:
            text = json.dumps(config.model_dump(mode="json"), allow_nan=False)
        except ValueError as error:
            raise CheckFailed(f"the settings are not JSON: {error}") from error
        again = trial.method_class(**json.loads(text)).config
        _require(again == config, f"settings {config} come back from JSON as {again}")


def check_declarations(trial: MethodTrial) -> None:
    try:
        trial.fit_outcome()
    except UndeclaredUse as error:
        raise CheckFailed(str(error)) from None
    except Exception as error:
        raise NotRun("the method does not fit the toy task") from error


def check_fit(trial: MethodTrial) -> None:
    try:
        trial.fit_outcome()
    except UndeclaredUse as error:
        raise NotRun(str(error)) from error


def check_edit(trial: MethodTrial) -> None:
    trial.edit_outcome()


def check_zero_strength(trial: MethodTrial) -> None:
    zero = trial.edited[STRENGTHS.index(0.0)]
    _require_equal(zero, trial.tasks.test.reconstruction, "strength 0 and the reconstruction")


def check_same_seed(trial: MethodTrial) -> None:
    edited = trial.edited
    _require_equal(trial.edit(trial.editor), edited, "two edits by one editor")
    second = trial.second_fit_outcome().result
    _require_equal(trial.edit(second), edited, "edits after two fits with equal generators")


def check_resumed_fit(trial: MethodTrial) -> None:
    edited = trial.edited
    editor = trial.make_method().fit(trial.task("first"))
    _require_equal(
        trial.edit(editor), edited, "edits after a fit, and after it was repeated in its workspace"
    )


def check_batch(trial: MethodTrial) -> None:
    edited = trial.edited
    for place in range(NUM_TEST):
        alone = trial.edit(trial.editor, places=[place])
        _require_equal(alone[:, 0], edited[:, place], "an image edited alone and in a batch of 4")


def check_strengths(trial: MethodTrial) -> None:
    edited = trial.edited
    for place, strength in enumerate(STRENGTHS):
        alone = trial.edit(trial.editor, strengths=[strength])
        _require_equal(
            alone[0], edited[place], f"strength {strength} alone and among {len(STRENGTHS)}"
        )


def check_negative_strength(trial: MethodTrial) -> None:
    edited = trial.edited
    if not trial.info.bidirectional:
        return
    (negative,) = trial.edit(trial.editor, strengths=[-1.0])
    _require(bool(torch.isfinite(negative).all()), "strength -1 gives NaN or infinity")
    positive, reconstruction = edited[STRENGTHS.index(1.0)], edited[STRENGTHS.index(0.0)]
    if torch.equal(positive, reconstruction):
        return
    for other, name in ((positive, "as strength 1"), (reconstruction, "as strength 0")):
        _require(
            not torch.equal(negative, other),
            f"strength -1 gives the same pixels {name}; declare bidirectional=False",
        )


def check_state(trial: MethodTrial) -> None:
    edited, editor = trial.edited, trial.editor
    state = editor.state()
    _require(
        isinstance(state, dict)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()),
        "state() is not a dict of names to tensors",
    )
    try:
        stored = load(save(state))
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckFailed(f"state() cannot be kept as safetensors: {error}") from error
    restored = trial.make_method().restore(trial.task("restored"), stored)
    _require_equal(trial.edit(restored), edited, "edits before and after storing the state")


def check_weights(trial: MethodTrial) -> None:
    _require_unchanged(trial, "changed_weights")


def check_hooks(trial: MethodTrial) -> None:
    _require_unchanged(trial, "changed_hooks")


def check_failed_edit(trial: MethodTrial) -> None:
    edited, editor = trial.edited, trial.editor

    def interrupted() -> None:
        with failing_decoder(trial.tasks.world.backbone, at_pass=2) as reached:
            try:
                editor.edit(trial.tasks.test_images(), STRENGTHS)
            except PlannedFailure:
                return
            _require(not reached(), "an error in the middle of an edit does not reach the caller")

    observed = trial.observe(interrupted)
    for part in ("changed_weights", "changed_hooks", "changed_globals"):
        changed = getattr(observed, part)
        _require(not changed, f"an edit that fails half way leaves changed: {changed}")
    _require_equal(trial.edit(editor), edited, "edits before and after one that failed half way")


def check_globals(trial: MethodTrial) -> None:
    _require_unchanged(trial, "changed_globals")


def check_inputs(trial: MethodTrial) -> None:
    _ = trial.edited
    changed = trial.changed_inputs()
    _require(not changed, f"{changed} was changed in place")


def check_unet_calls(trial: MethodTrial) -> None:
    first = trial.needed(trial.fit_outcome)
    reported = trial.editor.cost.unet_calls
    _require(
        reported == first.unet_calls,
        f"the fit reports {reported} U-Net calls, {first.unet_calls} were made",
    )
    second = trial.needed(trial.second_fit_outcome)
    again = second.result.cost.unet_calls
    _require(
        (again, second.unet_calls) == (reported, first.unet_calls),
        f"two equal fits report {reported} and {again} U-Net calls",
    )


def check_parameters(trial: MethodTrial) -> None:
    cost, kept = trial.editor.cost, sum(t.numel() for t in trial.editor.state().values())
    _require(
        type(cost.parameters) is int and cost.parameters >= 0,
        f"cost.parameters is {cost.parameters!r}, not an integer >= 0",
    )
    _require(
        cost.parameters <= kept,
        f"cost.parameters is {cost.parameters}, but the state holds only {kept} numbers",
    )
    _require(cost.seconds >= 0, f"cost.seconds is {cost.seconds}")


def check_files(trial: MethodTrial) -> None:
    _ = trial.edited
    strays = trial.stray_files()
    _require(not strays, f"files outside task.workspace: {', '.join(strays)}")


def check_delta_h(trial: MethodTrial) -> None:
    editor = trial.editor
    if not isinstance(editor, SupportsDeltaH):
        return
    store = trial.task("delta_h").trajectories
    for step in (0, len(store.timesteps) - 1):
        h = store.h(step)
        delta_h = editor.delta_h(h, store.timesteps[step], 1.0)
        _require(
            delta_h.shape == h.shape,
            f"delta_h is {list(delta_h.shape)} for h {list(h.shape)}",
        )
        _require(bool(torch.isfinite(delta_h).all()), "delta_h holds NaN or infinity")


def check_rankings(trial: MethodTrial) -> None:
    editor = trial.editor
    if not isinstance(editor, SupportsLatentRanking):
        return
    _, height, width = trial.tasks.world.backbone.h_shape
    d_sae = trial.tasks.sae.d_sae
    for name, ranking, count in (
        ("latent_ranking", editor.latent_ranking(), d_sae),
        ("unit_ranking", editor.unit_ranking(), d_sae * height * width),
    ):
        _require(
            ranking.dtype == torch.int64
            and torch.equal(ranking.sort().values, torch.arange(count)),
            f"{name} is not an int64 permutation of the {count} places",
        )


CHECKS: dict[str, Check] = {
    "its info is complete": check_info,
    "its settings survive JSON": check_settings,
    "it uses only what it declares": check_declarations,
    "it fits the toy task": check_fit,
    "edits have the right shape and type and are finite": check_edit,
    "zero strength is the reconstruction": check_zero_strength,
    "same seed, same pixels": check_same_seed,
    "a repeated fit in the same workspace gives the same pixels": check_resumed_fit,
    "a batch of 4 is four batches of 1": check_batch,
    "strengths together are strengths one at a time": check_strengths,
    "a negative strength edits the other way, where declared": check_negative_strength,
    "a stored and restored state gives the same pixels": check_state,
    "frozen weights stay as they are": check_weights,
    "hooks are gone": check_hooks,
    "an edit that fails half way leaves nothing behind": check_failed_edit,
    "global state is untouched": check_globals,
    "the images given stay as they are": check_inputs,
    "U-Net calls are reported as made": check_unet_calls,
    "parameters are counted": check_parameters,
    "nothing is written outside the workspace": check_files,
    "delta_h, where offered, has the shape of h": check_delta_h,
    "rankings, where offered, are permutations": check_rankings,
}
"""Name → check, in the order in which they are made."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def _require_equal(left: Tensor, right: Tensor, what: str) -> None:
    if left.shape != right.shape:
        raise CheckFailed(f"{what} differ in shape: {list(left.shape)}, {list(right.shape)}")
    if not torch.equal(left, right):
        gap = float((left - right).abs().max())
        raise CheckFailed(f"{what} differ by up to {gap:.3g}; they must be equal bit for bit")


def _require_unchanged(trial: MethodTrial, part: str) -> None:
    for work, outcome in (("fit", trial.fit_outcome), ("edit", trial.edit_outcome)):
        observed = trial.needed(outcome)
        changed = getattr(observed, part)
        _require(not changed, f"{work} changes {changed}")
