"""Records of the study come back as they were written, and nothing else is read."""

from __future__ import annotations

import pytest

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.studies.metric_validity.records import (
    EditRow,
    MetricRef,
    StudyHeader,
    StudyRecords,
    TrickRow,
    rounded,
)

METRIC = MetricRef(name="epr", version=1, title="EPR", higher_is_better=True, registered=True)
HEADER = StudyHeader(
    version=1, command="c", images=4, split="validation", datasets={"d": "r"},
    scorers={"d": {"s": "0" * 64}}, packages={}, metrics=(METRIC,), metrics_of_tricks=(METRIC,),
)  # fmt: skip
EDIT = EditRow(
    dataset="d", concept="c", family="exact", level=0, classifier="k", precision=1, collateral=0,
    values=(None,),
)  # fmt: skip
TRICK = TrickRow(
    trick="copy", side="after", classifier="k", cases=1, values=(1.5,), low=(1.0,), high=(2.0,)
)
RECORDS = StudyRecords(HEADER, (EDIT,), (TRICK,))


def test_round_trip() -> None:
    text = RECORDS.to_jsonl()
    found = StudyRecords.from_jsonl(text)
    assert (found.header, found.edits, found.tricks) == (HEADER, (EDIT,), (TRICK,))
    assert text.count("\n") == 3 and found.to_jsonl() == text


@pytest.mark.parametrize(
    "text",
    ["", "{}", "no json", RECORDS.to_jsonl() + '{"kind":"edit"}\n',
     RECORDS.to_jsonl().replace('"values":[null]', '"values":[null,1]'),
     RECORDS.to_jsonl().replace('"values":[null]', '"values":[NaN]')],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidBenchmarkError):
        StudyRecords.from_jsonl(text, "file")


def test_an_unknown_metric_is_refused() -> None:
    assert RECORDS.metric("epr") == METRIC
    with pytest.raises(InvalidBenchmarkError, match="no metric 'mine'"):
        RECORDS.metric("mine")


def test_rounding_keeps_what_is_undefined() -> None:
    assert rounded(None) is None
    assert rounded(1.23456789) == 1.2346
