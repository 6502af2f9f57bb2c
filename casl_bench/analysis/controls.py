"""Whether a run may be believed: seven controls, each with a bound that must hold.

A bound says what a control shows if metrics, scorers and runner work. One that is broken makes the
run invalid, whatever its methods' numbers. Where a control was not run, such as an oracle where
factors are unknown, its bound is not checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.metrics.bootstrap import wilson_interval
from casl_bench.metrics.epr_plus import signed_exp, signed_log
from casl_bench.metrics.image_similarity import DRIFT_THRESHOLD
from casl_bench.results.record import FULL, Measurement, RunRecord

ORACLE_FLIPS = 0.9
"""The known edit must be seen by the classifier on at least this share of images."""

SURPASSED = 1.25
"""A method may have this many times the oracle's EPR+ before noise no longer explains it."""

DIRECTIONS_APART = 4.0
"""No random direction may have this many times the EPR of the others, or so small a part of it."""

SHUFFLED_SHARE = 0.25
"""Another concept's edit may move the target by this share of the full effect."""

TIES = 3.0
"""The inverted oracle's raw EPR may be so many times the oracle's, or so small a part of it."""

FOOLED_SHARE = 0.5
"""What the attacked classifier sees must be at least this share fewer for one that was not."""

_EPR_PLUS = "epr_plus"

Records = Sequence[RunRecord]


class _LackingError(Exception):
    """A record lacks a measurement that its bound needs; says which."""


@dataclass(frozen=True)
class Bound:
    """A control, what it must show, and a function of records that says what does not hold."""

    control: str
    must: str
    check: Callable[[Records], list[str]]

    def faults(self, records: Records) -> list[str]:
        """What does not hold on the records of one data set, as sentences; else empty."""
        try:
            return self.check(records)
        except _LackingError as error:
            return [f"a record of control '{self.control}' lacks '{error}'"]


def broken_bounds(records: Records) -> list[str]:
    """Bounds of the controls that do not hold on one data set, as sentences; else empty."""
    return [fault for bound in BOUNDS for fault in bound.faults(records)]


def check_bounds(records: Records, where: Path) -> None:
    """Refuse records, of any data sets, suites and seeds, of which no table may be made.

    Raises:
        InvalidBenchmarkError: with every bound that does not hold.
    """
    runs: dict[tuple[object, ...], list[RunRecord]] = {}
    for r in records:
        runs.setdefault((r.dataset, r.dataset_revision, r.suite, r.seed), []).append(r)
    faults = [fault for own in runs.values() for fault in broken_bounds(own)]
    if faults:
        raise InvalidBenchmarkError(
            f"a control is out of its bounds: {'; '.join(faults)}",
            where=str(where),
            hint="the tables of this run mean nothing",
        )


def identity_bound(records: Records) -> list[str]:
    """No edit: nothing moves at all, and EPR, which would divide by nothing, is undefined."""
    faults = []
    for record in _of(records, "identity"):
        change = _needed(record.measurements, "signed_target_change").value
        if change != 0:
            faults.append(f"'identity' moved {record.concept} by {change} standard deviations")
        if _needed(record.measurements, "epr_raw").status == "ok":
            faults.append(f"'identity' has an EPR for {record.concept}")
    return faults


def oracle_bound(records: Records) -> list[str]:
    """The known edit flips `ORACLE_FLIPS` of the images, and no method is more precise.

    A share is under its bound where the upper end of its interval is, and a method is more precise
    where the lower end of its own is: a handful of images shows nothing.
    """
    oracle = _of(records, "oracle")
    rates = [m for r in oracle if (m := _at_full(r).get("flip_rate")) is not None]
    known = [(m.value, m.n) for m in rates if m.value is not None and m.n]
    flips, images = sum(value * n for value, n in known), sum(n for _, n in known)
    interval = wilson_interval(flips, images)
    faults = []
    if interval is not None and interval[1] < ORACLE_FLIPS:
        faults.append(
            f"the oracle flips only {flips / images:.2f} of {images} images, under {ORACLE_FLIPS}"
        )
    top = {r.concept: v for r in oracle if (v := _matched(r)) is not None}
    methods = {r.method or "" for r in records if r.kind == "edit" and not r.control}
    for name in sorted(methods):
        own = {r.concept: v for r in _of(records, name) if (v := _surely(r)) is not None}
        both = [c for c in top if c in own]
        if not both:
            continue
        lead = sum(signed_log(own[c]) - signed_log(top[c]) for c in both) / len(both)
        if lead > math.log(SURPASSED):
            faults.append(
                f"'{name}' is more precise than the oracle: {math.exp(lead):.2f} times its EPR+ "
                "at the least"
            )
    return faults


def random_bound(records: Records) -> list[str]:
    """Random directions are alike: each has about the EPR of the others."""
    logs: dict[int, dict[str, float]] = {}
    for record in _of(records, "random_direction"):
        value = _needed(record.measurements, "epr_std").value
        if record.beside is None and value and value > 0:
            logs.setdefault(record.fit_seed, {})[record.concept or ""] = math.log(value)
    faults = []
    for seed, own in logs.items():
        gaps = []
        for concept, value in own.items():
            others = [x[concept] for d, x in logs.items() if d != seed and concept in x]
            if others:
                gaps.append(value - sum(others) / len(others))
        ratio = math.exp(sum(gaps) / len(gaps)) if gaps else 1.0
        if not 1 / DIRECTIONS_APART < ratio < DIRECTIONS_APART:
            faults.append(
                f"draw {seed} of 'random_direction' has {ratio:.2f} times the EPR of the others"
            )
    return faults + _matched_bound(records)


def _matched_bound(records: Records) -> list[str]:
    """Random edits as large as a method's flip fewer images than the oracle."""
    faults, oracle = [], _mean_flip(_of(records, "oracle"))
    for name in sorted({r.method or "" for r in records if r.beside is not None}):
        random = _mean_flip(_of(records, name))
        if oracle is not None and random is not None and random >= oracle:
            faults.append(f"'{name}' flips {random:.2f} of images, the oracle {oracle:.2f}")
    return faults


def _mean_flip(records: Records) -> float | None:
    rates = [m for r in records if (m := _at_full(r).get("flip_rate")) is not None]
    values = [m.value for m in rates if m.value is not None]
    return sum(values) / len(values) if values else None


def shuffled_bound(records: Records) -> list[str]:
    """Another concept's edit hardly moves the target, and is no better at it than chance."""
    own = _of(records, "shuffled")
    faults = []
    full_effects = {r.concept: r.full_effect for r in _of(records, "oracle")}
    shares = [
        change / full
        for r in own
        if (full := full_effects.get(r.concept))
        and (change := _needed(r.measurements, "signed_target_change").value) is not None
    ]
    if shares and (share := sum(shares) / len(shares)) > SHUFFLED_SHARE:
        faults.append(f"'shuffled' moves the target by {share:.2f} of the full effect")
    mean = _mean_log(own, _EPR_PLUS)
    if mean is not None and mean > signed_log(1.0):
        faults.append(f"'shuffled' has an EPR+ of {signed_exp(mean):.2f}, over the random 1")
    return faults


def inverted_bound(records: Records) -> list[str]:
    """The oracle the wrong way has a negative EPR+, although its raw EPR is the oracle's."""
    own, faults = _of(records, "inverted"), []
    for name in ("signed_target_change", _EPR_PLUS):
        mean = _mean_log(own, name)
        if mean is not None and mean >= 0:
            faults.append(f"'inverted' has a mean {name} of {signed_exp(mean):.2f}, not below 0")
    ratio = _geometric_ratio(
        {r.concept: _needed(r.measurements, "epr_raw") for r in own},
        {r.concept: _needed(_at_full(r), "epr_raw") for r in _of(records, "oracle")},
    )
    if ratio is not None and not 1 / TIES < ratio < TIES:
        faults.append(f"'inverted' has {ratio:.2f} times the raw EPR of the oracle, not about 1")
    return faults


def _mean_log(records: Records, name: str) -> float | None:
    """Mean signed log of a measurement where it is defined; None where it never is."""
    values = [v for r in records if (v := _needed(r.measurements, name).value) is not None]
    return sum(map(signed_log, values)) / len(values) if values else None


def destroy_bound(records: Records) -> list[str]:
    """A ruined picture has drifted in quality and identity."""
    faults = []
    # Numbers of older versions have these under their former names.
    for name, formerly in (
        ("perceptual_drift", "perceptual_guard"),
        ("identity_drift", "identity_guard"),
    ):
        values = [
            m.value
            for r in _of(records, "destroy")
            if (m := r.measurements.get(formerly) or _needed(r.measurements, name)).value
            is not None
        ]
        if values and (mean := sum(values) / len(values)) <= DRIFT_THRESHOLD:
            faults.append(f"'destroy' has a {name.replace('_', ' ')} of only {mean:.2f}")
    return faults


def pixel_attack_bound(records: Records) -> list[str]:
    """An attack on one classifier wins raw EPR there, and other classifiers hardly see it."""
    own, faults = _of(records, "pixel_attack"), []
    ratio = _geometric_ratio(
        {r.concept: _needed(_at_full(r), "epr_raw") for r in own},
        {r.concept: _needed(_at_full(r), "epr_raw") for r in _of(records, "oracle")},
    )
    if ratio is not None and ratio < 1:
        faults.append(
            f"'pixel_attack' has only {ratio:.2f} times the oracle's raw EPR by the classifier "
            "that it attacks"
        )
    seen: dict[str, list[float]] = {}
    for record in own:
        at = _at_full(record)
        change = _needed(at, "signed_target_change").value
        for name in record.judges[1:]:
            other = at.get(f"signed_target_change@{name}")
            if change and change > 0 and other is not None and other.value is not None:
                seen.setdefault(name, []).append(other.value / change)
    for name, shares in seen.items():
        if (share := sum(shares) / len(shares)) > FOOLED_SHARE:
            faults.append(
                f"'{name}' sees {share:.2f} of what 'pixel_attack' does to another classifier: "
                "they are not independent"
            )
    return faults


def _of(records: Records, method: str) -> list[RunRecord]:
    return [r for r in records if r.kind == "edit" and r.method == method and r.status == "done"]


def _at_full(record: RunRecord) -> dict[str, Measurement]:
    """Measurements at strength 1: of its level, or all there is where nothing was matched."""
    full = [level.measurements for level in record.levels if level.name == FULL]
    return full[0] if full else record.measurements


def _needed(measurements: Mapping[str, Measurement], name: str) -> Measurement:
    if name not in measurements:
        raise _LackingError(name)
    return measurements[name]


def _matched(record: RunRecord) -> float | None:
    """EPR+ at the headline level; None where that was not reached."""
    measured = record.measurements.get(_EPR_PLUS)
    return None if measured is None or record.fit_seed else measured.value


def _surely(record: RunRecord) -> float | None:
    """The lower end of its interval, or the number itself where it has none."""
    value = _matched(record)
    low = None if value is None else record.measurements[_EPR_PLUS].low
    return value if low is None else low


def _geometric_ratio(
    above: dict[str | None, Measurement], below: dict[str | None, Measurement]
) -> float | None:
    """Mean ratio over the concepts in which both are positive numbers; None where there is none."""
    logs = []
    for concept, a in above.items():
        b = below.get(concept)
        if b is not None and a.value and b.value and min(a.value, b.value) > 0:
            logs.append(math.log(a.value) - math.log(b.value))
    return math.exp(sum(logs) / len(logs)) if logs else None


BOUNDS = (
    Bound("identity", "moves no attribute, and has no EPR", identity_bound),
    Bound(
        "oracle",
        f"flips {ORACLE_FLIPS:.0%} of the images, and no method has more than "
        f"{SURPASSED:g} times its EPR+",
        oracle_bound,
    ),
    Bound(
        "random_direction",
        f"no draw has {DIRECTIONS_APART:g} times the EPR of the others, and none matched "
        "to a method flips as many images as the oracle",
        random_bound,
    ),
    Bound(
        "shuffled",
        f"moves the target by at most {SHUFFLED_SHARE:.0%} of the full effect, with no "
        "EPR+ over chance",
        shuffled_bound,
    ),
    Bound("inverted", "has a negative EPR+, and the oracle's raw EPR", inverted_bound),
    Bound("destroy", "is seen as perceptual drift and as identity drift", destroy_bound),
    Bound(
        "pixel_attack",
        "wins raw EPR by the classifier it attacks, and the others see at most "
        f"{FOOLED_SHARE:.0%} of it",
        pixel_attack_bound,
    ),
)
"""All that are checked, in the order in which reports list them."""
