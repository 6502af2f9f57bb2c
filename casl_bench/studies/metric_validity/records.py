"""What the study keeps: one JSON line each for the study, a scored edit and a side of a trick."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, TypeAdapter

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.results.record import Finite, Frozen
from casl_bench.studies.frame import parse_lines, to_lines

DIGITS = 5
"""Significant digits of a metric's value."""

Values = tuple[Finite | None, ...]


def rounded(value: float | None) -> float | None:
    """With `DIGITS` significant digits."""
    return None if value is None else float(f"{value:.{DIGITS}g}")


class MetricRef(Frozen):
    """A metric on trial, as it declares itself.

    Attributes:
        name: lower_snake.
        version: of its definition.
        title: as in a table.
        higher_is_better: None where neither is.
        registered: False for a plain alternative of this study.
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
        images: number edited per concept.
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
        values: one per metric; None where undefined.
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
        cases: number of (data set, concept), or of (sample of the toy, target).
        values: medians over cases, one per metric; None where it is undefined in most cases.
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


_Row = Annotated[StudyHeader | EditRow | TrickRow, Field(discriminator="kind")]
_KINDS: TypeAdapter[StudyHeader | EditRow | TrickRow] = TypeAdapter(_Row)


@dataclass(frozen=True, eq=False)
class StudyRecords:
    """All records, edits and tricks in the order in which they were made."""

    header: StudyHeader
    edits: tuple[EditRow, ...]
    tricks: tuple[TrickRow, ...]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per edit: its fields, and a column per metric, NaN where undefined."""
        fields = ["dataset", "concept", "family", "level", "classifier", "precision"]
        rows = pd.DataFrame([[getattr(r, f) for f in fields] for r in self.edits], columns=fields)
        values = np.array([r.values for r in self.edits], dtype=np.float64)
        return rows.join(pd.DataFrame(values, columns=[m.name for m in self.header.metrics]))

    @cached_property
    def classifiers(self) -> list[str]:
        """Names, the primary classifier first."""
        return list(dict.fromkeys(row.classifier for row in self.edits))

    def metric(self, name: str) -> MetricRef:
        """A metric on trial.

        Raises:
            InvalidBenchmarkError: the records do not have it.
        """
        for metric in self.header.metrics:
            if metric.name == name:
                return metric
        raise InvalidBenchmarkError(
            f"the study's records hold no metric '{name}'", hint="make them anew"
        )

    def to_jsonl(self) -> str:
        """One line each, the header first; equal records give equal bytes."""
        return to_lines((self.header, *self.edits, *self.tricks))

    @classmethod
    def from_jsonl(cls, text: str, where: str = "") -> StudyRecords:
        """Read what `to_jsonl` wrote.

        Raises:
            InvalidBenchmarkError: on anything else.
        """
        header, *rows = parse_lines(text, _KINDS, where)
        edits = tuple(row for row in rows if isinstance(row, EditRow))
        tricks = tuple(row for row in rows if isinstance(row, TrickRow))
        if not isinstance(header, StudyHeader) or len(edits) + len(tricks) != len(rows):
            raise InvalidBenchmarkError("a study has one header, in its first line", where=where)
        counts = len(header.metrics), len(header.metrics_of_tricks)
        if {len(r.values) for r in edits} - {counts[0]} or {len(r.values) for r in tricks} - {
            counts[1]
        }:
            raise InvalidBenchmarkError("rows and header differ in their metrics", where=where)
        return cls(header, edits, tricks)
