from __future__ import annotations

import numpy as np
import pytest
import torch

import casl_bench

pytest.importorskip("torchmetrics", reason="torchmetrics comes with the extra 'metrics'")


def test_batches_add_up_to_the_function() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(-1, 1, (20, 4))
    edit = base + rng.normal(0, 0.2, (20, 4)) + np.array([2, 0, 0, 0])
    for metric, function in (
        (casl_bench.EditingPrecisionRatio(0), casl_bench.epr),
        (casl_bench.SignedEditingPrecisionRatio(0), casl_bench.signed_epr),
        (casl_bench.FlipRate(0), casl_bench.flip_rate),
        (casl_bench.PreciseEditRate(0, tolerance=0.3), None),
    ):
        for rows in (slice(0, 7), slice(7, 20)):
            metric.update(torch.from_numpy(base[rows]), torch.from_numpy(edit[rows]))
        wanted = (
            function(base, edit, 0)
            if function is not None
            else casl_bench.precise_edit_rate(base, edit, 0, tolerance=0.3)
        )
        assert float(metric.compute()) == pytest.approx(wanted)
        metric.reset()
        assert metric.base == []
