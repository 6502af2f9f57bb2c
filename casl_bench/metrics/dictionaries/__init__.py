"""Metrics of dictionaries: pure functions of arrays, and the declaration of each.

`coding` asks what a code keeps, `reading` what can be read off it, `acting` what happens when it is
changed. Tables read names, directions and bounds from `SAE_METRICS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from casl_bench.metrics.bootstrap import percentile_interval, resampling_weights
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.metric import Estimate

Room = Literal["coding", "reading", "acting"]


@dataclass(frozen=True)
class SaeMetricInfo:
    """What a metric of dictionaries declares of itself."""

    name: str
    title: str
    source: str
    better: Literal["higher", "lower"] | None
    bounds: tuple[float, float]  # may be infinite
    room: Room
    best: float | None = None  # what the perfect dictionary gets; None: there is no such number
    per_concept: bool = False  # whether there is one number per attribute, and the mean of them
    version: int = 1


_INFINITE = float("inf")
_UNIT = (0.0, 1.0)

HEADLINE = "pair_score"
"""The metric that dictionaries are ranked by."""

SAE_METRICS: dict[str, SaeMetricInfo] = {
    info.name: info
    for info in (
        SaeMetricInfo(
            "explained_variance", "explained variance", "Gao et al. 2024, arXiv 2406.04093",
            "higher", (-_INFINITE, 1), "coding", best=1,
        ),
        SaeMetricInfo(
            "eps_error", "eps error", "Gao et al. 2024 (downstream loss), of the noise prediction",
            "lower", (0, _INFINITE), "coding", best=0,
        ),
        SaeMetricInfo(
            "attribute_agreement", "attributes kept",
            "ours: classifier decisions with the reconstruction spliced in", "higher", _UNIT,
            "coding", best=1,
        ),
        SaeMetricInfo("l0", "L0", "active latents per vector", None, (0, _INFINITE), "coding"),
        SaeMetricInfo(
            "dead_share", "dead latents", "Gao et al. 2024", "lower", _UNIT, "coding", best=0
        ),
        SaeMetricInfo(
            "dense_share", "dense latents",
            "SAEBench (arXiv 2503.09532): active on more than a tenth of vectors", "lower", _UNIT,
            "coding", best=0,
        ),
        SaeMetricInfo(
            "probe_labels", "k-sparse probe, labels",
            "Gurnee et al. 2023, arXiv 2305.01610; SAEBench; area under accuracy over log k",
            "higher", _UNIT, "reading", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "probe_text", "k-sparse probe, text",
            "the same, latents chosen by similarity of images to the prompts", "higher", _UNIT,
            "reading", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "pair_score", "pair score",
            "TAPAScore, arXiv 2606.24716, as a share; pairs are the renderer's", "higher", _UNIT,
            "reading", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "pair_score_text", "pair score, text", "the same, the latent chosen by text", "higher",
            _UNIT, "reading", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "pair_direction", "right direction", "TAPAScore, arXiv 2606.24716", "higher", _UNIT,
            "reading", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "pair_share", "share of the change", "ours", "higher", _UNIT, "reading", best=1,
            per_concept=True,
        ),
        SaeMetricInfo(
            "absorption", "absorption",
            "Chanin et al. 2024, arXiv 2409.14507, with true pairs in place of probes", "lower",
            _UNIT, "reading", best=0, per_concept=True,
        ),
        SaeMetricInfo(
            "splitting", "latents needed",
            "Chanin et al. 2024: k at which accuracy stops rising by 0.03", "lower",
            (1, _INFINITE), "reading", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "stability", "stability over seeds", "Paulo & Belrose 2025, arXiv 2501.16615 "
            "(matched cosine of directions)", "higher", _UNIT, "coding", best=1,
        ),
        SaeMetricInfo(
            "monosemanticity", "monosemanticity",
            "Pach et al. 2025, arXiv 2504.02821, above chance; images by a held-out embedder",
            "higher", (-_INFINITE, 1), "reading", best=1,
        ),
        SaeMetricInfo(
            "localisation", "localisation",
            "ViSAEBench (M1), against the renderer's own masks, above chance", "higher",
            (-_INFINITE, 1), "reading", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "cause", "cause", "RAVEL, Huang et al. 2024, arXiv 2402.17700", "higher", _UNIT,
            "acting", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "isolate", "isolate", "RAVEL, Huang et al. 2024, arXiv 2402.17700", "higher", _UNIT,
            "acting", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "disentangle", "cause and isolate", "RAVEL: the mean of both", "higher", _UNIT,
            "acting", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "ablation", "ablation", "SAEBench; target's share of what goes with the latents",
            "higher", _UNIT, "acting", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "steering", "steering", "precision at flip rate 0.9, the editing track's", "higher",
            _UNIT, "acting", best=1, per_concept=True,
        ),
        SaeMetricInfo(
            "off_manifold", "off-manifold cost",
            "Mahalanobis distance of edited activations over that of real ones "
            "(Look but don't touch, arXiv 2606.31699)", "lower", (0, _INFINITE), "acting",
            best=1, per_concept=True,
        ),
    )
}  # fmt: skip
"""Name → declaration, in the order of the tables."""


def mean_estimate(values: Array, seed: int) -> Estimate:
    """Mean over images (or pairs, latents) [n] with its bootstrap interval; NaN is left out."""
    kept = values[np.isfinite(values)]
    return ratio_estimate(kept, np.ones(len(kept)), seed)


def ratio_estimate(above: Array, below: Array, seed: int, *, one_minus: bool = False) -> Estimate:
    """Sum of `above` [n] over sum of `below` [n], or 1 minus it, resampled together.

    Undefined without an image or where the denominator is 0.
    """
    n = len(above)
    if n == 0:
        return Estimate(None, 0, reason="nothing to measure it on")

    def combine(weights: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Array = (weights @ above) / (weights @ below)
        return 1 - ratio if one_minus else ratio

    value = float(combine(np.full(n, 1 / n)))
    if not np.isfinite(value):
        return Estimate(None, n, reason="the denominator is 0")
    interval = None
    if n > 1:
        interval = percentile_interval(combine(resampling_weights(n, 1000, seed)), n=n)
    low, high = interval or (None, None)
    return Estimate(value, n, low, high)
