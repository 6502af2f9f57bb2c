"""Is a concept readable from a few latents? A linear SVM on them, and its baselines.

Baselines of every probe: as many random latents, all of raw h, the majority class, and the same
probe on shuffled labels (selectivity is the accuracy above that one's).

Source: CASL (arXiv 2601.15441) for the SVM on top-k latents; Hewitt & Liang 2019 for selectivity.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import wilson_interval
from casl_bench.metrics.edit_scores import Array, spread_of

KS = (1, 2, 4, 8, 16, 32)
_COSTS = (0.01, 0.1, 1.0)
_FOLDS = 3
_RANDOM_CHOICES = 3
_SHUFFLES = 3

Labels = NDArray[np.bool_]


@dataclass(frozen=True)
class ProbeResult:
    """One probe on held-out images.

    Attributes:
        features: what it read: "top_latents", "top_units", "random_latents", "random_units",
            "raw_h" or "majority".
        k: how many features; None for raw_h and majority.
        n_test: images it was tested on.
        accuracy: share of test images it got right (random features: mean over samples of them).
        balanced_accuracy: mean of the accuracies on either class.
        low: lower end of Wilson's 95 % interval of `accuracy`.
        high: upper end.
        shuffled_accuracy: the same probe with labels shuffled in both splits; None for majority.
        cost: C of the SVM, chosen inside the training images; None for majority and random ones.
    """

    features: str
    k: int | None
    n_test: int
    accuracy: float
    balanced_accuracy: float
    low: float
    high: float
    shuffled_accuracy: float | None = None
    cost: float | None = None

    @property
    def selectivity(self) -> float | None:
        """Accuracy above that on shuffled labels."""
        return None if self.shuffled_accuracy is None else self.accuracy - self.shuffled_accuracy


@dataclass(frozen=True)
class ProbeData:
    """Features of train and test images, [n_train, F] and [n_test, F], in the same columns."""

    train: Array
    test: Array

    def __post_init__(self) -> None:
        """Refuse other shapes, NaN and infinity."""
        if self.train.ndim != 2 or self.test.ndim != 2:
            raise InputError("probe features must be matrices [images, features]")
        if self.train.shape[1] != self.test.shape[1] or self.train.shape[1] == 0:
            raise InputError("train and test features must have the same columns")
        if not (np.isfinite(self.train).all() and np.isfinite(self.test).all()):
            raise InputError("probe features hold NaN or infinity")

    def columns(self, index: Sequence[int] | NDArray[np.intp]) -> ProbeData:
        """These features only, in this order."""
        i = np.asarray(index, dtype=np.intp)
        return ProbeData(self.train[:, i], self.test[:, i])


def pooled_features(z: ArrayLike) -> Array:
    """[n, d_sae, h, w] → [n, d_sae]: a latent's mean over positions."""
    pooled: Array = np.asarray(z).mean((2, 3), dtype=np.float64)
    return pooled


def unit_features(z: ArrayLike) -> NDArray[np.floating]:
    """[n, d_sae, h, w] → [n, d_sae * h * w]: (latent, position) units, index latent*h*w + p."""
    z = np.asarray(z)
    return z.reshape(len(z), -1)


def probe(
    data: ProbeData, train_labels: ArrayLike, test_labels: ArrayLike, seed: int, name: str
) -> ProbeResult:
    """Fit a linear SVM on the training images, test it on the others, and shuffle the labels.

    Features are standardised by the training images; C is chosen among 0.01, 0.1 and 1 by 3-fold
    cross-validation inside them. Labels are [n_train] and [n_test] bool; the seed is of folds,
    shuffles and the solver, the name says what the features are.

    Raises:
        InputError: on labels of another length, with fewer than three training images or no test
            image of either class.
    """
    return _probe_standardised(_standardise(data), train_labels, test_labels, seed, name)


def majority_probe(data: ProbeData, train_labels: ArrayLike, test_labels: ArrayLike) -> ProbeResult:
    """Always answer the training images' more frequent class: chance."""
    train_y, test_y = _labels(data, train_labels, test_labels)
    answer = np.full(len(test_y), train_y.mean() > 0.5)
    return _result("majority", answer, test_y)


def probe_top_k(
    data: ProbeData,
    ranking: ArrayLike,
    train_labels: ArrayLike,
    test_labels: ArrayLike,
    seed: int,
    *,
    unit: str,
    ks: Sequence[int] = KS,
) -> list[ProbeResult]:
    """Probes on a concept's k best aligned features and on k random ones, for every k.

    Args:
        data: all features: `pooled_features` or `unit_features` of train and test images.
        ranking: [F] int, best aligned first; from training images only.
        train_labels: [n_train] bool.
        test_labels: [n_test] bool.
        seed: of the random features and the probes.
        unit: "latents" or "units", for the results' names.
        ks: how many features; those above F are left out.

    Returns:
        `top_<unit>` and `random_<unit>`, the mean over 3 random choices, for every k.

    Raises:
        InputError: if the ranking is not a permutation of the features.
    """
    count = data.train.shape[1]
    order = np.asarray(ranking)
    if order.shape != (count,) or not np.array_equal(np.sort(order), np.arange(count)):
        raise InputError(f"a ranking must order all {count} features")
    rng = np.random.default_rng(seed)
    results = []
    for k in [k for k in ks if k <= count]:
        top = probe(data.columns(order[:k]), train_labels, test_labels, seed, f"top_{unit}")
        random = [
            _probe_standardised(
                _standardise(data.columns(rng.choice(count, k, replace=False))),
                train_labels,
                test_labels,
                seed,
                f"random_{unit}",
                shuffles=0,
            )
            for _ in range(_RANDOM_CHOICES)
        ]
        results += [replace(top, k=k), replace(_mean_result(random), k=k)]
    return results


class RawProbe:
    """Probes on all of a wide feature matrix, e.g. flattened h, for one concept after another.

    A linear SVM sees features only through their inner products, so a matrix wider than the number
    of training images is rotated, once, into as many columns: same decisions, far fewer numbers.
    """

    def __init__(self, data: ProbeData) -> None:
        self._data = _standardise(data)
        train, test = self._data.train, self._data.test
        if train.shape[1] > train.shape[0]:
            # Coordinates along the principal axes, from inner products alone.
            variances, axes = np.linalg.eigh(train @ train.T)
            kept = variances > 1e-10 * variances[-1]
            scale = np.sqrt(variances[kept])
            self._data = ProbeData(axes[:, kept] * scale, (test @ train.T) @ axes[:, kept] / scale)

    def __call__(self, train_labels: ArrayLike, test_labels: ArrayLike, seed: int) -> ProbeResult:
        """As `probe`, on all features."""
        return _probe_standardised(self._data, train_labels, test_labels, seed, "raw_h")


def _probe_standardised(
    data: ProbeData,
    train_labels: ArrayLike,
    test_labels: ArrayLike,
    seed: int,
    name: str,
    shuffles: int = _SHUFFLES,
) -> ProbeResult:
    train_y, test_y = _labels(data, train_labels, test_labels)
    cost = _choose_cost(data.train, train_y, seed)
    decisions = _decide(data.train, train_y, data.test, cost, seed)
    result = _result(name, decisions, test_y)
    if not shuffles:
        return result
    rng = np.random.default_rng(seed)
    accuracies = []
    for _ in range(shuffles):
        decisions = _decide(data.train, rng.permutation(train_y), data.test, cost, seed)
        accuracies.append((decisions == rng.permutation(test_y)).mean())
    return replace(result, shuffled_accuracy=float(np.mean(accuracies)), cost=cost)


def _decide(train: Array, labels: Labels, test: Array, cost: float, seed: int) -> Labels:
    # Imported here: scikit-learn takes a second that reading metrics' names should not cost.
    from sklearn import config_context
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    # The dual solver is the faster one from about half as many features as images on.
    dual = 2 * train.shape[1] > train.shape[0]
    svm = LinearSVC(C=cost, dual=dual, random_state=seed % 2**32, max_iter=2000)
    # Its settings are ours: checking them takes longer than a small fit.
    with warnings.catch_warnings(), config_context(skip_parameter_validation=True):
        # Shuffled labels have no margin to find; a solver that stops early is still a probe.
        warnings.simplefilter("ignore", ConvergenceWarning)
        svm.fit(train, labels)
    return np.asarray(svm.predict(test), dtype=bool)


def _choose_cost(features: Array, labels: Labels, seed: int) -> float:
    """The C of best cross-validated accuracy, the smallest among equals."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), dtype=np.intp)
    for answer in (False, True):
        members = rng.permutation(np.flatnonzero(labels == answer))
        fold[members] = np.arange(len(members)) % _FOLDS
    right = []
    for cost in _COSTS:
        total = 0
        for f in range(_FOLDS):
            held = fold == f
            decisions = _decide(features[~held], labels[~held], features[held], cost, seed)
            total += int((decisions == labels[held]).sum())
        right.append(total)
    return _COSTS[int(np.argmax(right))]


def _standardise(data: ProbeData) -> ProbeData:
    mean, std = data.train.mean(0), spread_of(data.train, 0)
    std[std == 0] = 1
    return ProbeData((data.train - mean) / std, (data.test - mean) / std)


def _labels(data: ProbeData, train: ArrayLike, test: ArrayLike) -> tuple[Labels, Labels]:
    train_y, test_y = np.asarray(train, dtype=bool), np.asarray(test, dtype=bool)
    if train_y.shape != (len(data.train),) or test_y.shape != (len(data.test),):
        raise InputError("a probe needs one label per image")
    if min(train_y.sum(), (~train_y).sum()) < _FOLDS or not 0 < test_y.sum() < len(test_y):
        raise InputError(
            f"a probe needs {_FOLDS} training images and a test image of either class",
            hint="use more images",
        )
    return train_y, test_y


def _result(name: str, decisions: Labels, labels: Labels) -> ProbeResult:
    right = decisions == labels
    balanced = float(right[labels].mean() + right[~labels].mean()) / 2
    interval = wilson_interval(int(right.sum()), len(labels))
    assert interval is not None  # there are test images: both classes are present
    accuracy = float(right.mean())
    return ProbeResult(name, None, len(labels), accuracy, balanced, *interval)


def _mean_result(results: Sequence[ProbeResult]) -> ProbeResult:
    accuracy = float(np.mean([r.accuracy for r in results]))
    balanced = float(np.mean([r.balanced_accuracy for r in results]))
    interval = wilson_interval(accuracy * results[0].n_test, results[0].n_test)
    assert interval is not None
    low, high = interval
    return replace(results[0], accuracy=accuracy, balanced_accuracy=balanced, low=low, high=high)
