"""What can be read off a code: probes, pairs that differ in one factor, images, places.

A latent's activity in an image is its mean over positions, [n, F]. A latent is matched to an
attribute on training images alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from casl_bench.core.errors import InputError
from casl_bench.metrics.dictionaries import mean_estimate, ratio_estimate
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.metric import Estimate

_FLOOR = 1e-8
_STOPS_RISING = 0.03
_SILENT = 0.1

Labels = NDArray[np.bool_]


def contrast(z: Array, labels: Labels) -> Array:
    """[F] mean of features [n, F] with the label minus without, over their sd; 0 where constant.

    Raises InputError unless both classes are there.
    """
    if labels.all() or not labels.any():
        raise InputError("a contrast needs images of both classes")
    difference = z[labels].mean(0) - z[~labels].mean(0)
    sd = z.std(0)
    found: Array = np.where(sd > _FLOOR * max(float(sd.max()), _FLOOR), difference, 0.0)
    found = found / np.maximum(sd, _FLOOR)
    return found


def halves(similarity: Array) -> Labels:
    """[n] bool: the half of the images that is more similar to the text, ties by place."""
    order = np.argsort(-similarity, kind="stable")
    upper = np.zeros(len(similarity), dtype=bool)
    upper[order[: len(similarity) // 2]] = True
    return upper


def best_features(scores: Array, k: int) -> NDArray[np.intp]:
    """Places of the k features of largest |score|, the best first; ties go to the lower place."""
    found: NDArray[np.intp] = np.argsort(-np.abs(scores), kind="stable")[:k]
    return found


def probe_right(train: Array, train_labels: Labels, test: Array, test_labels: Labels) -> Array:
    """[n_test] 1 where a logistic probe on features [n, k] is right, else 0.

    Features are standardised by the training images. Source: Gurnee et al. 2023 and SAEBench, with
    a fixed penalty (C = 1).
    """
    mean, sd = train.mean(0), np.maximum(train.std(0), _FLOOR)
    probe = LogisticRegression(C=1.0, max_iter=500)
    probe.fit((train - mean) / sd, train_labels)
    right: Array = (probe.predict((test - mean) / sd) == test_labels).astype(np.float64)
    return right


def area_over_k(right: Mapping[int, Array], seed: int) -> Estimate:
    """Mean accuracy over k, by trapezoids on a log scale: [n] answers per k → a share.

    Raises InputError without a k. One k alone is its accuracy.
    """
    ks = sorted(right)
    if not ks:
        raise InputError("an area needs one k at least")
    if len(ks) == 1:
        return mean_estimate(right[ks[0]], seed)
    steps = np.diff(np.log2(ks))
    weights = (np.append(steps, 0) + np.insert(steps, 0, 0)) / 2
    per_image = sum(w * right[k] for w, k in zip(weights / weights.sum(), ks, strict=True))
    return mean_estimate(np.asarray(per_image), seed)


def latents_needed(accuracy: Mapping[int, float]) -> int:
    """The least k after which no larger one is more accurate by 0.03.

    Source: Chanin et al. 2024, arXiv 2409.14507 (feature splitting), of accuracies for F1 scores.
    """
    ks = sorted(accuracy)
    best = ks[0]
    for k in ks[1:]:
        if accuracy[k] > accuracy[best] + _STOPS_RISING:
            best = k
    return best


@dataclass(frozen=True)
class Match:
    """The latents that stand for the attributes: place [A] and sign [A], +1 or -1."""

    latent: NDArray[np.intp]
    sign: Array

    @classmethod
    def of(cls, scores: Array) -> Match:
        """From contrasts [A, F]: the feature of largest size, with its sign."""
        latent = np.array([best_features(s, 1)[0] for s in scores])
        sign = np.sign(scores[np.arange(len(scores)), latent])
        return cls(latent, np.where(sign == 0, 1.0, sign))


def standardised(change: Array, spread: Array) -> Array:
    """Changes [..., F] over the spread [F] of each feature in real images; 0 where it has none."""
    alive = spread > _FLOOR * max(float(spread.max(initial=0.0)), _FLOOR)
    scaled: Array = np.where(alive, change / np.where(alive, spread, 1.0), 0.0)
    return scaled


def pair_score(change: Array, match: Match, attribute: int, seed: int) -> Estimate:
    """Does the matched latent move when its factor is flipped, and not when another one is?

    max(0, mean signed move) / (mean |move| of its own flips + mean |move| of other flips), a share:
    1 moves in the right direction at its own flip alone, 0.5 moves as much at the others' as at its
    own, 0 not at all or at random.

    Args:
        change: [A, m, F] standardised change of each latent when a factor is turned on.
        match: of all attributes.
        attribute: which of the A factors.
        seed: of the interval, over pairs.
    Source: TAPAScore, arXiv 2606.24716, as a bounded share; choice: mean over the other factors.
    """
    j, sign = match.latent[attribute], match.sign[attribute]
    own = sign * change[attribute, :, j]
    others = np.delete(np.abs(change[:, :, j]), attribute, axis=0)
    elsewhere = others.mean(0) if len(others) else np.zeros(len(own))
    found = ratio_estimate(own, np.abs(own) + elsewhere, seed)
    if found.value is None:
        return Estimate(0.0, len(own))  # it never moves
    ends = (found.low, found.high)
    low, high = (None if end is None else max(0.0, end) for end in ends)
    return Estimate(max(0.0, found.value), found.n, low, high)


def pair_direction(change: Array, match: Match, attribute: int, seed: int) -> Estimate:
    """Share of pairs in which the matched latent moves the right way; not at all counts half."""
    own = match.sign[attribute] * change[attribute, :, match.latent[attribute]]
    return mean_estimate((np.sign(own) + 1) / 2, seed)


def pair_share(change: Array, match: Match, attribute: int, seed: int) -> Estimate:
    """Share of the code's squared standardised change that is the matched latent's (ours)."""
    squared = change[attribute] ** 2
    found = ratio_estimate(squared[:, match.latent[attribute]], squared.sum(1), seed)
    return Estimate(0.0, len(squared)) if found.value is None else found


def absorption(
    change: Array, directions: Array, moved: Array, match: Match, attribute: int, seed: int
) -> Estimate:
    """Share of flips in which the matched latent is silent and another one takes its place.

    A latent's contribution is its change times its direction's component along the mean change of
    activations. A pair is absorbed where the matched latent contributes less than a tenth of what
    it does on average and another one at least that average; all are where the average is not
    positive.

    Args:
        change: [m, F] change of each latent at this attribute's flip, in its own units.
        directions: [F, C] of the decoder.
        moved: [m, C] change of activations, mean over positions.
        match: of all attributes.
        attribute: which.
        seed: of the interval, over pairs.
    Source: Chanin et al. 2024, arXiv 2409.14507, where probes stand for the true factor.
    """
    along = moved.mean(0)
    along = along / max(float(np.linalg.norm(along)), _FLOOR)
    contribution = change * (directions @ along)
    j = match.latent[attribute]
    own, others = contribution[:, j], np.delete(contribution, j, axis=1)
    usual = float(own.mean())
    if usual <= 0:
        return Estimate(1.0, len(own))
    absorbed = (own < _SILENT * usual) & (others.max(1, initial=-np.inf) >= usual)
    return mean_estimate(absorbed.astype(np.float64), seed)


def monosemanticity(activity: Array, similarity: Array, seed: int) -> Estimate:
    """How alike the images are that activate a latent, mean over latents, above chance.

    Per latent sum_ij a_i a_j s_ij / sum_ij a_i a_j over i != j, minus the mean s of all pairs, over
    1 minus that mean: 1 where they are the same image, 0 as any images. Latents that are active in
    fewer than two images are left out.

    Args:
        activity: [n, F] >= 0.
        similarity: [n, n] of images in [-1, 1].
        seed: of the interval, over latents.
    Source: Pach et al. 2025, arXiv 2504.02821, eq. 9; above chance is ours.
    """
    pairs = similarity - np.diag(np.diag(similarity))
    n = len(similarity)
    chance = float(pairs.sum() / (n * (n - 1)))
    a = activity[:, (activity > 0).sum(0) >= 2]
    squares = a.sum(0) ** 2 - (a**2).sum(0)
    usable = squares > _FLOOR * np.maximum(a.sum(0) ** 2, _FLOOR)
    a, squares = a[:, usable], squares[usable]
    if chance >= 1 or a.shape[1] == 0:
        return Estimate(None, 0, reason="no latent is active in two images")
    found = ((pairs @ a) * a).sum(0) / squares
    return mean_estimate((found - chance) / (1 - chance), seed)


def localisation(maps: Array, mask: Array, seed: int) -> Estimate:
    """Does the latent fire where its factor is? Share of activity inside the mask, above its area.

    (inside - area) / (1 - area) for activity [m, P] >= 0 and masks [m, P] in [0, 1], the share of a
    cell that flipping the factor changes; 1 all inside, 0 as spread evenly. Undefined where masks
    cover more than nine tenths.

    Source: ViSAEBench M1, which has no true masks; above chance is ours.
    """
    area = float(mask.mean())
    if area > 0.9 or area == 0:
        return Estimate(None, len(maps), reason="the factor is everywhere or nowhere")
    share = ratio_estimate((maps * mask).sum(1), maps.sum(1), seed)
    if share.value is None:
        return Estimate(0.0, len(maps))

    def above(value: float | None) -> float | None:
        return None if value is None else (value - area) / (1 - area)

    value = above(share.value)
    return Estimate(value, share.n, above(share.low), above(share.high))


def purity(activity: Array, labels: Labels, top: int) -> tuple[Array, NDArray[np.intp]]:
    """Per latent: the largest share of one label's value among its `top` images, and those images.

    Of activity [n, F] and labels [n, A]: ([F] in [0.5, 1], [F, top] places, the most active first).
    """
    order = np.argsort(-activity, axis=0, kind="stable")[:top].T
    share = labels[order].mean(1)  # [F, A]
    return np.maximum(share, 1 - share).max(1), order


def mean_over(estimates: Sequence[Estimate], seed: int) -> Estimate:
    """The mean of attributes' values with an interval over attributes; undefined ones left out."""
    values = np.array([e.value for e in estimates if e.value is not None])
    return mean_estimate(values, seed)
