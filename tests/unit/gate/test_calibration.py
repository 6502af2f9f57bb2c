"""A/A runs tell the noise that was put in, and a cell that hides a loss is not gated."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from casl_bench.core.errors import UsageError
from casl_bench.gate.gate import Scope, StoredFits, calibrate, gate, p_worse
from casl_bench.gate.log_ratio import RunSide, measure
from casl_bench.gate.verdict import Verdict
from casl_bench.studies.gate_error_rates import (
    caught_against,
    draw_board,
    draw_fits,
    draw_images,
    measure_rates,
    paired_loss,
    rates_markdown,
    stored_boards,
)
from tests.support.scored_run import MadeUpMethod

MakeSide = Callable[..., RunSide]
METHODS = {
    "quiet": MadeUpMethod(fit_sd=0.03),
    "loud": MadeUpMethod(fit_sd=0.4),
    "fixed": MadeUpMethod(),
}
LOUD = ("made_up", "loud")
QUIET = ("made_up", "quiet")
FIXED = ("made_up", "fixed")


def test_only_cells_that_show_a_loss_are_gated(make_side: MakeSide) -> None:
    side = make_side("base", METHODS, fits=5)
    found = calibrate(side, runs=200)
    assert found.cells[FIXED].sd < 1e-9 and found.cells[FIXED].power == 1
    assert found.cells[QUIET].power > 0.8 and found.cells[LOUD].power < 0.4
    verdicts = {c.method: c for c in gate(side, side, Scope(), found)}
    assert verdicts["quiet"].verdict == verdicts["fixed"].verdict == Verdict.PASS
    assert verdicts["loud"].verdict == Verdict.INCONCLUSIVE
    assert "not gated: A/A: a 10 % loss would be seen in" in verdicts["loud"].reason
    assert found.why_blind(QUIET, 4) is not None


def test_a_single_fit_shows_no_noise(make_side: MakeSide) -> None:
    side = make_side("base", {"quiet": METHODS["quiet"]})
    (found,) = gate(side, side, Scope(), calibrate(side, runs=20))
    assert "the noise of a single fit is not known" in found.reason


def test_drawn_runs_vary_as_fits_do() -> None:
    rng = np.random.default_rng(0)
    fits = 3.0 + 0.1 * rng.standard_normal((1, 5, 200))
    stored = StoredFits(np.repeat(fits, 300, axis=0))
    ratios = stored.log_ratios(np.random.default_rng(1), 5)
    assert ratios.mean() == pytest.approx(0, abs=0.005)
    # Five fits of 200 concepts: their pooled sd is 0.1, and two sides differ by sqrt(2) of it.
    assert ratios.std() == pytest.approx(0.1 * 2**0.5, rel=0.05)


def test_p_values_are_those_of_the_gate(make_side: MakeSide) -> None:
    base = make_side("base", {"quiet": METHODS["quiet"]}, fits=5)
    head = make_side("head", {"quiet": MadeUpMethod(damage=0.21, fit_sd=0.03, luck=1)}, fits=5)
    boards = [stored_boards(side)[QUIET] for side in (base, head)]
    precision = measure(*boards, seed=0).precision
    thetas = (boards[1].whole_precision - boards[0].whole_precision).mean(1)
    assert precision is not None
    assert p_worse(thetas[None])[0] == pytest.approx(precision.worse)


def test_a_drawn_side_holds_the_images_drawn(make_side: MakeSide) -> None:
    board = stored_boards(make_side("base", {"quiet": METHODS["quiet"]}, fits=5))[QUIET]
    rng = np.random.default_rng(0)
    images = draw_images(board, rng)
    assert sum(images.values()) == 32 and max(images.values()) > 1
    places = draw_fits(board, 7, rng)
    drawn, other = (draw_board(board, images, side) for side in places)
    assert drawn.reached.shape == (7, 2) and drawn.images == 32
    assert drawn.joined(other).whole_precision.shape == (14, 2)
    assert (places[0] != places[1]).any()
    same = draw_fits(board, 7, rng, shared=1.0)
    assert (same[0] == same[1]).all()


def test_broken_methods_are_caught_and_nothing_else(make_side: MakeSide) -> None:
    methods = {"quiet": METHODS["quiet"]}
    boards = stored_boards(make_side("base", methods, fits=5, concepts=("hat",), images=16))
    rates = measure_rates(boards, runs=20, seed=0)
    assert rates.broken == {"wrong sign": 20, "half strength": 20, "shuffled decoder": 20}
    assert rates.false_alarms <= 2 and rates.caught[QUIET] >= 15
    assert "| wrong sign caught" in rates_markdown(rates)


def test_a_run_of_other_code_fails_as_often_as_it_is_worse(make_side: MakeSide) -> None:
    heads = {"base": METHODS["quiet"], "worse": MadeUpMethod(damage=0.3, fit_sd=0.03, luck=1)}
    boards = {n: stored_boards(make_side(n, {"quiet": m}, fits=5)) for n, m in heads.items()}
    assert caught_against(boards["base"], boards["worse"], 20, seed=0) == {QUIET: 20}
    assert caught_against(boards["base"], boards["base"], 20, seed=0)[QUIET] <= 4


def test_a_loss_shows_in_pairs_where_fits_differ_by_more(make_side: MakeSide) -> None:
    heads = {"base": METHODS["loud"], "worse": MadeUpMethod(damage=0.22, fit_sd=0.4)}
    boards = {n: stored_boards(make_side(n, {"loud": m}, fits=5)) for n, m in heads.items()}
    apart, paired = (
        caught_against(boards["base"], boards["worse"], 20, seed=0, shared=shared)[LOUD]
        for shared in (0.0, 1.0)
    )
    assert apart <= 5 and paired >= 18


def test_what_pairs_lost_is_measured_with_its_power(make_side: MakeSide) -> None:
    heads = {
        "base": MadeUpMethod(),
        "worse": MadeUpMethod(damage=0.22),
        "varies": MadeUpMethod(damage=0.22, fit_sd=0.4),
    }
    boards = {n: stored_boards(make_side(n, {"quiet": m}, fits=5))[QUIET] for n, m in heads.items()}
    sure = paired_loss(boards["base"], boards["worse"], seed=0)
    assert sure.log_ratio == pytest.approx(math.log(0.2 / 0.22), abs=0.01)
    assert sure.sd < 1e-9 and sure.power == 1
    varies = paired_loss(boards["base"], boards["varies"], seed=0)
    assert varies.sd > 0.1 and varies.pairs == 5 and varies.power < 0.6


def test_pairs_are_of_the_same_concepts_and_seeds(make_side: MakeSide) -> None:
    quiet = {"quiet": METHODS["quiet"]}
    base = stored_boards(make_side("base", quiet, fits=3))
    for name, fewer in {"concepts": {"fits": 3, "concepts": ("hat",)}, "fits": {"fits": 2}}.items():
        head = stored_boards(make_side(name, quiet, **fewer))
        with pytest.raises(UsageError, match=f"other {name} of made_up/quiet"):
            caught_against(base, head, 20, seed=0)


def test_rates_need_fits(make_side: MakeSide) -> None:
    with pytest.raises(UsageError, match="no method has two fits"):
        stored_boards(make_side("base", METHODS))
