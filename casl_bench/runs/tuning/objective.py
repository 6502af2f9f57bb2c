"""The one number that a tuning sweep maximises."""

from __future__ import annotations

from dataclasses import dataclass

from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_success import flip_rate, mean_collateral, signed_target_change
from casl_bench.metrics.score_table import ScoreTable
from casl_bench.runs.cells.strength_selection import choose_strength


@dataclass(frozen=True)
class Objective:
    """How good the edits of one concept are, with what the number is made of.

    Attributes:
        strength: chosen by the suite's rule.
        flip_rate: of the images without the attribute, the share that has it after the edit;
            None where every reconstruction had it already.
        target_change: mean change of the target towards the concept, in sd; may be negative.
        collateral: mean absolute change of the other attributes, in sd.
    """

    strength: float
    flip_rate: float | None
    target_change: float
    collateral: float

    @property
    def score(self) -> float:
        """flip_rate * T / (T + C), in [0, 1], higher is better; 0 where nothing moved as asked.

        T is the target change clipped at >= 0, C the collateral. The first factor asks whether the
        edit does what was asked, the second how much of all it does is that. Neither suffices:
        flips alone are had by pushing until everything changes, selectivity alone by hardly
        moving. EPR, which the tables show, has C alone below the line: unbounded and undefined
        where C is small, so its mean over concepts would be decided by one of them.
        """
        target = max(self.target_change, 0.0)
        if not self.flip_rate or not target:
            return 0.0
        return self.flip_rate * (target / (target + self.collateral))


def objective(table: ScoreTable, attribute: str, spread: Array) -> Objective:
    """Measure edits at the strength which the suite's rule chooses, by the primary classifier.

    Args:
        table: scores of validation images at the suite's strengths.
        attribute: the concept's.
        spread: [A] standard deviation of the primary classifier's logits.
    """
    strength = choose_strength(table, attribute, spread)
    scores = table.at(strength, attribute, spread)
    target = scores.target
    base, edit = scores.base[:, target], scores.edit[:, target]
    return Objective(
        strength=strength,
        flip_rate=flip_rate(base, edit),
        target_change=signed_target_change(base, edit, float(spread[target])),
        collateral=mean_collateral(scores.base, scores.edit, target, spread)
        if scores.others
        else 0.0,
    )
