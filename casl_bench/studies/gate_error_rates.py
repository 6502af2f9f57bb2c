"""How often the gate errs: measured on runs resampled from a run's stored per-image scores.

Rates are of whole gate runs, with Holm's adjustment over all their cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from casl_bench.analysis.comparison import ConceptScores, Edits, ScoreMatrix
from casl_bench.core.errors import UsageError
from casl_bench.gate.gate import decide
from casl_bench.gate.log_ratio import measure, would_fail
from casl_bench.gate.run_side import CellName, FitScoreMatrix, read_side
from casl_bench.gate.verdict import ALPHA_OF_TWO_LOOKS, MIN_FITS, CellVerdict, Verdict
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr_plus import gain_column
from casl_bench.report.markdown import number, table

Matrices = Mapping[CellName, FitScoreMatrix]


def stored_fits(run: Path, methods: frozenset[str] | None = None) -> dict[CellName, FitScoreMatrix]:
    """Every method of a run, or of those named, with all fits that its concepts have in common.

    Raises UsageError where none has two fits.
    """
    side = read_side(run)
    found = {}
    for name, concepts in side.edits.items():
        common = sorted(set.intersection(*map(set, concepts.values())))
        done = all(r.status == "done" for fits in concepts.values() for r in fits.values())
        if len(common) >= 2 and done and (methods is None or name[1] in methods):
            found[name] = FitScoreMatrix.read(side, concepts, common)
    if not found:
        raise UsageError("no method has two fits", where=str(run),
                         hint=f"run it with --fit-seeds {MIN_FITS}")  # fmt: skip
    return found


# Simulated faults: what a change of code may do to the edits of a fit.

LARGEST = 3.0
"""Strength beyond which a matched edit counts as not reached: the end of the suites' grid."""


@dataclass(frozen=True)
class ResampledFit:
    """One fit on one concept, as a run would have recorded it.

    The scores are None where the effect was not reached, the right way.
    """

    scores: EditScores | None
    reached: bool
    strength: float


SimulatedFault = Callable[[ResampledFit], ResampledFit]


def loss(share: float) -> SimulatedFault:
    """The target moves less for the same damage: EPR+ falls by this share."""

    def fault(fit: ResampledFit) -> ResampledFit:
        if fit.scores is None:
            return fit
        change = fit.scores.edit - fit.scores.base
        change[:, fit.scores.target] *= 1 - share
        return replace(fit, scores=replace(fit.scores, edit=fit.scores.base + change))

    return fault


def _rematched(factor: float, roll: int = 0) -> SimulatedFault:
    """Scale the response to strength, shift it between attributes, and match the effect anew."""

    def fault(fit: ResampledFit) -> ResampledFit:
        scores = fit.scores
        if scores is None:
            return fit
        change = np.roll((scores.edit - scores.base) / scores.spread * factor, roll, axis=1)
        goal = float(gain_column(scores).mean())
        now = float(gain_column(replace(scores, edit=scores.base + change * scores.spread)).mean())
        scale = abs(goal / now) if now else math.inf
        if fit.strength * scale > LARGEST:
            return ResampledFit(None, False, math.nan)
        edited = replace(scores, edit=scores.base + scale * change * scores.spread)
        return ResampledFit(edited, fit.reached and now * goal > 0, fit.strength * scale)

    return fault


BROKEN: Mapping[str, SimulatedFault] = {
    "wrong sign": _rematched(-1.0),
    "half strength": _rematched(0.5),
    "shuffled decoder": _rematched(1.0, roll=1),
}
"""The last one moves the target's neighbour in the list of attributes instead of the target."""


# Resampling of runs: images are common to both sides, fits are each side's own.


def resample_images(matrix: FitScoreMatrix, rng: np.random.Generator) -> dict[str, int]:
    """Image id → how often it is sampled, as many in all as there are."""
    names = [image for _, image in matrix.matrix.images]
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
    return dict(zip(names, map(int, counts), strict=True))


def resample_fits(
    matrix: FitScoreMatrix, fits: int, rng: np.random.Generator, shared: float = 0.0
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places [fits, C] of stored fits, for base and head, with replacement.

    `shared` is the probability that the head has the base's fit, not one of its own.
    """
    stored, concepts = matrix.reached.shape
    base, head = rng.integers(stored, size=(2, fits, concepts))
    return base, np.where(rng.random(base.shape) < shared, base, head)


def resampled_side(
    matrix: FitScoreMatrix,
    images: Mapping[str, int],
    fits: NDArray[np.intp],
    fault: SimulatedFault | None = None,
) -> FitScoreMatrix:
    """One side of a run that could have been, of the same resampled images as the other side.

    `fits` are places [F, C] from `resample_fits`; the fault is what the side's code does to each.
    """
    concepts, reached, strengths = [], [], []
    for c, concept in enumerate(matrix.matrix.concepts):
        stored = list(concept.methods.values())
        index, ids = _copies(stored[0].image_ids, images)
        of_null, null_ids = _copies(concept.null_image_ids, images)
        primary = next(iter(concept.null))
        own: list[ResampledFit] = []
        for f in fits[:, c]:
            scores = stored[f].scores.get(primary)
            taken = None if scores is None else scores.take(index)
            reach, strength = bool(matrix.reached[f, c]), float(matrix.strengths[f, c])
            fit = ResampledFit(taken, reach, strength)
            own.append(fault(fit) if fault else fit)
        edits = {
            str(place): Edits(ids, {} if fit.scores is None else {primary: fit.scores})
            for place, fit in enumerate(own)
        }
        null = {primary: [random.take(of_null) for random in concept.null[primary]]}
        concepts.append(ConceptScores(concept.key, concept.attributes, edits, null, null_ids))
        reached.append([fit.reached for fit in own])
        strengths.append([fit.strength if fit.reached else math.nan for fit in own])
    return FitScoreMatrix(ScoreMatrix(concepts), np.array(reached).T, np.array(strengths).T)


def _copies(names: Sequence[str], images: Mapping[str, int]) -> tuple[list[int], tuple[str, ...]]:
    """Rows of images as often as they were sampled; copies of an image are images of their own."""
    index = [i for i, name in enumerate(names) for _ in range(images[name])]
    return index, tuple(f"{name}~{copy}" for name in names for copy in range(images[name]))


# Rates: resampled runs are gated, and verdicts counted.

_Sides = tuple[FitScoreMatrix, FitScoreMatrix]

PLANTED = 0.1
"""Share of EPR+ that the simulated loss takes."""

BROKEN_RUNS = 20
"""Runs of each broken method, per cell."""


@dataclass(frozen=True)
class Rates:
    """Counts of resampled gate runs.

    Attributes:
        runs: A/A runs, and runs with a loss per cell.
        false_alarms: A/A runs with any FAIL, looking once.
        false_alarms_of_two: the same, looking once more where the first look is inconclusive.
        caught: cell → runs with a simulated loss in it that fail there, looking once.
        caught_of_two: the same, looking once more.
        broken: name of the fault → runs in which it was caught, of `BROKEN_RUNS` per cell.
    """

    runs: int
    false_alarms: int
    false_alarms_of_two: int
    caught: Mapping[CellName, int]
    caught_of_two: Mapping[CellName, int]
    broken: Mapping[str, int]


def measure_rates(stored: Matrices, runs: int, seed: int, shared: float = 0.0) -> Rates:
    """Resample runs, gate them, count: A/A runs, and as many with a loss in each cell.

    A run has `MIN_FITS` paired fits, twice as many once extended; for `shared` see `resample_fits`.
    """
    rng = np.random.default_rng(seed)

    def looks(faults: Mapping[CellName, SimulatedFault]) -> tuple[set[CellName], set[CellName]]:
        return _looks(stored, faults, rng, shared)

    unchanged = [looks({}) for _ in range(runs)]
    lossy = {name: [looks({name: loss(PLANTED)}) for _ in range(runs)] for name in stored}
    return Rates(
        runs=runs,
        false_alarms=sum(bool(once) for once, _ in unchanged),
        false_alarms_of_two=sum(bool(twice) for _, twice in unchanged),
        caught={name: sum(name in once for once, _ in own) for name, own in lossy.items()},
        caught_of_two={name: sum(name in twice for _, twice in own) for name, own in lossy.items()},
        broken={
            what: sum(
                name in looks({name: fault})[0] for name in stored for _ in range(BROKEN_RUNS)
            )
            for what, fault in BROKEN.items()
        },
    )


def _looks(
    stored: Matrices,
    faults: Mapping[CellName, SimulatedFault],
    rng: np.random.Generator,
    shared: float,
) -> tuple[set[CellName], set[CellName]]:
    """The cells that fail in a gate run that looks once, and in one that may look twice."""
    seed = int(rng.integers(2**62))
    images: dict[str, dict[str, int]] = {}
    for name, matrix in stored.items():
        images.setdefault(name[0], resample_images(matrix, np.random.default_rng(seed)))

    def resample() -> dict[CellName, _Sides]:
        pairs = {}
        for name, matrix in stored.items():
            base, head = resample_fits(matrix, MIN_FITS, rng, shared)
            pairs[name] = (
                resampled_side(matrix, images[name[0]], base),
                resampled_side(matrix, images[name[0]], head, faults.get(name)),
            )
        return pairs

    pairs = resample()
    measured = {name: measure(*sides, seed, stochastic=True) for name, sides in pairs.items()}
    once, first = decide(measured), decide(measured, ALPHA_OF_TWO_LOOKS)
    if not any(c.verdict == Verdict.INCONCLUSIVE for c in first):
        return _failed(once), _failed(first)
    more = resample()
    measured = {
        name: measure(base.joined(more[name][0]), head.joined(more[name][1]), seed, stochastic=True)
        for name, (base, head) in pairs.items()
    }
    return _failed(once), _failed(first) | _failed(decide(measured, ALPHA_OF_TWO_LOOKS))


def _failed(cells: list[CellVerdict]) -> set[CellName]:
    return {(c.dataset, c.method) for c in cells if c.verdict == Verdict.FAIL}


def rates_markdown(rates: Rates) -> str:
    """The rates as a table."""
    total = BROKEN_RUNS * len(rates.caught)
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


# What a real change of code did to fits of the same seeds, and how often the gate shows it.

_NORMAL_RUNS = 20_000
"""Runs of normal log ratios: a rate of one half has a standard error of 0.4 %."""


@dataclass(frozen=True)
class PairedLoss:
    """Change of precision between fits of the same seeds, as log ratios of head over base.

    The mean is over concepts and pairs, the sd that of the mean over concepts, between pairs; power
    is the share of runs with other seeds that would fail, were their log ratios normal.
    """

    log_ratio: float
    sd: float
    pairs: int
    power: float


def paired_loss(base: FitScoreMatrix, head: FitScoreMatrix, seed: int) -> PairedLoss:
    """The measured change, and how often new fits with such a change would show it.

    A run resampled from few stored fits holds copies and so varies less than a run of new ones;
    normal log ratios of the measured mean and standard deviation do not.
    """
    changes = (head.precision - base.precision).mean(1)
    mean, sd = float(changes.mean()), float(changes.std(ddof=1))
    runs = np.random.default_rng(seed).normal(mean, sd, (_NORMAL_RUNS, MIN_FITS))
    return PairedLoss(mean, sd, len(changes), float(would_fail(runs).mean()))


def caught_against(
    base: Matrices, head: Matrices, runs: int, seed: int, shared: float = 0.0
) -> dict[CellName, int]:
    """Runs resampled from two real runs, on the same images: how many fail, each cell by itself.

    Raises UsageError where a cell has other concepts, or other fits, on the two sides.
    """
    rng = np.random.default_rng(seed)
    caught = {}
    for name in (name for name in base if name in head):
        was, now = base[name], head[name]
        for what, of in (("concepts", lambda m: m.concepts), ("fits", lambda m: m.matrix.methods)):
            if of(was) != of(now):
                raise UsageError(
                    f"the runs have other {what} of {name[0]}/{name[1]}",
                    where=f"{', '.join(of(was))} against {', '.join(of(now))}",
                    hint="run both on the same concepts with the same --fit-seeds",
                )
        caught[name] = 0
        for _ in range(runs):
            images = resample_images(was, rng)
            places = resample_fits(was, MIN_FITS, rng, shared)
            sides = (
                resampled_side(was, images, places[0]), resampled_side(now, images, places[1])
            )  # fmt: skip
            found = decide({name: measure(*sides, seed, stochastic=True)})
            caught[name] += name in _failed(found)
    return caught


def against_text(base: Matrices, head: Matrices, runs: int, seed: int, shared: float) -> str:
    """One line per cell: how often the gate fails the head, and how much its fits lost."""
    lines = []
    for name, count in caught_against(base, head, runs, seed, shared=shared).items():
        found = paired_loss(base[name], head[name], seed)
        lines.append(
            f"{name[0]}/{name[1]}: {count} of {runs} runs fail; "
            f"EPR+ changed by {100 * math.expm1(found.log_ratio):+.1f} % "
            f"(sd of the logarithm {found.sd:.3f}, {found.pairs} pairs of fits), which "
            f"{100 * found.power:.1f} % of runs with other such pairs would fail for\n"
        )
    return "".join(lines)
