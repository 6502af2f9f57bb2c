"""Whether a finished run may be believed: controls within their bounds."""

from __future__ import annotations

from collections.abc import Sequence

from casl_bench.metrics.intervals import wilson_interval
from casl_bench.records.record import RunRecord

ORACLE_FLIPS = 0.9
"""The known edit must be seen by the classifier on at least this share of images."""


def broken_bounds(records: Sequence[RunRecord]) -> list[str]:
    """Bounds of the controls that do not hold, as sentences; empty where the run is valid.

    identity: changes nothing at all. oracle: flips `ORACLE_FLIPS` of the images, and more of them
    than the random controls that stand beside entrants do. A share is under its bound where the
    upper end of its interval is: a handful of images shows nothing.

    Args:
        records: of one data set.
    """
    faults = []
    for record in _edits(records, "identity"):
        change = record.measurements["signed_target_change"].value
        if change != 0:
            faults.append(f"'identity' moved {record.concept} by {change} standard deviations")
    oracle = _mean_flip(_edits(records, "oracle"))
    flips, images = _flips(_edits(records, "oracle"))
    interval = wilson_interval(flips, images)
    if interval is not None and interval[1] < ORACLE_FLIPS:
        faults.append(
            f"the oracle flips only {flips / images:.2f} of {images} images, under {ORACLE_FLIPS}"
        )
    for name in sorted({r.method or "" for r in records if r.beside is not None}):
        random = _mean_flip(_edits(records, name))
        if oracle is not None and random is not None and random >= oracle:
            faults.append(f"'{name}' flips {random:.2f} of images, the oracle {oracle:.2f}")
    return faults


def _edits(records: Sequence[RunRecord], method: str) -> list[RunRecord]:
    return [r for r in records if r.kind == "edit" and r.method == method and r.status == "done"]


def _flips(records: Sequence[RunRecord]) -> tuple[float, int]:
    """Images flipped and images that could be, over all records."""
    rates = [r.measurements["flip_rate"] for r in records]
    known = [(m.value, m.n) for m in rates if m.value is not None and m.n]
    return sum(value * n for value, n in known), sum(n for _, n in known)


def _mean_flip(records: Sequence[RunRecord]) -> float | None:
    values = [m.value for r in records if (m := r.measurements["flip_rate"]).value is not None]
    return sum(v for v in values if v is not None) / len(values) if values else None
