"""Scorers on trial: how far an attribute classifier can be believed, by edits that are known.

A perfect edit changes one attribute and nothing else, so whatever a classifier says of it beyond
that is the classifier's own fault. Nothing here sees an image: logits go in, marks come out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import Array, check_array
from casl_bench.metrics.epr import check_spread

BINS = 15


@dataclass(frozen=True)
class Marks:
    """How well logits tell labels.

    Attributes:
        n: pictures.
        accuracy: [A] in [0, 1], share of pictures on whose side of 0 the logit lies.
        calibration_error: [A] in [0, 1], see `calibration_error`.
    """

    n: int
    accuracy: Array
    calibration_error: Array

    @property
    def mean_accuracy(self) -> float:
        """Over attributes."""
        return float(self.accuracy.mean())

    @property
    def mean_calibration_error(self) -> float:
        """Over attributes."""
        return float(self.calibration_error.mean())


@dataclass(frozen=True)
class Response:
    """How measured changes answer known flips.

    Attributes:
        flips_seen: [A] in [0, 1], share of pictures whose logit has the flipped sign after the
            flip.
        slope: [A] mean signed change of the flipped attribute over the distance of the classes;
            1 is perfect, NaN where the pictures lack one class or it lies on the wrong side.
        correlation: of known and measured change over all flips, pictures and attributes, in
            [-1, 1]; 1 is perfect, NaN where nothing measured moves.
        leakage: [A, A] see `leakage`.
    """

    flips_seen: Array
    slope: Array
    correlation: float
    leakage: Array

    @property
    def mean_leakage(self) -> Array:
        """[A] what a perfect edit of each attribute seems to do to the others on average, in sd."""
        mean: Array = self.leakage.sum(1) / (len(self.leakage) - 1)
        return mean


@dataclass(frozen=True)
class ScorerTrial:
    """A classifier's marks on everything whose labels are known.

    Attributes:
        originals: on real pictures.
        reconstructions: on the same after inversion and generation, labelled as the originals.
        oracle_edits: on perfect edits, each labelled as its original with one attribute flipped.
        response: from originals to oracle edits.
    """

    originals: Marks
    reconstructions: Marks
    oracle_edits: Marks
    response: Response


def try_scorer(
    originals: ArrayLike,
    reconstructions: ArrayLike,
    oracle_edits: ArrayLike,
    labels: ArrayLike,
    spread: ArrayLike,
) -> ScorerTrial:
    """All marks of one classifier.

    Args:
        originals: [n, A] logits, n >= 1, A >= 2.
        reconstructions: [n, A] logits of the same pictures, inverted and generated.
        oracle_edits: [A, n, A] logits; row a is of the pictures with attribute a alone flipped.
        labels: [n, A] bool, of the originals.
        spread: [A] standard deviation of each logit over real source images, > 0.

    Raises:
        InputError: on other shapes, NaN or infinity, no picture, a single attribute, labels that
            are not bool, or a spread that is not positive.
    Source: ours.
    """
    known = _labels(labels)
    edits = _edits(oracle_edits, known.shape)
    edited = flipped_labels(known)
    return ScorerTrial(
        marks(originals, known),
        marks(reconstructions, known),
        marks(edits.reshape(-1, edits.shape[2]), edited.reshape(-1, edits.shape[2])),
        response(originals, edits, known, spread),
    )


def marks(logits: ArrayLike, labels: ArrayLike) -> Marks:
    """Accuracy and calibration, attribute by attribute.

    Args:
        logits: [n, A], n >= 1; above 0 the attribute is there.
        labels: [n, A] bool.

    Raises:
        InputError: as `try_scorer`.
    Source: ours.
    """
    known = _labels(labels)
    scores = check_array("logits", logits, 2, known.shape)
    right = (scores > 0) == known
    return Marks(len(known), right.mean(0), calibration_error(scores, known))


def calibration_error(logits: ArrayLike, targets: ArrayLike, bins: int = BINS) -> Array:
    """sum_b |sum_{i in b} (p_i - y_i)| / n for each attribute, over equal bins b of p = sigmoid.

    Args:
        logits: [n, A], n >= 1.
        targets: [n, A] in [0, 1]: labels, or the share of an attribute that shows.
        bins: how many, >= 1.

    Returns:
        [A] in [0, 1]; 0 where each bin's mean probability is its mean target.

    Raises:
        InputError: on other shapes, NaN or infinity, no picture, a target outside [0, 1] or no bin.
    Source: expected calibration error, Naeini et al. 2015; signed within a bin, as is usual.
    """
    x = check_array("logits", logits, 2)
    y = check_array("targets", targets, 2, x.shape)
    if len(x) == 0 or bins < 1 or (y < 0).any() or (y > 1).any():
        raise InputError("calibration needs a picture, a bin and targets in [0, 1]")
    p = (1 + np.tanh(x / 2)) / 2
    bin_of = np.minimum((p * bins).astype(np.intp), bins - 1)
    gaps = [np.abs(np.where(bin_of == b, p - y, 0).sum(0)) for b in range(bins)]
    total: Array = np.sum(gaps, axis=0) / len(x)
    return total


def flipped_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    """Labels after each known edit: bool [n, A] → bool [A, n, A], column a of row a negated.

    Raises:
        InputError: as `try_scorer`.
    """
    known = _labels(labels)
    return known[None] ^ np.eye(known.shape[1], dtype=np.bool_)[:, None]


def response(
    originals: ArrayLike, oracle_edits: ArrayLike, labels: ArrayLike, spread: ArrayLike
) -> Response:
    """How measured changes answer known flips.

    With d_a(i, k) = (edit_a(i, k) - original(i, k)) / spread_k and s_a(i) = +1 where flipping a
    turns it on in picture i, -1 where off:

    slope_a = mean_i s_a(i) d_a(i, a) / (mean of original(., a) / spread_a where a is there - where
    it is not): 1 where a flip carries a picture from one class as far as the other is away. Both
    are in the same unit, so that the spread, and with it the logit's scale, cancels.

    correlation = Pearson's, of s_a(i) [k = a] and d_a(i, k) over all a, i and k. It falls below 1
    by leakage and by flips that are answered unequally.

    Args:
        originals: [n, A] logits, n >= 1, A >= 2.
        oracle_edits: [A, n, A] logits.
        labels: [n, A] bool.
        spread: [A] > 0.

    Raises:
        InputError: as `try_scorer`.
    Source: ours.
    """
    known = _labels(labels)
    before = check_array("original logits", originals, 2, known.shape)
    after = _edits(oracle_edits, known.shape)
    scale = check_spread(spread, known.shape[1])
    change = (after - before) / scale
    flipped = np.arange(known.shape[1])
    sign = np.where(known, -1.0, 1.0).T
    own = sign * change[flipped, :, flipped]
    truth = np.zeros_like(change)
    truth[flipped, :, flipped] = sign
    return Response(
        (sign * after[flipped, :, flipped] > 0).mean(1),
        own.mean(1) / _class_gap(before / scale, known),
        _correlation(truth.ravel(), change.ravel()),
        leakage(before, after, scale),
    )


def leakage(originals: ArrayLike, oracle_edits: ArrayLike, spread: ArrayLike) -> Array:
    """mean_i |edit_j(i, k) - original(i, k)| / spread_k: what k seems to do when j alone changed.

    Needs no labels.

    Args:
        originals: [n, A] logits, n >= 1, A >= 2.
        oracle_edits: [A, n, A] logits; row j is of the pictures with attribute j alone flipped.
        spread: [A] > 0.

    Returns:
        [A, A] >= 0, row j and column k; the diagonal, which is no leakage, is 0.

    Raises:
        InputError: as `try_scorer`.
    Source: ours.
    """
    before = check_array("original logits", originals, 2)
    after = _edits(oracle_edits, before.shape)
    scale = check_spread(spread, before.shape[1])
    mean: Array = (np.abs(after - before) / scale).mean(1)
    np.fill_diagonal(mean, 0)
    return mean


def leakage_share(oracle_others: float, method_others: float) -> float | None:
    """min(1, oracle's / method's): the part of a method's collateral that is the scorer's own.

    A perfect edit has no collateral, so what it seems to have would be seen of any edit as large.

    Args:
        oracle_others: mean absolute change of the other attributes under the perfect edit, >= 0.
        method_others: the same under the method, in the same unit, at the same target effect and
            on the same pictures.

    Returns:
        In [0, 1]; None where the method has no collateral of which to have a share.

    Raises:
        InputError: on a negative number, NaN or infinity.
    Source: ours.
    """
    both = [oracle_others, method_others]
    if not (np.isfinite(both).all() and min(both) >= 0):
        raise InputError(f"changes must be finite and not negative, got {both[0]} and {both[1]}")
    return min(1.0, oracle_others / method_others) if method_others > 0 else None


def _labels(labels: ArrayLike) -> NDArray[np.bool_]:
    known = np.asarray(labels)
    if known.dtype != np.bool_ or known.ndim != 2 or len(known) == 0:
        raise InputError(
            f"labels must be bool with at least one row, got {known.dtype} {list(known.shape)}"
        )
    return known


def _edits(oracle_edits: ArrayLike, shape: tuple[int, ...]) -> Array:
    n, attributes = shape
    if attributes < 2 or n == 0:
        raise InputError("a known edit needs a picture and an attribute that it leaves alone")
    return check_array("oracle edits", oracle_edits, 3, (attributes, n, attributes))


def _class_gap(logits: Array, labels: NDArray[np.bool_]) -> Array:
    """[A] mean where the attribute is there less mean where not; NaN unless positive."""
    there = labels.sum(0)
    absent = len(labels) - there
    with np.errstate(divide="ignore", invalid="ignore"):  # a class without pictures: NaN below
        gap = (logits * labels).sum(0) / there - (logits * ~labels).sum(0) / absent
        return np.where((there > 0) & (absent > 0) & (gap > 0), gap, np.nan)


def _correlation(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")
