"""The conformance suite: what the benchmark relies upon in every editing method, ours and yours.

The same checks serve `python -m casl_bench.conformance my_method.py` and our own tests.
"""

from __future__ import annotations

import inspect
import json
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import click
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from casl_bench.conformance import (
    CheckFailed,
    NotRun,
    RuleBook,
    first_line,
    require,
    require_equal,
    require_lower_snake,
)
from casl_bench.conformance.check_sae import sae_checks
from casl_bench.conformance.method_trial import (
    STRENGTHS,
    MethodClass,
    MethodTrial,
    PlannedFailure,
    failing_decoder,
)
from casl_bench.conformance.toy_domain import NUM_TEST, UndeclaredUse
from casl_bench.core.command import exit_code_of
from casl_bench.core.errors import UsageError, unknown_name
from casl_bench.core.registry import Registry, load_plugin
from casl_bench.methods.method import (
    METHODS,
    MethodConfig,
    MethodInfo,
    Supervision,
    SupportsDeltaH,
    SupportsLatentRanking,
    SupportsWeightDelta,
)
from casl_bench.runs.names import load_registries
from casl_bench.sae.dictionary import SAES, dictionary_class

METHOD_RULES: RuleBook[MethodTrial] = RuleBook()

# What is asked of a method before and while it is fitted.


@METHOD_RULES.rule
def check_info(trial: MethodTrial) -> None:
    """Its info is complete."""
    info = trial.info
    require(isinstance(info, MethodInfo), f"info is a {type(info).__name__}, not a MethodInfo")
    require_lower_snake("name", info.name)
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
    require(not (info.control and info.reference), "a control is in every run anyway: no reference")


@METHOD_RULES.rule
def check_settings(trial: MethodTrial) -> None:
    """Its settings survive JSON."""
    for method in (trial.method_class(), trial.make_method()):
        config, kind = method.config, type(method.config).__name__
        require(isinstance(config, MethodConfig), f"config is a {kind}, not a MethodConfig")
        try:
            text = json.dumps(config.model_dump(mode="json"), allow_nan=False)
        except ValueError as error:
            raise CheckFailed(f"the settings are not JSON: {error}") from error
        again = trial.method_class(**json.loads(text)).config
        require(again == config, f"settings {config} come back from JSON as {again}")


@METHOD_RULES.rule
def check_declarations(trial: MethodTrial) -> None:
    """It uses only what it declares."""
    try:
        trial.fit_outcome()
    except UndeclaredUse as error:
        raise CheckFailed(str(error)) from None
    except Exception as error:
        raise NotRun("the method does not fit the toy task") from error


@METHOD_RULES.rule
def check_fit(trial: MethodTrial) -> None:
    """It fits the toy task."""
    try:
        trial.fit_outcome()
    except UndeclaredUse as error:
        raise NotRun(str(error)) from error


@METHOD_RULES.rule
def check_random_numbers(trial: MethodTrial) -> None:
    """A fit declared deterministic takes no random number."""
    trial.needed(trial.second_fit_outcome)
    used = trial.took_random_numbers
    require(
        not (trial.info.deterministic and used),
        "the fit takes random numbers of task.generator; declare deterministic=False",
    )


@METHOD_RULES.rule
def check_unet_calls(trial: MethodTrial) -> None:
    """U-Net calls are reported as made."""
    made, reported = trial.needed(trial.fit_outcome).unet_calls, trial.editor.cost.unet_calls
    require(made == reported, f"the fit reports {reported} U-Net calls, {made} were made")
    second = trial.needed(trial.second_fit_outcome)
    again = second.result.cost.unet_calls
    require(
        again == second.unet_calls == reported,
        f"two equal fits report {reported} and {again} U-Net calls",
    )


@METHOD_RULES.rule
def check_parameters(trial: MethodTrial) -> None:
    """Parameters are counted."""
    cost, kept = trial.editor.cost, sum(t.numel() for t in trial.editor.state().values())
    count, what = cost.parameters, f"cost.parameters is {cost.parameters!r}"
    require(type(count) is int and count >= 0, f"{what}, not an integer >= 0")
    require(count <= kept, f"{what}, but the state holds only {kept} numbers")
    require(cost.seconds >= 0, f"cost.seconds is {cost.seconds}")


@METHOD_RULES.rule
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


@METHOD_RULES.rule
def check_resumed_fit(trial: MethodTrial) -> None:
    """A repeated fit in the same workspace gives the same pixels."""
    edited = trial.edited
    if not torch.equal(trial.needed(trial.second_edit_outcome), edited):
        raise NotRun("two fits differ already in fresh workspaces")
    again = trial.edit(trial.make_method().fit(trial.task("first")))
    require_equal(again, edited, "edits after a fit, and after it was repeated in its workspace")


# What is asked of a fitted editor and its pixels.


@METHOD_RULES.rule
def check_edit(trial: MethodTrial) -> None:
    """Edits have the right shape and type and are finite."""
    trial.edit_outcome()


@METHOD_RULES.rule
def check_zero_strength(trial: MethodTrial) -> None:
    """Zero strength is the reconstruction."""
    zero = trial.edited[STRENGTHS.index(0.0)]
    require_equal(zero, trial.tasks.test.reconstruction, "strength 0 and the reconstruction")


@METHOD_RULES.rule
def check_same_seed(trial: MethodTrial) -> None:
    """Same seed, same pixels."""
    edited = trial.edited
    require_equal(trial.edit(trial.editor), edited, "two edits by one editor")
    require_equal(trial.second_edit_outcome(), edited, "edits after two fits with equal generators")


@METHOD_RULES.rule
def check_batch(trial: MethodTrial) -> None:
    """A batch of 4 is four batches of 1."""
    edited = trial.edited
    for place in range(NUM_TEST):
        alone = trial.edit(trial.editor, places=[place])
        require_equal(alone[:, 0], edited[:, place], "an image edited alone and in a batch of 4")


@METHOD_RULES.rule
def check_names(trial: MethodTrial) -> None:
    """What images are called changes nothing: the runner gives them random names."""
    edited = trial.edited
    if not trial.info.needs_oracle:
        require_equal(trial.edit(trial.editor, renamed=True), edited, "edits of renamed images")


@METHOD_RULES.rule
def check_strengths(trial: MethodTrial) -> None:
    """Strengths together are strengths one at a time."""
    edited = trial.edited
    for place, strength in enumerate(STRENGTHS):
        alone = trial.edit(trial.editor, strengths=[strength])[0]
        what = f"strength {strength} alone and among {len(STRENGTHS)}"
        require_equal(alone, edited[place], what)


@METHOD_RULES.rule
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


@METHOD_RULES.rule
def check_delta_h(trial: MethodTrial) -> None:
    """A delta_h, where offered, has the shape of h."""
    editor = trial.editor
    if not isinstance(editor, SupportsDeltaH):
        return
    store = trial.task("delta_h").trajectories
    for step in (0, len(store.timesteps) - 1):
        h, t = store.h(step), store.timesteps[step]
        try:
            shape = editor.delta_h(h, t, 1.0).shape
        except Exception as error:
            raise CheckFailed(
                f"delta_h fails at timestep {t} with {type(error).__name__}: {error}; it is asked "
                "at every timestep of the walk: return zeros where your editor does nothing"
            ) from error
        require(shape == h.shape, f"delta_h is {list(shape)} for h {list(h.shape)}")


@METHOD_RULES.rule
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


@METHOD_RULES.rule
def check_weight_delta(trial: MethodTrial) -> None:
    """A weight_delta, where offered, fits the U-Net."""
    editor = trial.editor
    if not isinstance(editor, SupportsWeightDelta):
        return
    weights = trial.tasks.domain.backbone.unet.state_dict()
    for name, delta in editor.weight_delta().items():
        require(name in weights, f"the U-Net has no weight '{name}'")
        found, expected = list(delta.shape), list(weights[name].shape)
        require(found == expected, f"weight_delta of {name} is {found}, not {expected}")


@METHOD_RULES.rule
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


# What a method must leave as it found it.


@METHOD_RULES.rule
def check_weights(trial: MethodTrial) -> None:
    """Frozen weights stay as they are."""
    _require_unchanged(trial, "weights")


@METHOD_RULES.rule
def check_hooks(trial: MethodTrial) -> None:
    """Hooks are gone."""
    _require_unchanged(trial, "hooks")


@METHOD_RULES.rule
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

    whole = trial.needed(trial.edit_outcome)
    for part, changed in trial.observe(interrupted).changed.items():
        # What an edit that succeeds changes too is another check's business.
        require(
            not changed or bool(whole.changed[part]),
            f"an edit that fails half way leaves changed: {changed}",
        )
    require_equal(trial.edit(editor), edited, "edits before and after one that failed half way")


@METHOD_RULES.rule
def check_globals(trial: MethodTrial) -> None:
    """Global state is untouched."""
    _require_unchanged(trial, "globals")


@METHOD_RULES.rule
def check_inputs(trial: MethodTrial) -> None:
    """The images and labels given stay as they are."""
    _ = trial.edited
    changed = trial.changed_inputs()
    require(not changed, f"{changed} was changed in place")


@METHOD_RULES.rule
def check_files(trial: MethodTrial) -> None:
    """Nothing is written outside the workspace."""
    _ = trial.edited
    strays = trial.stray_files()
    require(not strays, f"files outside task.workspace: {', '.join(strays)}")


def _require_unchanged(trial: MethodTrial, part: str) -> None:
    for work, outcome in (("fit", trial.fit_outcome), ("edit", trial.edit_outcome)):
        changed = trial.needed(outcome).changed[part]
        hint = "" if not changed else _hint(part, changed, work)
        require(not changed, f"{work} changes {changed}{hint}")


def _hint(part: str, changed: str, work: str) -> str:
    """What to do about a thing that a method leaves changed."""
    if "random state" in changed:
        return (
            ": draw from task.generator; where an import draws them, import that module at the "
            f"top of your file, not within {work}"
        )
    return {
        "weights": ": work on a copy (copy.deepcopy), or put the values back in a finally block",
        "hooks": ": remove them in a finally block, so that an error leaves none, too",
        "globals": ": put it back in a finally block",
    }.get(part, "")


def method_checks(method_class: MethodClass) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every check of a method class.

    The checks share one trial, made on first demand: they may be called in any order, or only
    some of them. The whole takes seconds. A method may define a classmethod `toy_config()` that
    returns settings for it; otherwise its defaults are used, with few `fit_steps` where it has
    such a setting.

    Yields:
        (readable name, callable). The callable raises `CheckFailed`, or whatever the method
        raised, where the rule is broken, and `NotRun` where an earlier failure makes the check
        meaningless.
    """
    folder = tempfile.TemporaryDirectory(prefix="casl_bench_checks_")
    trial = MethodTrial(method_class, Path(folder.name).resolve())
    # The folder lives as long as the trial, which the checks keep.
    weakref.finalize(trial, folder.cleanup)
    yield from METHOD_RULES.checks(trial)


@click.command(name="python -m casl_bench.conformance")
@click.argument("target")
@click.option("--method", "name", help="Check only this one of the target's methods.")
def command(target: str, name: str | None) -> int:
    """Check the methods and dictionaries of TARGET on toy data, in seconds and without a GPU.

    TARGET is a Python file that registers some, an installed package that offers some through the
    entry points `casl_bench.methods` and `casl_bench.saes`, or the name of a known one.

    Exit codes: 0 every check passes; 1 a check fails; 2 the target cannot be used.
    """
    failures = [_report(n, checks) for n, checks in _found(target, name)]
    return 1 if any(failures) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code and never raises for a user's mistake."""
    # click returns 0 after --help.
    return exit_code_of(
        lambda: int(command.main(arguments, prog_name=command.name, standalone_mode=False) or 0)
    )


Checks = Iterator[tuple[str, Callable[[], None]]]


def _found(target: str, name: str | None) -> list[tuple[str, Checks]]:
    """Names of what the target registers, each with its checks."""
    path = Path(target)
    if path.suffix == ".py" or path.is_file():
        load_plugin(path)
        advice = "decorate a class with @register_method or @register_sae"
    else:
        load_registries()
        advice = "give a .py file, an installed package or a method's name"
    package = target.replace("-", "_")

    def of_target(registry: Registry[Any]) -> list[str]:
        if path.suffix == ".py" or path.is_file():
            return [n for n in registry if _source(registry.factory(n)) == path.resolve()]
        return [n for n in registry if n == target or n.startswith(f"{package}/")]

    found: dict[str, Checks] = {n: method_checks(METHODS.factory(n)) for n in of_target(METHODS)}
    found |= {n: sae_checks(dictionary_class(n)) for n in of_target(SAES) if n not in found}
    if not found:
        broken = "; ".join(f"{m}: {r}" for m, r in {**METHODS.broken, **SAES.broken}.items())
        hint = f"{advice} (failed to import: {broken})" if broken else advice
        raise UsageError("no method to check", where=target, hint=hint)
    if name is None:
        return [*found.items()]
    chosen = [(n, c) for n, c in found.items() if name in (n, n.rpartition("/")[2])]
    if not chosen:
        raise unknown_name("method", name, found)
    return chosen


def _source(factory: Callable[..., Any]) -> Path | None:
    try:
        source = inspect.getsourcefile(factory)
    except TypeError:
        return None
    return Path(source).resolve() if source else None


def _report(name: str, checks: Checks) -> int:
    """Run and print the checks of one method or dictionary; returns how many failed."""
    click.echo(f"checking {name}")
    failed = total = 0
    for rule, check in checks:
        total += 1
        try:
            check()
        except NotRun as reason:
            click.echo(f"  --    {rule}: not run: {first_line(reason)}")
        except Exception as error:  # noqa: BLE001 - a third-party method may fail in any way
            failed += 1
            click.echo(f"  FAIL  {rule}: {first_line(error)}")
        else:
            click.echo(f"  ok    {rule}")
    verdict = f"{failed} of {total} checks failed" if failed else f"all {total} checks passed"
    click.echo(f"{name}: {verdict}")
    return failed
