"""May two records of one cell be compared at all? Only if they are answers to one question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from casl_bench.records.record import RunRecord

_Question = tuple[str, Callable[[RunRecord], Any]]

QUESTIONS: tuple[_Question, ...] = (
    ("world", lambda r: r.world),
    ("data set revision", lambda r: r.dataset_revision),
    ("suite", lambda r: f"{r.suite.name} v{r.suite.version}"),
    ("seed", lambda r: r.seed),
    ("attributes", lambda r: r.attributes),
    ("deciding classifier", lambda r: r.judges[:1]),
    ("classifier weights", lambda r: [(j, r.scorers.get(j)) for j in r.judges[:1]]),
    ("kernels", lambda r: r.provenance.kernels),
    ("backbone weights", lambda r: r.backbone),
)
"""What must be equal whatever is compared."""

VERSIONS: tuple[_Question, ...] = (
    ("method version", lambda r: r.method_version),
    ("EPR+ version", lambda r: r.metric_versions.get("epr_plus")),
    ("EPR+ definition", lambda r: r.metric_identities.get("epr_plus")),
)
"""What is raised when a number is meant to move."""


def why_not_comparable(
    base: RunRecord, head: RunRecord, questions: tuple[_Question, ...] = QUESTIONS + VERSIONS
) -> str | None:
    """The first thing in which two records differ and must not, in words; None if there is none.

    Settings may differ: a changed default is a change whose effect the gate is to tell. So may the
    SAE and other artefacts that the code under test has made.

    Args:
        base: of a cell.
        head: of the same cell.
        questions: what must be equal.
    """
    for name, answer in questions:
        was, now = answer(base), answer(head)
        if was != now:
            return f"{name}: {_short(was)} in the base, {_short(now)} in the head"
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
