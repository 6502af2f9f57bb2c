"""`analyse` gives the numbers that cells held when they still computed them (schema 2).

The file holds per-image scores of two concepts from a run of `rendered_faces` (suite `standard`,
commit 14ef412), with its records: both methods, all controls of one concept, all random directions.
The whole run was compared likewise before the old computation was deleted: 22,580 numbers.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casl_bench.analysis.analyse import analyse_cells
from casl_bench.metrics.edit_scores import PER_IMAGE
from casl_bench.metrics.metric import metric_infos
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import CellKey
from casl_bench.results.score_table import ScoreTable
from casl_bench.results.stored_cells import StoredCell, convert_cells

FILE = Path(__file__).with_name("old_scores.npz")

RESAMPLED_TOGETHER = "epr_plus"
"""The interval of `inverted`: its images have the attribute, those of the random directions lack
it, and the old code resampled the two sets with the same weights, as if they were the same."""

HEADLINE = {"precise_edits", "precise_edit_rate", "best_strength"}
OF_EPR_PLUS = ("epr_plus", "epr_plus_here", "reached", "wrong_way", "cells")
"""What a comparison still says of EPR+."""

NEW_FIELDS = {"schema_version", "provenance", "attribute", "monotone", "artifacts", "curve"}
VERSIONS = {"metric_versions", "metric_identities"}
"""What two of the numbers had none of."""


@pytest.fixture(scope="module")
def old() -> tuple[list[RunRecord], list[StoredCell]]:
    with np.load(FILE) as file:
        arrays = {name: file[name] for name in file.files}
    lines = gzip.decompress(arrays["records"].tobytes()).decode().splitlines()
    records = [RunRecord.from_json(json.loads(line)) for line in lines]
    tables = [_table(arrays, str(i), r) if r.kind == "edit" else None
              for i, r in enumerate(records)]  # fmt: skip
    pairs = zip(records, tables, strict=True)
    return records, convert_cells([(r, t) for r, t in pairs if r.kind != "comparison"])


def _table(arrays: dict[str, Any], cell: str, record: RunRecord) -> ScoreTable:
    images = str(arrays[f"{cell} images"])
    extra = {n: arrays[f"{cell} {n}"] for n in PER_IMAGE if f"{cell} {n}" in arrays}
    return ScoreTable(
        tuple(arrays[images].tolist()),
        record.strengths,
        record.attributes,
        tuple(arrays["classifiers"].tolist()),
        arrays[f"{images} source"],
        arrays[f"{images} reconstruction"],
        arrays[f"{cell} edit_logits"],
        **extra,
    )


def _numbers(value: Any, at: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], Any]]:
    """Every leaf of JSON values, with its place."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, (*at, key))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from _numbers(part, (*at, place))
    else:
        yield at, value


NAMES = {i.formerly: i.name for i in metric_infos() if i.formerly}
FLAGS = {old.replace("_", " "): new.replace("_", " ") for old, new in NAMES.items()}


def _renamed(at: tuple[object, ...]) -> tuple[object, ...]:
    """A place with metrics under the names that they have now."""
    parts = (p.partition("@") if isinstance(p, str) else (p, "", "") for p in at)
    return tuple(
        NAMES.get(name, name) + rest + judge if isinstance(name, str) else name
        for name, rest, judge in parts
    )


def _compared(record: RunRecord) -> dict[tuple[object, ...], Any]:
    stored = record.model_dump(mode="json", exclude=NEW_FIELDS | VERSIONS)
    stored["flags"] = sorted(FLAGS.get(flag, flag) for flag in stored["flags"])
    if record.comparison is not None:  # ranked by EPR+ then, and by precise edits now
        stored["comparison"] = {
            s["method"]: {name: s[name] for name in OF_EPR_PLUS}
            for s in stored["comparison"]["standings"]
        }
    found = {_renamed(at): v for at, v in _numbers(stored) if not {*at} & HEADLINE}
    if record.method == "inverted":
        found = {
            at: value
            for at, value in found.items()
            if not (at[-1] in ("low", "high") and str(at[-2]).startswith(RESAMPLED_TOGETHER))
        }
    return found


def test_every_number_of_the_old_records_comes_back(
    old: tuple[list[RunRecord], list[StoredCell]],
) -> None:
    records, cells = old
    now = {CellKey.of(r): r for r in analyse_cells(cells)}
    compared = 0
    for record in records:
        expected, found = _compared(record), _compared(now[CellKey.of(record)])
        assert found.keys() == expected.keys()
        for at, value in expected.items():
            where = (record.kind, record.method, record.beside, record.concept, *at)
            if isinstance(value, float):
                assert found[at] == pytest.approx(value, rel=1e-9, abs=1e-12), where
                compared += 1
            else:
                assert found[at] == value, where
    assert compared > 6_000
    assert any(r.comparison for r in records)


def test_versions_that_there_were_are_the_same(
    old: tuple[list[RunRecord], list[StoredCell]],
) -> None:
    records, cells = old
    now = {CellKey.of(r): r for r in analyse_cells(cells)}
    for record in records:
        if record.kind != "edit":
            continue
        found = now[CellKey.of(record)]
        changed = {
            name
            for name, identity in record.metric_identities.items()
            if name not in NAMES and found.metric_identities[name] != identity
        }
        assert not changed, "raise this test's fixture with the metric"
        before = {NAMES.get(name, name) for name in record.metric_versions}
        new = found.metric_versions.keys() - before
        assert new == {
            "epr_over_random", "precision_area", "precise_edits", "precise_edit_rate"
        }  # fmt: skip
