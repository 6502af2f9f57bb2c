"""All methods of several data sets compared: what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from casl_bench.analysis.comparison import ConceptScores, Edits, ScoreMatrix
from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import EditScores

IDS = tuple(f"test-{i}" for i in range(12))


def edit(others: float, seed: int) -> EditScores:
    """A change of about 1 in the target and of about `others` in two other attributes."""
    base = np.zeros((len(IDS), 3))
    change = np.abs(np.random.default_rng(seed).normal([1, others, others], 0.05, base.shape))
    return EditScores(base, base, base + change, 0, 1, np.ones(3))


def concept(dataset: str, name: str, **others: float) -> ConceptScores:
    methods = {
        m: Edits(IDS, {"net": edit(off, seed)}) for seed, (m, off) in enumerate(others.items())
    }
    null = {"net": [edit(1.0, 100 + k) for k in range(3)]}
    return ConceptScores((dataset, name), ("smiling", "hat", "beard"), methods, null, IDS)


MATRIX = [concept("faces", "smiling", x=0.05, y=0.4), concept("dogs", "smiling", x=0.3, y=0.25)]


def test_concepts_must_have_the_same_methods() -> None:
    with pytest.raises(InputError, match="no concept"):
        ScoreMatrix([])
    alone = replace(MATRIX[1], methods={"x": MATRIX[1].methods["x"]})
    with pytest.raises(InputError, match="different methods"):
        ScoreMatrix([MATRIX[0], alone])
