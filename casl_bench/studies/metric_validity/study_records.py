"""What the study keeps: one JSON line each for the study, a scored edit and a side of a trick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.records.measurement import Finite, Frozen
from casl_bench.studies.study_files import parse_lines, to_lines

DIGITS = 5
"""Significant digits of a metric's value."""

Values = tuple[Finite | None, ...]


class MetricRef(Frozen):
    """A metric on trial.

    Attributes:
        name: lower_snake.
        version: as declared.
        title: as in a table.
        higher_is_better: as declared.
        registered: whether it is one of `METRICS`, or a plain alternative of this study.
    """

    name: str
    version: int
    title: str
    higher_is_better: bool | None
    registered: bool


class StudyHeader(Frozen):
    """What all other lines rest on.

    Attributes:
        kind: "study".
        version: of the study: of its edits, its truth and its tricks.
        command: that made the records.
        images: edited for each concept.
        split: that they are of.
        datasets: data set → revision.
        scorers: data set → scorer → hash of its weights.
        packages: versions of python and of the packages that decide numbers.
        metrics: in the order of an edit's `values`.
        metrics_of_tricks: in the order of a trick's `values`: the same, then EPR+.
    """

    kind: Literal["study"] = "study"
    version: int
    command: str
    images: int
    split: str
    datasets: dict[str, str]
    scorers: dict[str, dict[str, str]]
    packages: dict[str, str]
    metrics: tuple[MetricRef, ...]
    metrics_of_tricks: tuple[MetricRef, ...]


class EditRow(Frozen):
    """One graded edit of one concept, as one classifier and the other scorers see it.

    Attributes:
        kind: "edit".
        dataset: its name.
        concept: its name.
        family: of `FAMILIES`, or "exact".
        other: the attribute that is changed as well, where it is one.
        level: of the family.
        classifier: whose logits.
        precision: the known one, in [-1, 1].
        collateral: the known one, in standard deviations summed over factors.
        values: one a metric; None where undefined.
    """

    kind: Literal["edit"] = "edit"
    dataset: str
    concept: str
    family: str
    other: str = ""
    level: Finite
    classifier: str
    precision: Finite = Field(ge=-1, le=1)
    collateral: Finite = Field(ge=0)
    values: Values


class TrickRow(Frozen):
    """One side of a trick, over all cases that it was tried on.

    Attributes:
        kind: "trick".
        trick: its name.
        side: "before" or "after".
        classifier: whose logits; "linear" in the toy.
        cases: that it was tried on: (data set, concept) or (draw of the toy, target).
        values: medians over cases, one a metric; None where it is undefined in most cases.
        low: 5 % quantiles over cases.
        high: 95 % quantiles.
    """

    kind: Literal["trick"] = "trick"
    trick: str
    side: Literal["before", "after"]
    classifier: str
    cases: int
    values: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class StudyRecords:
    """The whole of it.

    Attributes:
        header: what it rests on.
        edits: in the order in which they were made.
        tricks: likewise.
    """

    header: StudyHeader
    edits: tuple[EditRow, ...]
    tricks: tuple[TrickRow, ...]

    def place(self, metric: str) -> int:
        """Where a metric stands in an edit's `values`.

        Raises:
            InvalidBenchmarkError: the records do not have it.
        """
        names = [m.name for m in self.header.metrics]
        if metric not in names:
            raise InvalidBenchmarkError(
                f"the study's records hold no metric '{metric}'", mend="make them anew"
            )
        return names.index(metric)

    def to_jsonl(self) -> str:
        """One line each, the header first; equal records give equal bytes."""
        return to_lines((self.header, *self.edits, *self.tricks))

    @classmethod
    def from_jsonl(cls, text: str, where: str = "") -> StudyRecords:
        """Read what `to_jsonl` wrote.

        Raises:
            InvalidBenchmarkError: on anything else.
        """
        header, edits, tricks = parse_lines(text, _parts, where)
        for rows, metrics in ((edits, header.metrics), (tricks, header.metrics_of_tricks)):
            if not {len(r.values) for r in rows} <= {len(metrics)}:
                raise InvalidBenchmarkError("rows and header differ in their metrics", where=where)
        return cls(header, tuple(edits), tuple(tricks))


def _parts(lines: list[Any]) -> tuple[StudyHeader, list[EditRow], list[TrickRow]]:
    first, *rest = lines
    return (
        StudyHeader.model_validate(first),
        [EditRow.model_validate(row) for row in rest if row["kind"] == "edit"],
        [TrickRow.model_validate(row) for row in rest if row["kind"] != "edit"],
    )


def rounded(value: float | None) -> float | None:
    """With `DIGITS` significant digits."""
    return None if value is None else float(f"{value:.{DIGITS}g}")
