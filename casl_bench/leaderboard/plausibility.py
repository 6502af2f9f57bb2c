"""Values that no measurement can have, whatever the method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from casl_bench.records.measurement import Measurement
from casl_bench.records.record import RunRecord

_RANGES = {"share": (0.0, 1.0), "fraction": (0.0, 1.0), "cosine": (-1.0, 1.0), "dB": (0.0, 200.0)}
"""By unit. 8-bit pictures that are equal have no more dB than this."""

_NEVER_NEGATIVE = frozenset(
    {"epr_raw", "epr_std", "epr_floored", "epr_over_random", "mean_collateral", "perceptual"}
)

MOST_SD = 100.0
"""No attribute moves by so many standard deviations of its logit over real images."""

_SLACK = 1e-6


def implausible(records: Sequence[RunRecord], images: int | None = None) -> list[str]:
    """Impossible values, as sentences.

    Args:
        records: of any kind.
        images: the most that a concept is measured on; None where that is not known.
    """
    return [fault for record in records for fault in _of_record(record, images)]


def _of_record(record: RunRecord, images: int | None) -> Iterator[str]:
    what = "/".join(x for x in (record.dataset, record.method or record.kind, record.concept) if x)
    for name, found in _measurements(record):
        if found.value is None:
            continue
        low, high = _range(name.split("@")[0], found)
        if not low - _SLACK <= found.value <= high + _SLACK:
            yield f"{what}: {name} is {found.value:g}, outside [{low:g}, {high:g}]"
        if record.kind == "edit" and found.n == 0:
            yield f"{what}: {name} is of no image"
        if record.kind == "edit" and images is not None and found.n > images:
            yield f"{what}: {name} is of {found.n} images, the suite has {images}"
    for attribute, drift in record.drift.items():
        if drift is not None and abs(drift) > MOST_SD:
            yield f"{what}: drift of {attribute} is {drift:g} σ"


def _measurements(record: RunRecord) -> Iterator[tuple[str, Measurement]]:
    yield from record.measurements.items()
    for level in record.levels:
        yield from level.measurements.items()


def _range(name: str, found: Measurement) -> tuple[float, float]:
    low, high = _RANGES.get(found.unit, (-float("inf"), float("inf")))
    if found.unit == "sd":
        low, high = -MOST_SD, MOST_SD
    return (max(low, 0.0) if name in _NEVER_NEGATIVE else low), high
