"""What is asked of a fitted editor and its pixels."""

from __future__ import annotations

import torch

from casl_bench.methods.method import SupportsDeltaH, SupportsLatentRanking, SupportsWeightDelta
from casl_bench.testing.method_trial import STRENGTHS, MethodTrial
from casl_bench.testing.rules import RuleBook, require, require_equal
from casl_bench.testing.toy_task import NUM_TEST

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
    weights = trial.tasks.world.backbone.unet.state_dict()
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
    _, height, width = trial.tasks.world.backbone.h_shape
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
