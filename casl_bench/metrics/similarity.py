"""Means of the distances that other scorers gave: CLIP direction, perceptual, identity."""

from __future__ import annotations

from typing import Literal

import numpy as np

from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.metric import EditMetric, MetricInfo, first_column, register_metric

Distance = Literal["clip_similarity", "perceptual", "identity"]


def _mean_of(field: Distance, info: MetricInfo) -> EditMetric:
    def per_image(scores: EditScores) -> Array:
        return np.asarray(getattr(scores, field), dtype=np.float64)[:, None]

    def undefined(scores: EditScores) -> str | None:
        return None if getattr(scores, field) is not None else f"no scorer gave '{field}'"

    return register_metric(EditMetric(info, per_image, first_column, undefined))


CLIP_SIMILARITY = _mean_of(
    "clip_similarity",
    MetricInfo(
        name="clip_similarity",
        version=1,
        higher_is_better=True,
        unit="cosine",
        bounds=(-1, 1),
        title="CLIP",
        source="directional similarity, StyleGAN-NADA (Gal et al. 2022), eq. 3",
    ),
)
PERCEPTUAL = _mean_of(
    "perceptual",
    MetricInfo(
        name="perceptual",
        version=1,
        higher_is_better=False,
        unit="distance",
        bounds=(0, None),
        title="perceptual",
    ),
)
IDENTITY = _mean_of(
    "identity",
    MetricInfo(
        name="identity",
        version=1,
        higher_is_better=True,
        unit="cosine",
        bounds=(-1, 1),
        title="identity",
    ),
)
