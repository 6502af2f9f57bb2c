"""Which strength a method is reported at: chosen on validation images, applied to test images."""

from __future__ import annotations

from casl_bench.metrics.edit_success import flip_rate, signed_target_change
from casl_bench.results.score_table import Array, ScoreTable

FLIP_GOAL = 0.5
"""The smallest strength that flips at least this share of validation images is taken."""


def choose_strength(table: ScoreTable, attribute: str, spread: Array) -> float:
    """The smallest strength that flips half of the images, by the primary classifier.

    Comparing methods at one effect rather than at one number called strength: EPR grows with
    strength, so each method at a strength somebody liked would rank the strengths. Where no
    strength flips that many, the one with the largest signed change is taken.

    Args:
        table: scores of validation images.
        attribute: the concept's.
        spread: [A] standard deviation of the primary classifier's logits.
    """
    effects = []
    for strength in sorted(table.strengths):
        scores = table.at(strength, attribute, spread)
        base, edit = scores.base[:, scores.target], scores.edit[:, scores.target]
        flipped = flip_rate(base, edit) or 0.0
        if flipped >= FLIP_GOAL:
            return strength
        change = signed_target_change(base, edit, float(spread[scores.target]))
        effects.append((change, -strength))
    return -max(effects)[1]
