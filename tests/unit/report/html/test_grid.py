"""The grid of pictures: which picture stands where, and what is said of it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from casl_bench.report.grouping import Group, RowKey
from casl_bench.report.html.edit_grid import EditGrid, Kept, Sheet, edit_grid
from casl_bench.report.html.figures import styles_of
from casl_bench.report.html.sections import logit_spreads
from casl_bench.report.pictures import load_images

ROWS = [RowKey(False, "casl"), RowKey(False, "asyrp"), RowKey(True, "random_direction")]


@pytest.fixture(scope="module")
def grid(run: Any) -> EditGrid:
    store, group = run.store, Group(run.records)
    records = {key: group.done(key)["hat"] for key in ROWS}
    kept = {key: Kept(r, load_images(store, r), store.scores(r)) for key, r in records.items()}
    return edit_grid(kept, styles_of(ROWS), logit_spreads(group), Sheet("hat"))


def test_columns_are_effects_and_what_is_not_matched(grid: EditGrid) -> None:
    assert grid.columns == ("25 % effect", "50 % effect", "not matched")
    assert len(grid.images) == 3
    casl, asyrp, random = grid.images[0].rows
    assert [bool(t.style) for t in casl.tiles] == [True, True, False]
    # Its largest effect is what the tables report of it, and no level.
    assert [bool(t.style) for t in asyrp.tiles] == [True, False, True]
    assert asyrp.tiles[1].about == "not reached, at most 0.80 σ"
    assert [bool(t.style) for t in random.tiles] == [False, False, True]
    assert random.control and random.name == "random_direction (control)"


def test_every_picture_is_another_place_on_the_sheet(grid: EditGrid, fake: ModuleType) -> None:
    styles = {t.style for i in grid.images for r in i.rows for t in r.tiles if t.style}
    assert len(styles) == 3 * (2 + 2 + 1)
    given = {t.style for i in grid.images for t in i.given}
    assert len(given) == 9 and not given & styles


def test_a_picture_tells_target_and_collateral(grid: EditGrid) -> None:
    tile = grid.images[1].rows[0].tiles[1]
    (target, change), *others = tile.changes
    assert target == "hat" and change is not None and change > 0.5
    assert {name for name, _ in others} == {"smiling", "pale"}
    assert tile.about.startswith("casl, 50 % effect, strength 1; target hat +")
    assert tile.about.endswith("σ on average")
    assert tile.caption == f"+{change:.2f} σ"


def test_strengths_are_columns_where_nothing_is_matched(run: Any) -> None:
    record = Group(run.records).done(ROWS[2])["hat"]
    kept = {ROWS[2]: Kept(record, load_images(run.store, record), None)}
    found = edit_grid(kept, styles_of(ROWS), {}, Sheet("hat"))
    assert found.columns == ("strength 0.5", "strength 1")
    (row,) = found.images[0].rows
    assert [t.caption for t in row.tiles] == ["× 0.5", "× 1"] and not row.tiles[0].changes
