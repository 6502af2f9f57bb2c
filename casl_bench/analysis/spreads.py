"""The unit of each logit, read back from the record of the classifiers' trial."""

from __future__ import annotations

import numpy as np

from casl_bench.results.record import RunRecord
from casl_bench.results.score_table import Array


def spreads_of(trial: RunRecord) -> dict[str, Array]:
    """Classifier → [A] standard deviation of its logits over real source images.

    In the order of the record's attributes, which is that of a score table's columns; its
    measurements are in order of name.

    Args:
        trial: of the kind "scorer".
    """
    found: dict[str, dict[str, float]] = {}
    for name, m in trial.measurements.items():
        left, _, attribute = name.partition("/")
        if attribute and left.endswith(".spread") and m.value is not None:
            found.setdefault(left.removesuffix(".spread"), {})[attribute] = m.value
    return {judge: np.array([by[a] for a in trial.attributes]) for judge, by in found.items()}
