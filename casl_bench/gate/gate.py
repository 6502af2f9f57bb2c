"""The statistical tier: base and head → a verdict for every (data set, method) of the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from casl_bench.core.content_hash import hash_json
from casl_bench.gate.calibration import Calibration
from casl_bench.gate.comparable import why_not_comparable
from casl_bench.gate.decide import decide
from casl_bench.gate.gate_report import CellVerdict
from casl_bench.gate.measure import Measured, measure
from casl_bench.gate.method_board import method_board
from casl_bench.gate.run_side import CellName, Fits, RunSide
from casl_bench.gate.verdict import ALPHA, Verdict
from casl_bench.gate.yardstick import check_yardstick
from casl_bench.records.record import RunRecord


@dataclass(frozen=True)
class Scope:
    """What is gated.

    Attributes:
        datasets: names; None for all of the base.
        methods: names; None for all of the base.
        concepts: names; None for all of the base.
        stochastic: methods whose fit draws random numbers, besides those whose fits show it.
    """

    datasets: frozenset[str] | None = None
    methods: frozenset[str] | None = None
    concepts: frozenset[str] | None = None
    stochastic: frozenset[str] = field(default_factory=frozenset)

    def holds(self, record: RunRecord) -> bool:
        """Whether a record is within it."""
        return all(
            names is None or name in names
            for names, name in (
                (self.datasets, record.dataset),
                (self.methods, record.method),
                (self.concepts, record.concept),
            )
        )


@dataclass(frozen=True)
class _Pair:
    """The finished cells of one method that both sides have.

    Attributes:
        base: concept → fits.
        head: likewise.
        fits: seeds that every one of them has.
    """

    base: Mapping[str, Fits]
    head: Mapping[str, Fits]
    fits: tuple[int, ...]


def gate(
    base: RunSide,
    head: RunSide,
    scope: Scope,
    calibration: Calibration | None = None,
    alpha: float = ALPHA,
) -> list[CellVerdict]:
    """Verdicts in the order of the base's cells, then what only the head has.

    Args:
        base: what was accepted.
        head: what is asked about.
        scope: what is gated.
        calibration: of the base's noise; a cell in which no loss could be seen is not gated.
        alpha: see `decide`.

    Raises:
        InvalidBenchmarkError: if the benchmark itself changed between the two.
    """
    check_yardstick(base, head, scope.datasets)
    closed: list[CellVerdict] = []
    measured: dict[CellName, Measured] = {}
    sizes: dict[CellName, tuple[int, int]] = {}
    for name, cells in base.edits.items():
        wanted = _within(cells, scope)
        if not wanted:
            continue
        found = _pair(wanted, head.edits.get(name, {}))
        if isinstance(found, _Pair):
            found = _blind(name, found, calibration) or found
        if isinstance(found, _Pair):
            boards = (
                method_board(base, found.base, found.fits),
                method_board(head, found.head, found.fits),
            )
            if boards[0].board.images != boards[1].board.images:
                found = Verdict.NOT_COMPARABLE, "the test images are not the same"
            else:
                measured[name] = measure(*boards, _seed(found), name[1] in scope.stochastic)
                sizes[name] = len(found.base), len(found.fits)
                continue
        verdict, reason = found
        closed.append(CellVerdict(dataset=name[0], method=name[1], verdict=verdict, reason=reason))
    order = {name: place for place, name in enumerate(base.edits)}
    known = sorted(
        [*closed, *decide(measured, sizes, alpha)], key=lambda c: order[c.dataset, c.method]
    )
    return [*known, *_new(base, head, scope)]


def _within(cells: Mapping[str, Fits], scope: Scope) -> dict[str, Fits]:
    """Concepts of a method that are gated and that the base has finished, with those fits."""
    kept: dict[str, Fits] = {}
    for concept, fits in cells.items():
        done = {k: r for k, r in sorted(fits.items()) if r.status == "done" and scope.holds(r)}
        if done:
            kept[concept] = done
    return kept


def _pair(base: Mapping[str, Fits], head: Mapping[str, Fits]) -> _Pair | tuple[Verdict, str]:
    """The cells to compare, or why they cannot be."""
    seeds = {seed for fits in head.values() for seed in fits} | {0}
    missing, failed = [], []
    for concept, fits in base.items():
        own = head.get(concept, {})
        missing += [_named(concept, k) for k in fits if k in seeds and k not in own]
        failed += [_named(concept, k) for k in fits if k in own and own[k].status != "done"]
    if failed:
        return Verdict.FAIL, f"no longer runs on {', '.join(failed)}"
    if missing:
        return Verdict.FAIL, f"missing: {', '.join(missing)}"
    common = set.intersection(*(set(fits) & set(head[c]) for c, fits in base.items()))
    if not common:
        return Verdict.NOT_COMPARABLE, "no fit seed is common to all concepts of both"
    for concept, fits in base.items():
        for seed in sorted(common):
            reason = why_not_comparable(fits[seed], head[concept][seed])
            if reason is None and not (fits[seed].levels and head[concept][seed].levels):
                reason = "not matched in its effect: made by an older version"
            if reason is not None:
                return Verdict.NOT_COMPARABLE, reason
    return _Pair(base, {c: head[c] for c in base}, tuple(sorted(common)))


def _named(concept: str, fit: int) -> str:
    return f"{concept} #{fit}" if fit else concept


def _blind(
    name: CellName, pair: _Pair, calibration: Calibration | None
) -> tuple[Verdict, str] | None:
    """The verdict on a cell whose noise hides what the gate is for."""
    if calibration is None:
        return None
    reason = calibration.why_blind(name, len(pair.fits))
    return None if reason is None else (Verdict.INCONCLUSIVE, f"not gated: {reason}")


def _seed(pair: _Pair) -> int:
    """Of the resamples: the same two sets of records always get the same verdict."""
    ids = [r[k].record_id for side in (pair.base, pair.head) for r in side.values()
           for k in pair.fits]  # fmt: skip
    return int(hash_json(ids)[:15], 16)


def _new(base: RunSide, head: RunSide, scope: Scope) -> list[CellVerdict]:
    found = []
    for name, cells in head.edits.items():
        if name in base.edits or not _within(cells, scope):
            continue
        found.append(
            CellVerdict(
                dataset=name[0],
                method=name[1],
                verdict=Verdict.NEW,
                reason="not in the base",
                head=precision_of(head, name, scope),
            )
        )
    return found


def precision_of(side: RunSide, name: CellName, scope: Scope) -> float | None:
    """EPR+ of a method over its finished concepts; None where there is none.

    Args:
        side: the run.
        name: of the cell.
        scope: what counts.
    """
    cells = _within(side.edits[name], scope)
    matched = {c: own for c, fits in cells.items()
               if (own := {k: r for k, r in fits.items() if r.levels})}  # fmt: skip
    common = sorted(set.intersection(*map(set, matched.values()))) if matched else []
    return method_board(side, matched, common).mean() if common else None
