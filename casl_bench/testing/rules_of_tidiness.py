"""What a method must leave as it found it."""

from __future__ import annotations

from casl_bench.testing.method_trial import STRENGTHS, MethodTrial
from casl_bench.testing.rules import RuleBook, require, require_equal
from casl_bench.testing.watch import PlannedFailure, failing_decoder

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
        with failing_decoder(trial.tasks.world.backbone, at_pass=2) as reached:
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
