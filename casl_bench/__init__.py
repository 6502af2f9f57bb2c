"""A benchmark of concept editing in diffusion models.

    import casl_bench

    run = casl_bench.evaluate(["casl", "asyrp"])         # on rendered faces, minutes
    run.table, run.scores                                 # DataFrames
    casl_bench.score_pairs("src", "edited", "smiling", classifier="logits.csv").table

Every name is imported once it is used, so that importing the package takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from casl_bench.api.evaluate import evaluate
    from casl_bench.api.run import Run, analyse, load_run, plot_curves
    from casl_bench.api.torch_metrics import (
        EditingPrecisionRatio,
        FlipRate,
        PreciseEditRate,
        SignedEditingPrecisionRatio,
    )
    from casl_bench.pairs.score import score_pairs
    from casl_bench.pairs.scores import (
        PairScores,
        epr,
        flip_rate,
        precise_edit_rate,
        signed_epr,
    )

_PLACES = {
    "evaluate": "api.evaluate",
    "Run": "api.run",
    "analyse": "api.run",
    "load_run": "api.run",
    "plot_curves": "api.run",
    "EditingPrecisionRatio": "api.torch_metrics",
    "FlipRate": "api.torch_metrics",
    "PreciseEditRate": "api.torch_metrics",
    "SignedEditingPrecisionRatio": "api.torch_metrics",
    "score_pairs": "pairs.score",
    "PairScores": "pairs.scores",
    "epr": "pairs.scores",
    "flip_rate": "pairs.scores",
    "precise_edit_rate": "pairs.scores",
    "signed_epr": "pairs.scores",
}

__all__ = [
    "EditingPrecisionRatio",
    "FlipRate",
    "PairScores",
    "PreciseEditRate",
    "Run",
    "SignedEditingPrecisionRatio",
    "analyse",
    "epr",
    "evaluate",
    "flip_rate",
    "load_run",
    "plot_curves",
    "precise_edit_rate",
    "score_pairs",
    "signed_epr",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'casl_bench' has no attribute '{name}'")
    return getattr(import_module(f"casl_bench.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
