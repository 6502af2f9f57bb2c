"""Known tricks: what each metric says before and after.

Those that need no picture are played here, on linear logits; the others in study.py, on rendered
images. A trick has many cases; what is kept is their median and their 5 % and 95 % quantiles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.epr_plus import epr_plus
from casl_bench.metrics.metric import EditMetric
from casl_bench.studies.metric_validity.records import EditRow, TrickRow, Values, rounded

Side = Literal["before", "after"]
SIDES: tuple[Side, Side] = ("before", "after")
INSENSITIVE = 20
"""Attributes added by the trick `padded`."""
WEAK, STRONG = 0.25, 4.0
"""Strengths between which the trick of strength moves."""

_RANDOM = "a random direction"
_CLASSIFIER = "the target's own direction"
_EXACT = "the exact edit"
_PURE = "a pure direction with imperfect reconstruction, strength"
TRICKS: dict[str, tuple[str, str]] = {
    "wrong_way": (_EXACT, "every image edited the wrong way"),
    "half_wrong_way": (_EXACT, "half of the images edited the wrong way"),
    "copy": (_EXACT, "nothing edited: exact copies"),
    "jittered_copy": (_EXACT, "nothing edited: copies with a little noise"),
    "pixel_attack": (_EXACT, "8 grey levels against `classifier_plain`, nothing edited"),
    "random_direction": (_CLASSIFIER, _RANDOM),
    "strength": (f"{_PURE} {WEAK:g}", f"the same, strength {STRONG:g}"),
    "logit_times_8": (_RANDOM, "the same, the target's logit times 8"),
    "logit_times_0.2": (_RANDOM, "the same, the target's logit times 0.2"),
    "dropped": (_CLASSIFIER, "the most correlated attribute left out of the list"),
    "padded": (_CLASSIFIER, f"{INSENSITIVE} insensitive attributes added to the list"),
}
"""Name → the edit that is compared with, and the trick, which should gain nothing."""


Case = tuple[str, Side, str, Values]
"""Trick, side, classifier, and the values of all metrics, EPR+ last."""


def values_of(
    metrics: Sequence[EditMetric], scores: EditScores, null: Sequence[EditScores] = ()
) -> Values:
    """All metrics of a case; EPR+ is known where random directions are."""
    plus = epr_plus(scores, null) if null else None
    return (*(metric.value(scores) for metric in metrics), plus)


def summarised(cases: Iterable[Case]) -> list[TrickRow]:
    """One row per side and classifier, in the order of `TRICKS`."""
    groups: defaultdict[tuple[str, Side, str], list[Values]] = defaultdict(list)
    for trick, side, classifier, values in cases:
        groups[trick, side, classifier].append(values)
    rows = []
    for trick, side, classifier in sorted(groups, key=lambda key: list(TRICKS).index(key[0])):
        columns = list(zip(*(own := groups[trick, side, classifier]), strict=True))
        middle, low, high = (tuple(_quantile(c, q) for c in columns) for q in (0.5, 0.05, 0.95))
        rows.append(
            TrickRow(
                trick=trick, side=side, classifier=classifier, cases=len(own),
                values=middle, low=low, high=high,
            )
        )  # fmt: skip
    return rows


def _quantile(column: Values, q: float) -> float | None:
    known = [v for v in column if v is not None]
    return rounded(float(np.quantile(known, q))) if len(known) > len(column) / 2 else None


def play_on_rows(rows: Sequence[EditRow]) -> Iterator[Case]:
    """The tricks that are levels of a family: the wrong way, wholly and by half."""
    exact = {(r.dataset, r.concept, r.classifier): r for r in rows if r.family == "exact"}
    for name, level in (("wrong_way", 1.0), ("half_wrong_way", 0.5)):
        for row in rows:
            if row.family == "wrong_way" and row.level == level:
                before = exact[row.dataset, row.concept, row.classifier]
                for side, own in zip(SIDES, (before, row), strict=True):
                    yield name, side, row.classifier, (*own.values, None)


# On attributes that are linear logits of Gaussian vectors.

DIMENSIONS = 48
ATTRIBUTES = 12
SAMPLES = 400
SHARED = 0.2
"""Squared length of the component that all w_j share: their mean correlation."""
SCALE_SD = 0.5
"""Standard deviation of the logarithm of the scales."""
JITTER = 0.05
"""Standard deviation, in each dimension, of what an imperfect reconstruction adds."""
LINEAR = "linear"
"""The toy's only classifier."""
TOYS = 10
"""Toys that are sampled; every attribute of each is the target once."""
NULL_DIRECTIONS = 8
"""Random directions behind EPR+."""
TRIED, NULL = 0, 1
"""Streams of random directions: the tricks' own, and the null's."""


@dataclass(frozen=True)
class LinearToy:
    """A sampled toy: samples x [n, D], unit vectors w_j [A, D], scales of the logits [A] > 0."""

    samples: Array
    directions: Array
    scales: Array
    seed: int

    @classmethod
    def sample(cls, seed: int) -> LinearToy:
        """A toy with random vectors, scales and samples."""
        rng = np.random.default_rng(seed)
        common = rng.standard_normal(DIMENSIONS)
        own = rng.standard_normal((ATTRIBUTES, DIMENSIONS))
        mixed = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own
        directions = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        scales = np.exp(SCALE_SD * rng.standard_normal(ATTRIBUTES))
        return cls(rng.standard_normal((SAMPLES, DIMENSIONS)), directions, scales, seed)

    def logits(self, x: Array) -> Array:
        """[n, D] → [n, A]."""
        logits: Array = x @ self.directions.T * self.scales
        return logits

    def rng(self, *stream: int) -> np.random.Generator:
        """Random numbers of this toy and a stream."""
        return np.random.default_rng([self.seed, *stream])

    def jitter(self, stream: int) -> Array:
        """[n, D] what an imperfect reconstruction adds."""
        noise: Array = JITTER * self.rng(0, stream).standard_normal(self.samples.shape)
        return noise

    def random_direction(self, *stream: int) -> Array:
        """[D] of length 1, of no attribute."""
        return _unit(self.rng(1, *stream).standard_normal((self.samples.shape[1],)))

    def pure_direction(self, target: int) -> Array:
        """[D] of length 1: the part of w_target that moves no other logit."""
        basis, _ = np.linalg.qr(np.delete(self.directions, target, axis=0).T)
        w: Array = self.directions[target]
        rest: Array = w - basis @ (basis.T @ w)
        return _unit(rest)

    def most_correlated(self, target: int) -> int:
        """The other attribute whose vector is closest to the target's, or to its opposite."""
        closeness = np.abs(self.directions @ self.directions[target])
        closeness[target] = -1
        return int(closeness.argmax())

    def rescaled(self, target: int, factor: float) -> LinearToy:
        """With one logit multiplied."""
        scales = self.scales.copy()
        scales[target] *= factor
        return replace(self, scales=scales)

    def cut(self, kept: Sequence[int]) -> LinearToy:
        """With these attributes only, in this order."""
        places = list(kept)
        return replace(self, directions=self.directions[places], scales=self.scales[places])

    def padded(self, count: int) -> LinearToy:
        """With at most D - A further attributes of scale 1, orthogonal to all others."""
        rest = self.rng(2).standard_normal((count, self.samples.shape[1]))
        basis, _ = np.linalg.qr(np.concatenate([self.directions, rest]).T)
        added = basis[:, len(self.directions) :].T
        return replace(
            self,
            directions=np.concatenate([self.directions, added]),
            scales=np.concatenate([self.scales, np.ones(count)]),
        )


def _unit(vector: Array) -> Array:
    unit: Array = np.divide(vector, np.linalg.norm(vector))
    return unit


@dataclass(frozen=True)
class ToyEdit:
    """An edit of a toy's samples towards one target.

    Attributes:
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
        directions = [self.toy.random_direction(NULL, k) for k in range(NULL_DIRECTIONS)]
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


def play_on_toys(metrics: Sequence[EditMetric], toys: int = TOYS) -> Iterator[Case]:
    """The tricks that need no picture, on every attribute of some toys."""
    for seed in range(toys):
        toy = LinearToy.sample(seed)
        for target in range(ATTRIBUTES):
            for name, sides in _toy_edits(toy, target).items():
                for side, edit in zip(SIDES, sides, strict=True):
                    yield name, side, LINEAR, values_of(metrics, edit.scores, edit.null)


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
