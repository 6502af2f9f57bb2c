"""Precise edits of stored cells: at which strength, over which fits, and who is first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from casl_bench.analysis.analyse import analyse, group_cells
from casl_bench.analysis.headline import PreciseEditMatrix, PreciseEdits, precise_edits
from casl_bench.analysis.measure import best_strength
from casl_bench.analysis.significance import concepts_needed, first_places
from casl_bench.analysis.uncertainty import Design, ResampledScores
from casl_bench.core.errors import InputError
from casl_bench.results.stored_cells import StoredCell, read_cells
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

CLEAN, DIRTY = MadeUpMethod(gain=4.0, damage=0.02), MadeUpMethod(gain=4.0, damage=2.0)


def cells_of(folder: Path, **methods: MadeUpMethod) -> list[StoredCell]:
    write_made_up_run(folder, MadeUpRun(methods, fits=2))
    return read_cells(folder)


def test_the_strength_is_the_best_one_on_validation_images(tmp_path: Path) -> None:
    cell = next(c for c in cells_of(tmp_path, casl=CLEAN) if c.record.method == "casl")
    assert cell.scores is not None
    table = replace(
        cell.scores,
        strengths=(0.5, 1.0, 2.0),
        edit_logits=np.repeat(cell.scores.edit_logits, 3, axis=1),
        background=np.repeat(cell.scores.background, 3, axis=0),
    )
    assert best_strength(cell.record, table, {1.0: 0.2, 2.0: 0.8, 3.0: 0.1}) == 2.0
    assert best_strength(cell.record, table, {0.6: 0.9, 3.0: 0.0}) == 0.5
    assert best_strength(cell.record, table, {}) == cell.record.strength


def test_a_clean_method_has_more_precise_edits_and_is_first(tmp_path: Path) -> None:
    cells_of(tmp_path, dirty=DIRTY, clean=CLEAN)
    (found,) = [r.comparison for r in analyse([tmp_path]) if r.comparison is not None]
    first, second = found.standings
    assert (found.headline, first.method) == ("precise_edits", "clean")
    assert first.headline is not None and second.headline is not None
    assert (first.headline.value or 0) > (second.headline.value or 0)
    assert first.p_first == 1 and second.p_first == 0
    assert first.fit_sd.status == "ok"
    (pair,) = found.pairs
    assert pair.p_here is not None and pair.p_here < 0.01


def test_several_fits_count_with_their_mean(tmp_path: Path) -> None:
    (dataset,) = group_cells(cells_of(tmp_path, casl=MadeUpMethod(damage=0.3, fit_sd=1.0)))
    one, other = (dataset.precise_edits("casl", "hat", (fit,)).value for fit in (0, 1))
    both = dataset.precise_edits("casl", "hat", (0, 1)).value
    assert one != other and both == pytest.approx((one + other) / 2)


def test_fits_on_other_images_are_refused(tmp_path: Path) -> None:
    (dataset,) = group_cells(cells_of(tmp_path, casl=CLEAN))
    first, second = (dataset.methods["casl"]["hat"][fit] for fit in (0, 1))
    assert second.scores is not None
    fewer = replace(second, scores=second.scores.take(second.scores.image_ids[:5]))
    with pytest.raises(InputError, match="same images"):
        precise_edits([first, fewer], dataset.scales)


def edits(credit: list[float]) -> PreciseEdits:
    values = np.array(credit)
    ids = tuple(f"test-{i}" for i in range(len(values)))
    return PreciseEdits(ids, values, np.ones(len(values), bool), values)


def test_an_image_of_no_weight_does_not_count() -> None:
    matrix = PreciseEditMatrix({("d", "hat"): {"a": edits([1.0, 0.0]), "b": edits([0.0, 0.0])}})
    weights = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    scores = matrix.scores(weights)[:, 0, 0]
    assert scores[:2].tolist() == [0.5, 1.0] and np.isnan(scores[2])


def scores_of(a: list[float], b: list[float]) -> ResampledScores:
    measured = np.array([a, b])
    design = Design(("d",) * 4, ("d",) * len(a))
    return ResampledScores(design, ("a", "b"), measured, np.repeat(measured[None], 50, axis=0))


def test_first_places_are_shared_where_methods_are_equal() -> None:
    assert first_places(scores_of([0.5, 0.5], [0.5, 0.5]), 0) == {"a": 0.5, "b": 0.5}
    assert first_places(scores_of([0.9, 0.8], [0.1, 0.2]), 0) == {"a": 1.0, "b": 0.0}
    uncertain = first_places(scores_of([0.9, 0.1, 0.5], [0.1, 0.8, 0.5]), 0)["a"]
    assert 0.2 < uncertain < 0.8


def test_more_concepts_are_needed_where_differences_vary_more() -> None:
    calm = concepts_needed(scores_of([0.5, 0.6, 0.5], [0.4, 0.5, 0.41]))
    wild = concepts_needed(scores_of([0.5, 0.6, 0.5], [0.1, 0.9, 0.5]))
    assert calm is not None and wild is not None and calm < wild
    assert concepts_needed(scores_of([0.0, 0.0], [0.0, 0.0])) is None
