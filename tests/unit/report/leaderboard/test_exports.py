"""LaTeX, CSV and JSON say what the pages say."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from casl_bench.report.exports import export, latex_escape
from casl_bench.report.leaderboard import Source
from casl_bench.results.record import RunRecord


def source(records: list[RunRecord]) -> Source:
    return Source("ours", "ours.jsonl.gz", "f" * 64, tuple(records))


def test_csv_has_a_line_a_row(whole: list[RunRecord]) -> None:
    lines = list(csv.DictReader(io.StringIO(export([source(whole)], "csv"))))
    casl = lines[0]
    assert (casl["method"], casl["rank_low"], casl["rank_high"]) == ("casl", "1", "1")
    assert float(casl["epr_plus"]) == float(casl["epr_plus_low"]) + 1
    assert (casl["flip_rate"], casl["cells_done"]) == ("0.5", "3")
    assert lines[1]["flags"] == "not reached: 1"
    oracle = next(line for line in lines if line["method"] == "oracle")
    assert (oracle["status"], oracle["rank_low"], oracle["epr_over_random"]) == ("control", "", "")


def test_json_tells_what_it_is_of(whole: list[RunRecord]) -> None:
    found = json.loads(export([source(whole)], "json"))
    assert found["generated_from"] == [
        {"file": "ours.jsonl.gz", "sha256": "f" * 64, "records": len(whole)}
    ]
    (board,) = found["boards"]
    assert found["columns"]["perceptual"]["better"] == "lower"
    assert found["columns"].keys() == board["rows"][0]["numbers"].keys()
    assert (board["suite"], board["suite_version"], board["level"]) == ("standard", 3, "effect_50")
    assert board["rows"][1]["significance_letters"] == "b"
    assert board["rows"][1]["flags"] == {"not reached": 1}
    assert board["pairs"][0]["a"] == "casl"
    assert board["rows"][0]["numbers"]["through_sae"]["value"] is None


def test_latex_is_a_booktabs_table(whole: list[RunRecord]) -> None:
    text = export([source(whole)], "latex")
    lines = text.splitlines()
    assert lines.count(r"\midrule") == 2  # under the heading, and above what has no rank
    assert r"1 & casl & a & $7.96 [6.96, 8.96]$ & $2.00$" in text
    assert r"--- & random\_direction & ---" in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    columns = {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if "&" in line}
    assert columns == {9}


def test_names_are_no_commands_of_latex(made_up_run: Any) -> None:
    text = export([source(made_up_run({r"a_b\input{x}&%": {"brick": 1.0}}).records)], "latex")
    assert r"a\_b\textbackslash{}input\{x\}\&\%" in text
    assert latex_escape("~^#$") == r"\textasciitilde{}\textasciicircum{}\#\$"
