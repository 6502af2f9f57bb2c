"""Means of what other scorers measured on each image: CLIP direction, perceptual, identity."""

from __future__ import annotations

import numpy as np

from casl_bench.metrics.arrays import Array
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.metric import (
    BASELINE,
    EditMetric,
    MetricInfo,
    first_column,
    register_metric,
)


def mean_of_column(field: str, info: MetricInfo) -> EditMetric:
    """Register the plain mean of one of `PER_IMAGE`, undefined where nobody measured it."""

    def per_image(scores: EditScores) -> Array:
        return np.asarray(getattr(scores, field), dtype=np.float64)[:, None]

    def undefined(scores: EditScores) -> str | None:
        return None if getattr(scores, field) is not None else f"no scorer gave '{field}'"

    return register_metric(EditMetric(info, per_image, first_column, undefined))


CLIP_SIMILARITY = mean_of_column(
    "clip_similarity",
    MetricInfo(
        name="clip_similarity",
        version=1,
        higher_is_better=True,
        unit="cosine",
        bounds=(-1, 1),
        title="CLIP",
        source="directional similarity, StyleGAN-NADA (Gal et al. 2022), eq. 3",
        scale_free=True,
        depends_on=(BASELINE,),
    ),
)
PERCEPTUAL = mean_of_column(
    "perceptual",
    MetricInfo(
        name="perceptual",
        version=1,
        higher_is_better=False,
        unit="distance",
        bounds=(0, None),
        title="perceptual",
        scale_free=True,
        depends_on=(BASELINE,),
    ),
)
IDENTITY = mean_of_column(
    "identity",
    MetricInfo(
        name="identity",
        version=1,
        higher_is_better=True,
        unit="cosine",
        bounds=(-1, 1),
        title="identity",
        scale_free=True,
        depends_on=(BASELINE,),
    ),
)
