"""One row of a leaderboard as numbers: what markdown, LaTeX, CSV and JSON all show.

A number over concepts is there only where every concept has its own: a mean over fewer is another
quantity, and would let a method gain by failing where it is bad.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from casl_bench.metrics.epr_plus import signed_exp, signed_log
from casl_bench.report.cost_tables import edit_seconds
from casl_bench.report.grouping import RowKey, listed, mean
from casl_bench.report.leaderboard.boards import Board
from casl_bench.report.leaderboard.flags import count_flags
from casl_bench.results.record import Kind, Measurement, RunRecord, Standing

Status = Literal["ranked", "unranked", "incomplete", "control"]

EPR_PLUS = "epr_plus"
PROBE_K = 16
"""Latents of the probe that stands in the leaderboard, the papers' number; else the most there."""


@dataclass(frozen=True)
class Number:
    """A value, or why there is none.

    Attributes:
        value: None where there is none.
        low: lower end of its 95 % interval; None, with `high`, where there is no interval.
        high: upper end.
        reason: why there is no value; empty where a row of this kind never has one.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Entry:
    """One method on one board.

    Attributes:
        board: that it stands on.
        method: its name.
        status: "ranked"; "unranked" where nothing was compared; "incomplete" where cells are
            missing; "control".
        supervision: what guided its fits.
        epr_plus: the headline; of a control without an interval.
        standing: its place; None unless ranked.
        numbers: column → number.
        done: finished cells.
        expected: cells that there should be.
        flags: flag → cells that have it.
    """

    board: Board
    method: str
    status: Status
    supervision: str
    epr_plus: Number
    standing: Standing | None
    done: int
    expected: int
    numbers: Mapping[str, Number] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)

    @property
    def rank(self) -> str:
        """The ranks left open, such as `2–4`; empty without any."""
        if self.standing is None:
            return ""
        low, high = self.standing.rank_low, self.standing.rank_high
        return str(low) if low == high else f"{low}–{high}"


@dataclass(frozen=True)
class Column:
    """A number of every row: how it is called, shown and found."""

    name: str
    heading: str
    digits: int
    of: Callable[[Board, RowKey], Number]


def entries_of(board: Board) -> list[Entry]:
    """All rows: ranked ones best first, then by name the others, then the controls.

    Of a control that is drawn several times its first draw is shown; controls that stand beside an
    entrant are in the run's own tables.
    """
    keys = [k for k in board.group.edits if not k[2] and "#" not in k[1]]
    found = [_entry(board, key) for key in keys]
    standings = board.comparison.standings if board.comparison is not None else ()
    place = {standing.method: i for i, standing in enumerate(standings)}
    last: dict[Status, int] = {"ranked": 0, "unranked": 1, "incomplete": 1, "control": 2}
    return sorted(found, key=lambda e: (last[e.status], place.get(e.method, 0), e.method))


def _entry(board: Board, key: RowKey) -> Entry:
    control, method, _ = key
    records = _records(board, key)
    again = 1 + max(r.fit_seed for r in records) if control else board.fits
    skipped = sum(r.status == "skipped" for r in records)
    done = [r for r in records if r.status == "done"]
    expected = len(board.group.concepts) * again - skipped
    standing = None if control or len(done) < expected else board.standing(method)
    status: Status = "ranked"
    if control:
        status = "control"
    elif len(done) < expected:
        status = "incomplete"
    elif standing is None:
        status = "unranked"
    shown = board.group.done(key).values()
    return Entry(
        board=board,
        method=method,
        status=status,
        supervision=board.group.supervision(key),
        epr_plus=_epr_plus(board, key, status, standing),
        standing=standing,
        done=len(done),
        expected=expected,
        numbers={c.name: c.of(board, key) for c in COLUMNS},
        flags=count_flags(shown),
    )


def _records(board: Board, key: RowKey) -> list[RunRecord]:
    """A row's records, of all its fits or draws."""
    control, method, _ = key
    return [
        r
        for r in board.group.of_kind("edit")
        if (r.method, r.control, r.beside) == (method, control, None)
    ]


def _epr_plus(board: Board, key: RowKey, status: Status, standing: Standing | None) -> Number:
    if standing is not None:
        return _as_number(standing.epr_plus)
    if status == "incomplete":
        missing = [c for c in board.group.concepts if c not in board.group.done(key)]
        which = f": {listed(missing, board.group)}" if missing else ""
        return Number(reason=f"not every cell is done{which}")
    if status == "unranked":
        if board.mixed:
            return Number(reason=f"records differ in {', '.join(board.mixed)}: not comparable")
        return Number(reason="these records hold no comparison at equal effect")
    return _of_control(board, key)


def _of_control(board: Board, key: RowKey) -> Number:
    """A control's EPR+ as comparisons average it; none of what EPR+ is divided by."""
    found = [board.group.measurement(key, c, EPR_PLUS) for c in board.group.concepts]
    values = [m.value for m in found if m is not None and m.value is not None]
    if not values or len(values) < len(found):
        return Number()
    return Number(signed_exp(mean([signed_log(v) for v in values])))


def _as_number(measurement: Measurement) -> Number:
    return Number(measurement.value, measurement.low, measurement.high, measurement.reason or "")


def _measurement(name: str) -> Callable[[Board, RowKey], Number]:
    """Mean over concepts of a measurement at the headline's strength."""

    def of(board: Board, key: RowKey) -> Number:
        group = board.group
        found = {c: group.measurement(key, c, name) for c in group.concepts}
        values = [m.value for m in found.values() if m is not None and m.value is not None]
        if values and len(values) == len(found):
            return Number(mean(values))
        there = [m for m in found.values() if m is not None and m.status != "missing"]
        if not there:
            return Number()  # a row of this kind has no such number
        without = [c for c, m in found.items() if m is None or m.value is None]
        # What comes after a reason's colon are figures that differ between concepts.
        why = sorted({m.reason.split(":")[0] for m in there if m.reason})
        reasons = f": {'; '.join(why)}" if why else ""
        return Number(reason=f"no number for {listed(without, group)}{reasons}")

    return of


def _counted(
    of_record: Callable[[RunRecord], float | None], fold: Callable[[list[float]], float]
) -> Callable[[Board, RowKey], Number]:
    """One number of all concepts' counts."""

    def of(board: Board, key: RowKey) -> Number:
        found = board.group.values(key, of_record)
        values = [v for v in found.values() if v is not None]
        if values and len(values) == len(found):
            return Number(fold(values))
        without = listed((c for c, v in found.items() if v is None), board.group)
        return Number(reason=f"no number for {without}")

    return of


def probe_k(board: Board) -> int | None:
    """Latents of the probe that is shown; None where there is no probe."""
    names = {n for r in board.group.of_kind("probe") for n in r.measurements}
    ks = sorted(int(n.split(".k")[1]) for n in names if n.startswith("top_units.k")
                and n.count(".") == 1)  # fmt: skip
    return PROBE_K if PROBE_K in ks else ks[-1] if ks else None


def _probe(board: Board, key: RowKey) -> Number:
    """Mean accuracy of the probe on a method's best aligned latents."""
    control, method, _ = key
    own = [r for r in board.group.of_kind("probe") if r.method == method and not control]
    k = probe_k(board)
    if not own or k is None:
        return Number()
    found = {board.group.concept_of(r): r.measurements.get(f"top_units.k{k}") for r in own}
    values = [m.value for m in found.values() if m is not None and m.value is not None]
    missing = [c for c in board.group.concepts if (m := found.get(c)) is None or m.value is None]
    if missing:
        return Number(reason=f"no number for {listed(missing, board.group)}")
    return Number(mean(values))


def _reconstruction(board: Board, key: RowKey) -> Number:
    """PSNR of images given back without an edit: what all methods share."""
    return _over_parts(board, "reconstruction", "psnr")


def _through_sae(board: Board, key: RowKey) -> Number:
    """The same with h taken through the SAE, of methods that steer in it."""
    if not any("sae" in r.artefacts for r in board.group.done(key).values()):
        return Number()
    return _over_parts(board, "sae", "sae.psnr")


def _over_parts(board: Board, kind: Kind, name: str) -> Number:
    """Mean over the board's data sets."""
    values, without = [], []
    for part in board.parts:
        own = [m for r in part.of_kind(kind) if (m := r.measurements.get(name)) is not None]
        known = [m.value for m in own if m.value is not None]
        if len(known) == 1:
            values += known
        else:
            without.append(part.records[0].dataset)
    if without:
        return Number(reason=f"no number for {', '.join(without)}")
    return Number(mean(values))


COLUMNS: Sequence[Column] = (
    Column("over_random", "÷ random ↑", 2, _measurement("epr_over_random")),
    Column("success", "success ↑", 2, _measurement("flip_rate")),
    Column("perceptual", "perceptual ↓", 3, _measurement("perceptual")),
    Column("identity", "identity ↑", 3, _measurement("identity")),
    Column("probe", "probe ↑", 2, _probe),
    Column("reconstruction", "reconstruction (dB) ↑", 1, _reconstruction),
    Column("through_sae", "through SAE (dB) ↑", 1, _through_sae),
    Column("parameters", "parameters", 0, _counted(lambda r: r.cost.parameters, max)),
    Column("fit_calls", "U-Net calls, fit", 0, _counted(lambda r: r.cost.unet_calls, mean)),
    Column("edit_calls", "U-Net calls, edit", 1, _counted(lambda r: r.cost.edit_unet_calls, mean)),
    Column("edit_seconds", "edit (s)", 3, _counted(edit_seconds, mean)),
)
