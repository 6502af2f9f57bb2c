"""Whatever a field of a record holds, it is text: on pages, in LaTeX, in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from casl_bench.report.exports import export
from casl_bench.report.leaderboard import Source
from casl_bench.report.leaderboard_pages import render_pages
from casl_bench.results.record import RunRecord, Standing

HOSTILE = "=<b onload=x>](javascript:y)\x1b[1m\u202e|`\\input{z}"


def strings(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """(path without places in lists, container, key) of every text in a JSON value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            inner = (*path, key if isinstance(key, str) else "*")
            if isinstance(value[key], str):
                yield inner, value, key
            yield from strings(value[key], inner)


def test_every_field_of_a_record_is_text(whole: list[RunRecord], made_up_run: Any) -> None:
    run = made_up_run({"casl": {"brick": 9.0}, "asyrp": {"brick": 3.0}})
    probe = run.record("rendered_churches", "probe", method="casl", concept="brick", flags=("x",))
    failed = run.cell("rendered_churches", "h_pca", "brick", status="failed",
                      error={"type": "ValueError", "message": "why"})  # fmt: skip
    records = [*run.records, probe, failed]
    stored = [json.loads(json.dumps(r.to_json())) for r in records]
    seen: set[tuple[str, ...]] = set()
    tried = 0
    for place, one in enumerate(stored):
        for path, holder, key in [*strings(one)]:
            if (one["kind"], one["method"], *path) in seen:
                continue
            seen.add((one["kind"], one["method"], *path))
            old, holder[key] = holder[key], HOSTILE
            own = {k: v for k, v in one.items() if not k.endswith("_id")}
            try:
                changed = RunRecord.model_validate_json(json.dumps(own), strict=True)
            except ValidationError:
                pass
            else:
                check([*records[:place], changed, *records[place + 1 :]], path)
                tried += 1
            holder[key] = old
    assert tried > 60


def check(records: list[RunRecord], path: tuple[str, ...]) -> None:
    source = Source("ours", "ours.jsonl.gz", "f" * 64, tuple(records))
    for page in render_pages([source]).values():
        code = re.sub(r"(`+)[^`].*?\1|^    .*$", "", page, flags=re.MULTILINE)
        assert "<b" not in code and not re.search(r"(?<!\\)\]\(javascript", code), path
        assert page.replace("\n", "").isprintable(), path
    latex, table = export([source], "latex"), export([source], "csv")
    assert "\\input" not in latex and latex.replace("\n", "").isprintable(), path
    assert table.replace("\n", "").isprintable(), path
    for line in csv.reader(io.StringIO(table)):
        assert not [cell for cell in line if cell[:1] in tuple("=+@")], path
        assert not [c for c in line if c[:1] == "-" and not re.fullmatch(r"-[\d.e-]+", c)], path


def test_letters_are_letters(whole: list[RunRecord]) -> None:
    comparison = next(r.comparison for r in whole if r.comparison is not None)
    good = comparison.standings[0].model_dump()
    assert Standing(**{**good, "group": "ab(3)"}).group == "ab(3)"
    with pytest.raises(ValidationError, match="group"):
        Standing(**{**good, "group": "<b>"})


def test_numbers_are_no_formulas(made_up_run: Any) -> None:
    run = made_up_run({"-1+1": {"brick": -2.0}, "@x": {"brick": 1.0}})
    source = Source("ours", "ours.jsonl", "f" * 64, tuple(run.records))
    lines = list(csv.DictReader(io.StringIO(export([source], "csv"))))
    assert {line["method"] for line in lines} >= {"'-1+1", "'@x"}
    assert float(next(x for x in lines if x["method"] == "'-1+1")["epr_plus"]) == pytest.approx(-2)
