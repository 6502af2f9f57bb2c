"""What changes are measured in: the spread of logits, the perfect edit, unrelated images."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.images.dataset import Concept, SupportsOracle
from casl_bench.methods.method import MethodInfo
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.score_table import ScoreTable
from casl_bench.runs.cells.measuring import Unrelated, View
from casl_bench.runs.cells.scoring import Scorers, from_8_bits, to_8_bits
from casl_bench.runs.planning.judges import judges
from casl_bench.runs.shared_work.artefacts import Artefacts

BALANCED = 2.0
"""Distance in sd of two classes that are equally common and well apart."""


class Yardstick:
    """The units of one data set, each measured once.

    Args:
        artefacts: its images.
        scorers: its scorers.
    """

    def __init__(self, artefacts: Artefacts, scorers: Scorers) -> None:
        self.artefacts, self.scorers = artefacts, scorers
        self._full_effects: dict[str, Array] = {}

    @cached_property
    def train_logits(self) -> Array:
        """[K, n, A] of the training images."""
        return self.scorers.logits(self.artefacts.train.inversions.x_0)

    @cached_property
    def spreads(self) -> Array:
        """[K, A] standard deviation of each classifier's logits over the training images."""
        return np.asarray(self.train_logits.std(axis=1))

    @cached_property
    def unrelated(self) -> Unrelated:
        """How far apart test images are that have nothing to do with each other."""
        return Unrelated(*self.scorers.unrelated(self.artefacts.test.inversions))

    def full_effect(self, concept: Concept, judge: str) -> float:
        """Mean target change of the perfect edit on the validation images, in sd.

        Where nobody can draw the perfect edit: the distance of the mean logits of training images
        with the attribute and without it, which is what a flip comes to on the average. Where
        these are all of one class: what two balanced classes would be apart.

        Raises:
            InvalidBenchmarkError: where it is not positive: the judge does not see the concept.
        """
        if concept.name not in self._full_effects:
            self._full_effects[concept.name] = self._measure(concept)
        effect = float(self._full_effects[concept.name][self.scorers.names.index(judge)])
        if not effect > 0:
            raise InvalidBenchmarkError(
                f"'{judge}' sees {effect:.3g} standard deviations of the perfect '{concept.name}'",
                mend="use another classifier, or leave the concept out",
            )
        return effect

    def view(self, table: ScoreTable, concept: Concept, info: MethodInfo) -> View:
        """A table as the judges of a method see it."""
        names = judges(info, self.scorers.names)
        return View(table, concept.attribute, self.spreads, names, self.unrelated)

    def _measure(self, concept: Concept) -> Array:
        """[K] by each classifier."""
        artefacts, dataset = self.artefacts, self.artefacts.world.dataset
        column = dataset.card.attributes.index(concept.attribute)
        if isinstance(dataset, SupportsOracle):
            inversions = artefacts.concept_validation(concept).inversions
            change = dataset.oracle(inversions.image_ids, concept.attribute) - inversions.x_0
            perfect = from_8_bits(to_8_bits(inversions.reconstruction + change))
            before = self.scorers.unedited_logits(inversions)[1]
            moved = (self.scorers.logits(perfect) - before).mean(1)
        else:
            there = artefacts.presence(artefacts.train)[:, column].numpy()
            if there.all() or not there.any():
                return np.full(len(self.spreads), BALANCED)
            moved = self.train_logits[:, there].mean(1) - self.train_logits[:, ~there].mean(1)
        return np.asarray(moved[:, column] / self.spreads[:, column])
