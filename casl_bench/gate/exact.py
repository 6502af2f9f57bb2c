"""The exact tier: fixed seeds and device give the golden scores again, or a version was raised.

Whether numbers changed at all is no statistical question. They may where the version of the method
or of a metric was raised with them; then the golden run is to be made anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from casl_bench.core.errors import UsageError
from casl_bench.gate.gate import Scope
from casl_bench.gate.run_side import CellName, RunSide, read_side
from casl_bench.gate.verdict import QUESTIONS, CellVerdict, Verdict, why_not_comparable
from casl_bench.metrics.edit_scores import PER_IMAGE, Array
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.score_table import ScoreTable

TOLERANCE = 1e-5
"""Relative to a score itself or to the mean size of its column, whichever is larger: a logit near
0 has no digits of its own."""

_Finding = tuple[Verdict, str]


def compare_exactly(golden: RunSide, head: RunSide, scope: Scope) -> list[CellVerdict]:
    """A verdict for every (data set, method) of the golden run within the scope.

    Controls of the scope's data sets always are; the head is the same command on other code.
    """
    found: dict[CellName, list[_Finding]] = {}
    here = {CellKey.of(record): record for record in head.records}
    for record in golden.records:
        if record.kind != "edit" or record.status != "done":
            continue
        of_datasets = scope.datasets is None or record.dataset in scope.datasets
        if not of_datasets or not (record.control or scope.holds(record)):
            continue
        finding = _compare(golden, head, record, here.get(CellKey.of(record)))
        matched = f" matched to {record.beside}" if record.beside else ""
        found.setdefault((record.dataset, (record.method or "") + matched), []).append(finding)
    return [_worst(name, findings) for name, findings in found.items()]


def _worst(name: CellName, findings: list[_Finding]) -> CellVerdict:
    verdict = min((v for v, _ in findings), key=tuple(Verdict).index)
    reasons = list(dict.fromkeys(reason for v, reason in findings if v == verdict))
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return CellVerdict(
        dataset=name[0], method=name[1], verdict=verdict, reason=reasons[0] + more,
        concepts=len(findings),
    )  # fmt: skip


def _compare(golden: RunSide, head: RunSide, was: RunRecord, now: RunRecord | None) -> _Finding:
    place = f"{was.concept} #{was.fit_seed}" if was.fit_seed else was.concept
    if now is None or now.status != "done":
        return Verdict.FAIL, f"missing: {place}" if now is None else f"no longer runs on {place}"
    device = ("device", lambda r: r.provenance.device.split(":")[0])
    reason = why_not_comparable(was, now, (*QUESTIONS, device))
    if reason is not None:
        return Verdict.NOT_COMPARABLE, reason
    change = difference(golden.scores(was), head.scores(now))
    if change is None:
        return Verdict.PASS, f"equal within {TOLERANCE:g}"
    raised = _raised_version(was, now)
    if raised is not None:
        return Verdict.PASS, f"{raised}: make the golden run anew"
    return Verdict.FAIL, f"{place}: {change}, and no version was raised"


def difference(golden: ScoreTable, head: ScoreTable) -> str | None:
    """In what two tables differ by more than `TOLERANCE`, in words; None if in nothing."""
    for name in ("image_ids", "attributes", "classifiers"):
        if getattr(golden, name) != getattr(head, name):
            return f"other {name.replace('_', ' ')}"
    was, now = np.array(golden.strengths), np.array(head.strengths)
    if was.shape != now.shape or _relative(was, now) > TOLERANCE:
        listed = [", ".join(f"{s:g}" for s in strengths) for strengths in (now, was)]
        return f"strengths {listed[0]} instead of {listed[1]}"
    worst, column = 0.0, ""
    for name in ("source_logits", "reconstruction_logits", "edit_logits", *PER_IMAGE):
        a, b = getattr(golden, name), getattr(head, name)
        if (a is None) != (b is None):
            return f"{name} is there on one side only"
        if a is not None and (relative := _relative(a, b)) > worst:
            worst, column = relative, name
    return f"{column} differs by a relative {worst:.1e}" if worst > TOLERANCE else None


def _relative(golden: Array, head: Array) -> float:
    """Largest |head - golden| over max(|golden|, its mean over all but the last axis)."""
    if golden.size == 0:
        return 0.0
    size = np.abs(golden)
    column = size.mean(tuple(range(size.ndim - 1)), keepdims=True) if size.ndim > 2 else size.mean()
    scale = np.maximum(size, column)
    apart = np.abs(head - golden)
    return float(np.divide(apart, scale, out=np.where(apart > 0, np.inf, 0.0),
                           where=scale > 0).max())  # fmt: skip


def _raised_version(was: RunRecord, now: RunRecord) -> str | None:
    if (now.method_version or 0) > (was.method_version or 0):
        return f"method version raised to {now.method_version}"
    for name, version in was.metric_versions.items():
        if now.metric_versions.get(name, 0) > version:
            return f"version of {name} raised to {now.metric_versions[name]}"
    return None


def write_golden(run: Path, out: Path) -> int:
    """Copy cells and per-image scores of a valid run, without pictures and validation scores.

    `out` becomes small enough to be committed; it must be empty, so that no old cell stays in it.

    Returns:
        Number of records written.

    Raises:
        UsageError: if `out` holds something, or `run` nothing.
        InvalidBenchmarkError: if the run's numbers mean nothing.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError("the folder is not empty", where=str(out), hint="remove it first")
    side, store = read_side(run), RecordStore(out)
    kept = [record for record in side.store if record.kind in ("edit", "null", "scorer")]
    for record in kept:
        files = {}
        if record.scores is not None:
            place = side.store.folder(CellKey.of(record))
            files[record.scores.file] = (place / record.scores.file).read_bytes()
        slim = {"images": None, "validation_scores": None}
        store.write(record.model_copy(update=slim), files)
    return len(kept)
