"""Precise edits, the headline: the share of images that change as asked, and in nothing else.

An image is a precise edit at a tolerance where every classifier sees its target flip as asked and
nothing else goes further than the tolerance on the way to another image: no other attribute, no
known factor, not the identity, not the background. Whatever is not measured, such as the factors
of a photograph, is not asked for. An untouched image is a failure, and so is another image in its
place. Everything that decides the number is in this file.

Runs edit test images at the strength with the most precise edits of validation images: with
the number change its version and `runs.plan.STAGE_VERSION`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from casl_bench.core.errors import InputError
from casl_bench.metrics.bootstrap import (
    RESAMPLES,
    percentile_interval,
    resampling_weights,
    wilson_interval,
)
from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.metric import (
    BASELINE,
    OTHERS,
    SPREAD,
    UNRELATED,
    Estimate,
    MetricInfo,
    register_info,
)

FULL_FLIP = 2.0
"""Distance in sd of the two halves of a balanced attribute that are well apart."""

TOLERANCES = tuple(round(0.05 * i, 2) for i in range(1, 11))
"""0.05, 0.10, … 0.50 of the way to another image: from half of which on it is the other one's."""

TOLERANCE = 0.25
"""Where one number alone is to be understood at a glance."""

_DEPENDS_ON = (OTHERS, BASELINE, SPREAD, UNRELATED, "flips by all scoring classifiers")

PRECISE_EDITS_INFO = register_info(
    MetricInfo(
        name="precise_edits",
        version=1,
        higher_is_better=True,
        unit="share",
        bounds=(0, 1),
        title="precise edits",
        depends_on=(*_DEPENDS_ON, f"mean over tolerances {TOLERANCES[0]} to {TOLERANCES[-1]}"),
    )
)
"""Mean over `TOLERANCES` of the share of eligible images that are precise edits."""
PRECISE_EDIT_RATE_INFO = register_info(
    MetricInfo(
        name="precise_edit_rate",
        version=1,
        higher_is_better=True,
        unit="share",
        bounds=(0, 1),
        title=f"precise edits at {TOLERANCE}",
        depends_on=(*_DEPENDS_ON, f"tolerance {TOLERANCE}"),
    )
)
"""The share at one tolerance, `TOLERANCE`."""


@dataclass(frozen=True)
class ImageOutcomes:
    """What became of each of n images.

    Attributes:
        eligible: [n] every classifier sees the target absent before the edit.
        flipped: [n] every classifier sees it as asked after the edit.
        drifts: what is not to change → [n] how far it went on the way to another image: 0 where it
            did not change, about 1 where it is as another image's.
    """

    eligible: NDArray[np.bool_]
    flipped: NDArray[np.bool_]
    drifts: dict[str, Array]

    def __len__(self) -> int:
        return len(self.eligible)

    @property
    def worst(self) -> Array:
        """[n] the largest drift of each image."""
        largest: Array = np.max([*self.drifts.values(), np.zeros(len(self))], axis=0)
        return largest

    def precise(self, tolerances: Sequence[float] = TOLERANCES) -> NDArray[np.bool_]:
        """[T, n] which images are precise edits at each of T tolerances; none that is ineligible.

        Raises:
            InputError: if a tolerance is not a number in [0, 1].
        """
        if not all(0 <= t <= 1 for t in tolerances):
            raise InputError(f"a tolerance is a share in [0, 1], got {list(tolerances)}")
        within: NDArray[np.bool_] = self.worst <= np.array(tolerances)[:, None]
        return within & self.flipped & self.eligible

    def credit(self, tolerances: Sequence[float] = TOLERANCES) -> Array:
        """[n] share of the tolerances at which each image is a precise edit, in [0, 1]."""
        share: Array = self.precise(tolerances).mean(0)
        return share


def image_outcomes(panel: Sequence[EditScores]) -> ImageOutcomes:
    """Outcomes of the images of one edit.

    Drifts are those that were measured of

    - attributes: the largest over the other attributes of the mean over classifiers of
      |edit_j - base_j| / (2 spread_j); 1 is a full flip of a balanced attribute.
    - factors: the largest change of another known factor, as a share of its range.
    - identity: (1 - identity) / (1 - identity of unrelated images), at least 0.
    - background: as `image_similarity.background_change`; where no region is known, as of
      photographs, looks in its place: the perceptual distance over that of unrelated images.

    Args:
        panel: the scores of the same images by each classifier, the primary one first, which
            carries what other scorers measured.

    Raises:
        InputError: without a classifier, or of different images or targets.
    Source: ours.
    """
    if not panel:
        raise InputError("a panel needs at least one classifier")
    first = panel[0]
    if any((s.base.shape, s.target, s.sign) != (first.base.shape, first.target, first.sign)
           for s in panel):  # fmt: skip
        raise InputError("a panel scores the same images for the same target")
    before = np.stack([s.sign * s.base[:, s.target] for s in panel])
    after = np.stack([s.sign * s.edit[:, s.target] for s in panel])
    eligible: NDArray[np.bool_] = np.all(before <= 0, axis=0)
    flipped: NDArray[np.bool_] = np.all(after > 0, axis=0)
    return ImageOutcomes(eligible, flipped, _drifts(panel))


def evaluate_precise_edits(
    panel: Sequence[EditScores],
    seed: int,
    tolerances: Sequence[float] = TOLERANCES,
    *,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Share of the eligible images that are precise edits, mean over tolerances.

    With its 95 % interval over images, as `bootstrap.evaluate` gives it. Undefined where no image
    is eligible. Raises InputError as `image_outcomes`.
    """
    outcomes = image_outcomes(panel)
    count = int(outcomes.eligible.sum())
    if not count:
        reason = "every image had the attribute as asked already" if len(outcomes) else "no image"
        return Estimate(None, 0, reason=reason)
    credit, eligible = outcomes.credit(tolerances), outcomes.eligible.astype(np.float64)
    value, interval = float(credit.sum() / count), None
    if count >= 2:
        weights = resampling_weights(len(outcomes), resamples, seed)
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample without an eligible image
            interval = percentile_interval((weights @ credit) / (weights @ eligible), n=count)
        interval = interval or wilson_interval(value * count, count)
    low, high = interval or (None, None)
    return Estimate(value, count, low, high)


def _drifts(panel: Sequence[EditScores]) -> dict[str, Array]:
    first, found = panel[0], {}
    if first.others:
        moved = np.mean([np.abs(s.edit - s.base) / s.spread for s in panel], axis=0)
        found["attributes"] = moved[:, first.others].max(1) / FULL_FLIP
    if first.factor_worst is not None:
        found["factors"] = first.factor_worst
    if first.identity is not None and first.unrelated_identity is not None:
        lost = np.maximum(1 - first.identity, 0)
        found["identity"] = lost / (1 - first.unrelated_identity)
    if first.background is not None:
        found["background"] = first.background
    elif first.perceptual is not None and first.unrelated_perceptual is not None:
        found["looks"] = first.perceptual / first.unrelated_perceptual
    return found
