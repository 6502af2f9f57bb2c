"""What is asked of a fitted editor and its pixels."""

from __future__ import annotations

import json
import re
from typing import get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from casl_bench.conformance.method_trial import (
    STRENGTHS,
    MethodTrial,
    PlannedFailure,
    failing_decoder,
)
from casl_bench.conformance.rules import (
    CheckFailed,
    NotRun,
    RuleBook,
    first_line,
    require,
    require_equal,
)
from casl_bench.conformance.toy_domain import NUM_TEST, UndeclaredUse
from casl_bench.methods.method import (
    MethodConfig,
    MethodInfo,
    Supervision,
    SupportsDeltaH,
    SupportsLatentRanking,
    SupportsWeightDelta,
)

EDITING: RuleBook[MethodTrial] = RuleBook()


@EDITING.rule
def check_edit(trial: MethodTrial) -> None:
    """Edits have the right shape and type and are finite."""
    trial.edit_outcome()


@EDITING.rule
def check_zero_strength(trial: MethodTrial) -> None:
    """Zero strength is the reconstruction."""
    zero = trial.edited[STRENGTHS.index(0.0)]
    require_equal(zero, trial.tasks.test.reconstruction, "strength 0 and the reconstruction")


@EDITING.rule
def check_same_seed(trial: MethodTrial) -> None:
    """Same seed, same pixels."""
    edited = trial.edited
    require_equal(trial.edit(trial.editor), edited, "two edits by one editor")
    require_equal(trial.second_edit_outcome(), edited, "edits after two fits with equal generators")


@EDITING.rule
def check_batch(trial: MethodTrial) -> None:
    """A batch of 4 is four batches of 1."""
    edited = trial.edited
    for place in range(NUM_TEST):
        alone = trial.edit(trial.editor, places=[place])
        require_equal(alone[:, 0], edited[:, place], "an image edited alone and in a batch of 4")


@EDITING.rule
def check_strengths(trial: MethodTrial) -> None:
    """Strengths together are strengths one at a time."""
    edited = trial.edited
    for place, strength in enumerate(STRENGTHS):
        alone = trial.edit(trial.editor, strengths=[strength])
        require_equal(
            alone[0], edited[place], f"strength {strength} alone and among {len(STRENGTHS)}"
        )


@EDITING.rule
def check_negative_strength(trial: MethodTrial) -> None:
    """A negative strength edits the other way, where declared."""
    edited = trial.edited
    if not trial.info.bidirectional:
        return
    (negative,) = trial.edit(trial.editor, strengths=[-1.0])
    require(bool(torch.isfinite(negative).all()), "strength -1 gives NaN or infinity")
    positive, reconstruction = edited[STRENGTHS.index(1.0)], edited[STRENGTHS.index(0.0)]
    if torch.equal(positive, reconstruction):
        return
    for other, name in ((positive, "as strength 1"), (reconstruction, "as strength 0")):
        require(
            not torch.equal(negative, other),
            f"strength -1 gives the same pixels {name}; declare bidirectional=False",
        )


@EDITING.rule
def check_delta_h(trial: MethodTrial) -> None:
    """A delta_h, where offered, has the shape of h."""
    editor = trial.editor
    if not isinstance(editor, SupportsDeltaH):
        return
    store = trial.task("delta_h").trajectories
    for step in (0, len(store.timesteps) - 1):
        h = store.h(step)
        delta_h = editor.delta_h(h, store.timesteps[step], 1.0)
        require(
            delta_h.shape == h.shape,
            f"delta_h is {list(delta_h.shape)} for h {list(h.shape)}",
        )


@EDITING.rule
def check_space(trial: MethodTrial) -> None:
    """The declared edit space is the one that the editor shows."""
    editor, space = trial.editor, trial.info.space
    for name, offers, shown in (
        ("h_space", "delta_h", isinstance(editor, SupportsDeltaH)),
        ("weights", "weight_delta", isinstance(editor, SupportsWeightDelta)),
    ):
        require(
            shown == (space == name),
            f"space is declared '{space}', and the editor has {'a' if shown else 'no'} {offers}: "
            f"'{name}' and {offers} belong together",
        )


@EDITING.rule
def check_weight_delta(trial: MethodTrial) -> None:
    """A weight_delta, where offered, fits the U-Net."""
    editor = trial.editor
    if not isinstance(editor, SupportsWeightDelta):
        return
    weights = trial.tasks.domain.backbone.unet.state_dict()
    for name, delta in editor.weight_delta().items():
        require(name in weights, f"the U-Net has no weight '{name}'")
        require(
            delta.shape == weights[name].shape,
            f"weight_delta of {name} is {list(delta.shape)}, not {list(weights[name].shape)}",
        )


@EDITING.rule
def check_rankings(trial: MethodTrial) -> None:
    """Rankings, where offered, are permutations."""
    editor = trial.editor
    if not isinstance(editor, SupportsLatentRanking):
        return
    _, height, width = trial.tasks.domain.backbone.h_shape
    d_sae = trial.tasks.sae.d_sae
    for name, ranking, count in (
        ("latent_ranking", editor.latent_ranking(), d_sae),
        ("unit_ranking", editor.unit_ranking(), d_sae * height * width),
    ):
        require(
            ranking.dtype == torch.int64
            and torch.equal(ranking.sort().values, torch.arange(count)),
            f"{name} is not an int64 permutation of the {count} places",
        )


# What is asked of a method before and while it is fitted.


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


# What a method must leave as it found it.


TIDINESS: RuleBook[MethodTrial] = RuleBook()


@TIDINESS.rule
def check_weights(trial: MethodTrial) -> None:
    """Frozen weights stay as they are."""
    _require_unchanged(trial, "changed_weights")


@TIDINESS.rule
def check_hooks(trial: MethodTrial) -> None:
    """Hooks are gone."""
    _require_unchanged(trial, "changed_hooks")


@TIDINESS.rule
def check_failed_edit(trial: MethodTrial) -> None:
    """An edit that fails half way leaves nothing behind."""
    edited, editor = trial.edited, trial.editor

    def interrupted() -> None:
        with failing_decoder(trial.tasks.domain.backbone, at_pass=2) as reached:
            try:
                editor.edit(trial.tasks.test_images(), STRENGTHS)
            except PlannedFailure:
                return
            require(not reached(), "an error in the middle of an edit does not reach the caller")

    whole, observed = trial.needed(trial.edit_outcome), trial.observe(interrupted)
    for part in ("changed_weights", "changed_hooks", "changed_globals"):
        changed = getattr(observed, part)
        # What an edit that succeeds changes too is another check's business.
        require(
            not changed or bool(getattr(whole, part)),
            f"an edit that fails half way leaves changed: {changed}",
        )
    require_equal(trial.edit(editor), edited, "edits before and after one that failed half way")


@TIDINESS.rule
def check_globals(trial: MethodTrial) -> None:
    """Global state is untouched."""
    _require_unchanged(trial, "changed_globals")


@TIDINESS.rule
def check_inputs(trial: MethodTrial) -> None:
    """The images given stay as they are."""
    _ = trial.edited
    changed = trial.changed_inputs()
    require(not changed, f"{changed} was changed in place")


@TIDINESS.rule
def check_files(trial: MethodTrial) -> None:
    """Nothing is written outside the workspace."""
    _ = trial.edited
    strays = trial.stray_files()
    require(not strays, f"files outside task.workspace: {', '.join(strays)}")


def _require_unchanged(trial: MethodTrial, part: str) -> None:
    for work, outcome in (("fit", trial.fit_outcome), ("edit", trial.edit_outcome)):
        observed = trial.needed(outcome)
        changed = getattr(observed, part)
        require(not changed, f"{work} changes {changed}")
