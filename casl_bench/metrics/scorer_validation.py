"""Scorer validation: how far an attribute classifier can be believed, by edits that are known.

A perfect edit changes one attribute and nothing else, so any other change that a classifier reads
off it is the classifier's own error. Logits go in, not images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import Array, check_array, check_spread

BINS = 15


@dataclass(frozen=True)
class Response:
    """How measured changes answer known flips.

    Attributes:
        flips_seen: [A] in [0, 1], share of images whose logit has the flipped sign after the
            flip.
        slope: [A] mean signed change of the flipped attribute over the distance of the classes;
            1 is perfect, NaN where the images lack one class or it lies on the wrong side.
        correlation: of known and measured change over all flips, images and attributes, in
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


def calibration_error(logits: ArrayLike, targets: ArrayLike) -> Array:
    """[A] sum_b |sum_{i in b} (p_i - y_i)| / n in [0, 1], over equal bins b of p = sigmoid.

    0 where each bin's mean probability is its mean target.

    Args:
        logits: [n, A], n >= 1.
        targets: [n, A] in [0, 1]: labels, or the share of an attribute that shows.

    Raises:
        InputError: on other shapes, NaN or infinity, no image, or a target outside [0, 1].
    Source: expected calibration error, Naeini et al. 2015; signed within a bin, as is usual.
    """
    x = check_array("logits", logits, 2)
    y = check_array("targets", targets, 2, x.shape)
    if len(x) == 0 or (y < 0).any() or (y > 1).any():
        raise InputError("calibration needs an image and targets in [0, 1]")
    p = (1 + np.tanh(x / 2)) / 2
    bin_of = np.minimum((p * BINS).astype(np.intp), BINS - 1)
    gaps = [np.abs(np.where(bin_of == b, p - y, 0).sum(0)) for b in range(BINS)]
    total: Array = np.sum(gaps, axis=0) / len(x)
    return total


def flipped_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    """Labels after each known edit: bool [n, A] → bool [A, n, A], column a of row a negated.

    Raises:
        InputError: on labels that are not bool, or no image.
    """
    known = _labels(labels)
    return known[None] ^ np.eye(known.shape[1], dtype=np.bool_)[:, None]


def response(
    originals: ArrayLike, oracle_edits: ArrayLike, labels: ArrayLike, spread: ArrayLike
) -> Response:
    """How measured changes answer known flips.

    With d_a(i, k) = (edit_a(i, k) - original(i, k)) / spread_k and s_a(i) = +1 where flipping a
    turns it on in image i, -1 where off:

    slope_a = mean_i s_a(i) d_a(i, a) / (mean of original(., a) / spread_a where a is there - where
    it is not): 1 where a flip carries an image from one class as far as the other is away. Both
    are in the same unit, so that the spread, and with it the logit's scale, cancels.

    correlation = Pearson's, of s_a(i) [k = a] and d_a(i, k) over all a, i and k. It falls below 1
    by leakage and by flips that are answered unequally.

    Args:
        originals: [n, A] logits, n >= 1, A >= 2.
        oracle_edits: [A, n, A] logits; row a is of the images with attribute a alone flipped.
        labels: [n, A] bool, of the originals.
        spread: [A] standard deviation of each logit over real source images, > 0.

    Raises:
        InputError: on other shapes, NaN or infinity, no image, a single attribute, labels that are
            not bool, or a spread that is not positive.
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

    [A, A] >= 0, row j and column k; the diagonal, which is no leakage, is 0. Needs no labels;
    arguments as of `response`.

    Raises:
        InputError: as `response`.
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
    Both are mean absolute changes of the other attributes in one unit, at the same target effect
    and on the same images. None where the method has no collateral.

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
        raise InputError("a known edit needs an image and an attribute that it leaves alone")
    return check_array("oracle edits", oracle_edits, 3, (attributes, n, attributes))


def _class_gap(logits: Array, labels: NDArray[np.bool_]) -> Array:
    """[A] mean where the attribute is there less mean where not; NaN unless positive."""
    there = labels.sum(0)
    absent = len(labels) - there
    with np.errstate(divide="ignore", invalid="ignore"):  # a class without images: NaN below
        gap = (logits * labels).sum(0) / there - (logits * ~labels).sum(0) / absent
        return np.where((there > 0) & (absent > 0) & (gap > 0), gap, np.nan)


def _correlation(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")
