"""How often the gate errs: measured on runs drawn from a run's stored per-image scores.

Rates are of whole gate runs, with Holm's adjustment over all their cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from casl_bench.core.errors import UsageError
from casl_bench.gate.decide import decide
from casl_bench.gate.gate_report import CellVerdict
from casl_bench.gate.measure import Measured, measure
from casl_bench.gate.method_board import MethodBoard, method_board
from casl_bench.gate.paired_loss import check_pairs
from casl_bench.gate.redraw import (
    BROKEN,
    Plant,
    draw_board,
    draw_fits,
    draw_images,
    loss,
    nothing,
)
from casl_bench.gate.run_side import CellName, RunSide
from casl_bench.gate.verdict import ALPHA_OF_TWO_LOOKS, MIN_FITS, Verdict
from casl_bench.reports.markdown import number, table

PLANTED = 0.1
"""Share of EPR+ that the planted loss takes."""

_Sides = tuple[MethodBoard, MethodBoard]

BROKEN_RUNS = 20
"""Runs of each broken method, for each cell."""


@dataclass(frozen=True)
class Rates:
    """What was counted.

    Attributes:
        runs: A/A runs, and runs with a loss for each cell.
        false_alarms: A/A runs with any FAIL, looking once.
        false_alarms_of_two: the same, looking once more where the first look is inconclusive.
        caught: cell → runs with a planted loss in it that fail there, looking once.
        caught_of_two: the same, looking once more.
        broken: name of the fault → runs in which it was caught, of `BROKEN_RUNS` a cell.
        cells: how many were gated together.
    """

    runs: int
    false_alarms: int
    false_alarms_of_two: int
    caught: Mapping[CellName, int]
    caught_of_two: Mapping[CellName, int]
    broken: Mapping[str, int]
    cells: int


def stored_boards(side: RunSide) -> dict[CellName, MethodBoard]:
    """Every method of a run with all fits that its concepts have in common.

    Raises:
        UsageError: if none has two fits.
    """
    boards = {}
    for name, concepts in side.edits.items():
        common = sorted(set.intersection(*map(set, concepts.values())))
        done = all(r.status == "done" for fits in concepts.values() for r in fits.values())
        if len(common) >= 2 and done:
            boards[name] = method_board(side, concepts, common)
    if not boards:
        raise UsageError("no method has two fits", where=str(side.where),
                         mend=f"run it with --fit-seeds {MIN_FITS}")  # fmt: skip
    return boards


def measure_rates(
    boards: Mapping[CellName, MethodBoard],
    runs: int,
    seed: int,
    fits: int = MIN_FITS,
    shared: float = 0.0,
) -> Rates:
    """Draw runs, gate them, count.

    Args:
        boards: stored fits of every cell.
        runs: A/A runs, and runs with a loss for each cell.
        seed: of what is drawn.
        fits: paired fits of a run; twice as many once extended.
        shared: see `draw_fits`.
    """
    rng = np.random.default_rng(seed)
    looks = [_looks(boards, {}, fits, rng, shared) for _ in range(runs)]
    caught, later = {}, {}
    for name in boards:
        found = [_looks(boards, {name: loss(PLANTED)}, fits, rng, shared) for _ in range(runs)]
        caught[name] = sum(name in first for first, _ in found)
        later[name] = sum(name in both for _, both in found)
    broken = {
        fault: sum(
            name in _looks(boards, {name: plant}, fits, rng, shared)[0]
            for name in boards
            for _ in range(BROKEN_RUNS)
        )
        for fault, plant in BROKEN.items()
    }
    return Rates(
        runs=runs,
        false_alarms=sum(bool(first) for first, _ in looks),
        false_alarms_of_two=sum(bool(both) for _, both in looks),
        caught=caught,
        caught_of_two=later,
        broken=broken,
        cells=len(boards),
    )


def caught_against(
    base: Mapping[CellName, MethodBoard],
    head: Mapping[CellName, MethodBoard],
    runs: int,
    seed: int,
    fits: int = MIN_FITS,
    shared: float = 0.0,
) -> dict[CellName, int]:
    """Runs drawn from two real runs, head against base: how many fail, a cell by itself.

    Args:
        base: stored fits of each cell.
        head: those of other code, on the same images.
        runs: to draw, for each cell.
        seed: of what is drawn.
        fits: paired fits of a run.
        shared: probability that the head has the fit of the base's seed; see `draw_fits`.

    Raises:
        UsageError: if a cell has other concepts, or other fits, on the two sides.
    """
    rng = np.random.default_rng(seed)
    caught = {}
    for name in (name for name in base if name in head):
        check_pairs(name, base[name], head[name])
        failed = 0
        for _ in range(runs):
            images = draw_images(base[name], rng)
            places = draw_fits(base[name], fits, rng, shared)
            sides = (
                draw_board(base[name], images, places[0]),
                draw_board(head[name], images, places[1]),
            )
            failed += name in _failed(decide(*_measured({name: sides}, seed)))
        caught[name] = failed
    return caught


def _looks(
    boards: Mapping[CellName, MethodBoard],
    plants: Mapping[CellName, Plant],
    fits: int,
    rng: np.random.Generator,
    shared: float,
) -> tuple[set[CellName], set[CellName]]:
    """The cells that fail in a gate run that looks once, and in one that may look twice."""
    seed = int(rng.integers(2**62))
    images: dict[str, dict[str, int]] = {}
    for name, board in boards.items():
        images.setdefault(name[0], draw_images(board, np.random.default_rng(seed)))

    def draw() -> dict[CellName, _Sides]:
        drawn = {}
        for name, board in boards.items():
            places = draw_fits(board, fits, rng, shared)
            drawn[name] = (
                draw_board(board, images[name[0]], places[0]),
                draw_board(board, images[name[0]], places[1], plants.get(name, nothing)),
            )
        return drawn

    pairs = draw()
    measured = _measured(pairs, seed)
    single, first = decide(*measured), decide(*measured, ALPHA_OF_TWO_LOOKS)
    if not any(c.verdict == Verdict.INCONCLUSIVE for c in first):
        return _failed(single), _failed(first)
    more = draw()
    extended = {
        name: (base.joined(more[name][0]), head.joined(more[name][1]))
        for name, (base, head) in pairs.items()
    }
    second = decide(*_measured(extended, seed), ALPHA_OF_TWO_LOOKS)
    return _failed(single), _failed(first) | _failed(second)


def _measured(
    pairs: Mapping[CellName, _Sides], seed: int
) -> tuple[dict[CellName, Measured], dict[CellName, tuple[int, int]]]:
    """What `decide` is told: measurements, and how many concepts and fits are behind them."""
    measured, sizes = {}, {}
    for name, sides in pairs.items():
        measured[name] = measure(*sides, seed, declared=True)
        fits, concepts = sides[0].reached.shape
        sizes[name] = concepts, fits
    return measured, sizes


def _failed(cells: list[CellVerdict]) -> set[CellName]:
    return {(c.dataset, c.method) for c in cells if c.verdict == Verdict.FAIL}


def rates_markdown(rates: Rates) -> str:
    """The rates as a page shows them.

    Args:
        rates: as counted.
    """
    total = BROKEN_RUNS * rates.cells
    rows = [
        ("false alarms, a run that looks once", _share(rates.false_alarms, rates.runs)),
        ("false alarms, one that may look twice", _share(rates.false_alarms_of_two, rates.runs)),
    ]
    for name in rates.caught:
        label = f"a 10 % loss in {name[0]}/{name[1]}"
        rows.append((f"{label} seen, looking once", _share(rates.caught[name], rates.runs)))
        rows.append((f"{label} seen, or twice", _share(rates.caught_of_two[name], rates.runs)))
    rows += [(f"{fault} caught", _share(n, total)) for fault, n in rates.broken.items()]
    return table(("what", "runs"), rows) + "\n"


def _share(count: int, of: int) -> str:
    return f"{count:,} of {of:,} ({number(100 * count / of, 1)} %)"
