"""Known tricks: what each metric says before and after.

Those that need no picture are played on linear logits (linear_toy.py), the others on the drawn
images. A trick has many cases; what is kept is their median and their 5 % and 95 % quantiles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from casl_bench.core.seeding import image_noise
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr_plus import epr_plus
from casl_bench.scorers.attribute_scorer import Differentiable
from casl_bench.studies.metric_validity.alternatives import Candidate
from casl_bench.studies.metric_validity.graded_edits import SEED, Subject
from casl_bench.studies.metric_validity.judging import Judge, Renderer
from casl_bench.studies.metric_validity.linear_toy import ATTRIBUTES, LinearToy, draw_toy
from casl_bench.studies.metric_validity.pixel_attack import attacked
from casl_bench.studies.metric_validity.study_records import EditRow, TrickRow, Values, rounded

Side = Literal["before", "after"]
SIDES: tuple[Side, Side] = ("before", "after")
LINEAR = "linear"
"""The toy's only classifier."""
DRAWS = 10
"""Draws of the toy; every attribute of each is the target once."""
NULL_DRAWS = 8
"""Random directions behind EPR+."""
TRIED, NULL = 0, 1
"""Streams of random directions: the tricks' own, and the null's."""
INSENSITIVE = 20
WEAK, STRONG = 0.25, 4.0
"""Strengths between which the trick of strength moves."""
COPY_JITTER = 0.02
"""Standard deviation of the noise on a copy, pixels in [-1, 1]."""


@dataclass(frozen=True)
class Trick:
    """Something that should gain nothing.

    Attributes:
        name: lower_snake.
        before: what is compared with.
        after: the trick.
    """

    name: str
    before: str
    after: str


_RANDOM = "a random direction"
_CLASSIFIER = "the target's own direction"
_EXACT = "the exact edit"
TRICKS: dict[str, Trick] = {
    trick.name: trick
    for trick in (
        Trick("wrong_way", _EXACT, "every image edited the wrong way"),
        Trick("half_wrong_way", _EXACT, "half of the images edited the wrong way"),
        Trick("copy", _EXACT, "nothing edited: exact copies"),
        Trick("jittered_copy", _EXACT, "nothing edited: copies with a little noise"),
        Trick("pixel_attack", _EXACT, "8 grey levels against `classifier_plain`, nothing edited"),
        Trick("random_direction", _CLASSIFIER, _RANDOM),
        Trick(
            "strength",
            f"a pure direction with imperfect reconstruction, strength {WEAK:g}",
            f"the same, strength {STRONG:g}",
        ),
        Trick("logit_times_8", _RANDOM, "the same, the target's logit times 8"),
        Trick("logit_times_0.2", _RANDOM, "the same, the target's logit times 0.2"),
        Trick("dropped", _CLASSIFIER, "the most correlated attribute left out of the list"),
        Trick("padded", _CLASSIFIER, f"{INSENSITIVE} insensitive attributes added to the list"),
    )
}


class Tally:
    """Collects the cases of tricks, and sums them up."""

    def __init__(self, metrics: Sequence[Candidate]) -> None:
        self.metrics = metrics
        self._cases: defaultdict[tuple[str, Side, str], list[Values]] = defaultdict(list)

    def add(
        self,
        trick: str,
        side: Side,
        classifier: str,
        scores: EditScores,
        null: Sequence[EditScores] = (),
    ) -> None:
        """One case of one side; EPR+ is known where random directions are."""
        values = tuple(c.metric.value(scores) for c in self.metrics)
        plus = epr_plus(scores, null) if null else None
        self.add_values(trick, side, classifier, (*values, plus))

    def add_values(self, trick: str, side: Side, classifier: str, values: Values) -> None:
        """One case whose metrics are known already, EPR+ last."""
        self._cases[trick, side, classifier].append(values)

    def rows(self) -> list[TrickRow]:
        """One row a side and classifier, in the order of `TRICKS`."""
        keys = [key for name in TRICKS for key in self._cases if key[0] == name]
        return [self._row(*key) for key in keys]

    def _row(self, trick: str, side: Side, classifier: str) -> TrickRow:
        cases = self._cases[trick, side, classifier]
        columns = list(zip(*cases, strict=True))
        middle, low, high = (
            tuple(_quantile(column, q) for column in columns) for q in (0.5, 0.05, 0.95)
        )
        return TrickRow(
            trick=trick, side=side, classifier=classifier, cases=len(cases),
            values=middle, low=low, high=high,
        )  # fmt: skip


def _quantile(column: Values, q: float) -> float | None:
    known = [v for v in column if v is not None]
    if len(known) <= len(column) / 2:
        return None
    return rounded(float(np.quantile(known, q)))


# On drawn images ----------------------------------------------------------------------------------


def play_on_images(tally: Tally, judge: Judge, subject: Subject, renderer: Renderer) -> None:
    """The tricks that edit nothing, on one concept.

    Args:
        tally: what the cases are added to.
        judge: of the data set's world; its first classifier is the one that is attacked.
        subject: what is edited.
        renderer: of its pictures.
    """
    deceived = judge.world.classifiers[0]
    assert isinstance(deceived, Differentiable)  # all that are shipped are
    drawn = renderer.draw(subject.lacking)
    right = renderer.draw(subject.drawing.flipped(subject.lacking, subject.concept.attribute))
    ids = [str(i) for i in subject.lacking.image_ids.tolist()]
    noise = COPY_JITTER * image_noise(drawn.shape[1:], ids, SEED, "jittered copy")
    edits = {
        "copy": drawn,
        "jittered_copy": drawn + noise,
        "pixel_attack": attacked(deceived, drawn, subject.target, judge.spreads[0]),
    }
    exact, *tried = judge.scores(subject.concept, subject.lacking, drawn, [right, *edits.values()])
    for name, found in zip(edits, tried, strict=True):
        for classifier in exact:
            tally.add(name, "before", classifier, exact[classifier])
            tally.add(name, "after", classifier, found[classifier])


def play_on_rows(tally: Tally, rows: Sequence[EditRow]) -> None:
    """The tricks that are levels of a family: the wrong way, wholly and by half."""
    exact = {(r.dataset, r.concept, r.classifier): r for r in rows if r.family == "exact"}
    for name, level in (("wrong_way", 1.0), ("half_wrong_way", 0.5)):
        for row in rows:
            if row.family == "wrong_way" and row.level == level:
                before = exact[row.dataset, row.concept, row.classifier]
                tally.add_values(name, "before", row.classifier, (*before.values, None))
                tally.add_values(name, "after", row.classifier, (*row.values, None))


# On linear logits ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyEdit:
    """An edit of a toy's samples towards one target, with random directions of equal effect.

    Attributes:
        toy: the logits.
        target: the attribute.
        change: [D] what is added to every sample.
        jitter: whether reconstruction and edit have noise of their own.
    """

    toy: LinearToy
    target: int
    change: Array
    jitter: bool = False

    @property
    def scores(self) -> EditScores:
        """Of the edit."""
        return self._scores(self.change, 1)

    @property
    def null(self) -> list[EditScores]:
        """Of random directions that move the target as far, whichever way."""
        w = self.toy.directions[self.target]
        directions = [self.toy.random_direction(NULL, k) for k in range(NULL_DRAWS)]
        effect = abs(w @ self.change)
        return [self._scores(v * effect / abs(w @ v), 2 + k) for k, v in enumerate(directions)]

    def _scores(self, change: Array, stream: int) -> EditScores:
        source = self.toy.samples
        base, edit = source, source + change
        if self.jitter:
            base, edit = base + self.toy.jitter(0), edit + self.toy.jitter(stream)
        logits = self.toy.logits(source)
        spread: Array = logits.std(axis=0)
        return EditScores(
            logits, self.toy.logits(base), self.toy.logits(edit), self.target, 1, spread
        )


def play_on_toys(tally: Tally, draws: int = DRAWS) -> None:
    """The tricks that need no picture, on every attribute of some draws of the toy."""
    for seed in range(draws):
        toy = draw_toy(seed)
        for target in range(ATTRIBUTES):
            for name, sides in _toy_edits(toy, target).items():
                for side, edit in zip(SIDES, sides, strict=True):
                    tally.add(name, side, LINEAR, edit.scores, edit.null)


def _toy_edits(toy: LinearToy, target: int) -> dict[str, tuple[ToyEdit, ToyEdit]]:
    """Trick → its two sides, of one target."""
    w = toy.directions[target]
    own = ToyEdit(toy, target, w)
    random = ToyEdit(toy, target, toy.random_direction(TRIED, target))
    pure = toy.pure_direction(target)
    weak, strong = (ToyEdit(toy, target, s * pure, jitter=True) for s in (WEAK, STRONG))
    times_8, times_02 = (replace(random, toy=toy.rescaled(target, f)) for f in (8.0, 0.2))
    kept = [j for j in range(ATTRIBUTES) if j != toy.most_correlated(target)]
    dropped = ToyEdit(toy.cut(kept), kept.index(target), w)
    padded = ToyEdit(toy.padded(INSENSITIVE), target, w)
    return {
        "random_direction": (own, random),
        "strength": (weak, strong),
        "logit_times_8": (random, times_8),
        "logit_times_0.2": (random, times_02),
        "dropped": (own, dropped),
        "padded": (own, padded),
    }
