"""The gate's rates on resampled runs: broken methods are caught, and little else."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from casl_bench.cli.main import main
from casl_bench.core.errors import UsageError
from casl_bench.gate.run_side import FitScoreMatrix
from casl_bench.studies.gate_error_rates import (
    caught_against,
    measure_rates,
    paired_loss,
    resample_fits,
    resample_images,
    resampled_side,
    stored_fits,
)
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

CELL = ("made_up", "casl")
QUIET, LOUD = MadeUpMethod(fit_sd=0.03), MadeUpMethod(fit_sd=0.4)
SMALL = {"fits": 5, "concepts": ("hat",), "images": 16}


@pytest.fixture
def stored(tmp_path: Path) -> object:
    """(method; fields of `MadeUpRun`) → its stored fits."""

    def make(method: MadeUpMethod, **fields: object) -> dict[tuple[str, str], FitScoreMatrix]:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        write_made_up_run(folder, MadeUpRun({"casl": method}, **(SMALL | fields)))  # type: ignore[arg-type]
        return stored_fits(folder)

    return make


def test_a_resampled_side_holds_the_sampled_images(stored) -> None:
    matrix = stored(QUIET, concepts=("hat", "beard"))[CELL]
    rng = np.random.default_rng(0)
    images = resample_images(matrix, rng)
    assert sum(images.values()) == 16 and max(images.values()) > 1
    places = resample_fits(matrix, 7, rng)
    base, head = (resampled_side(matrix, images, side) for side in places)
    assert base.reached.shape == (7, 2) and base.images == 16
    assert base.joined(head).precision.shape == (14, 2)
    assert (places[0] != places[1]).any()
    same = resample_fits(matrix, 7, rng, shared=1.0)
    assert (same[0] == same[1]).all()


def test_broken_methods_are_caught_and_nothing_else(stored) -> None:
    rates = measure_rates(stored(QUIET), runs=20, seed=0)
    assert rates.broken == {"wrong sign": 20, "half strength": 20, "shuffled decoder": 20}
    assert rates.false_alarms <= 2 and rates.caught[CELL] >= 16


def test_a_run_of_other_code_fails_as_often_as_it_is_worse(stored) -> None:
    base, worse = stored(QUIET), stored(MadeUpMethod(damage=0.3, fit_sd=0.03, luck=1))
    assert caught_against(base, worse, 20, seed=0) == {CELL: 20}
    assert caught_against(base, base, 20, seed=0)[CELL] <= 4


def test_a_loss_shows_in_pairs_where_fits_differ_by_more(stored) -> None:
    base, worse = stored(LOUD), stored(MadeUpMethod(damage=0.22, fit_sd=0.4))
    apart, paired = (
        caught_against(base, worse, 20, seed=0, shared=shared)[CELL] for shared in (0.0, 1.0)
    )
    assert apart <= 5 and paired >= 18


def test_the_loss_of_pairs_is_measured_with_its_power(stored) -> None:
    base, worse, varies = (
        stored(m)[CELL]
        for m in (MadeUpMethod(), MadeUpMethod(damage=0.22), MadeUpMethod(damage=0.22, fit_sd=0.4))
    )
    sure = paired_loss(base, worse, seed=0)
    assert sure.log_ratio == pytest.approx(math.log(0.2 / 0.22), abs=0.01)
    assert sure.sd < 1e-9 and sure.power == 1
    found = paired_loss(base, varies, seed=0)
    assert found.sd > 0.1 and found.pairs == 5 and found.power < 0.6


def test_pairs_are_of_the_same_concepts_and_seeds(stored) -> None:
    base = stored(QUIET, concepts=("hat", "beard"), fits=3)
    for name, fewer in {
        "concepts": {"fits": 3},
        "fits": {"fits": 2, "concepts": ("hat", "beard")},
    }.items():
        with pytest.raises(UsageError, match=f"other {name} of made_up/casl"):
            caught_against(base, stored(QUIET, **fewer), 20, seed=0)
    with pytest.raises(UsageError, match="no method has two fits"):
        stored(QUIET, fits=1)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_made_up_run(tmp_path, MadeUpRun({"casl": QUIET}, fits=2, concepts=("hat",), images=4))
    command = ["study", "gate-rates", str(tmp_path), "--runs", "20"]
    assert main(command) == 0
    assert "| wrong sign caught" in capsys.readouterr().out
    assert main([*command, "--against", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("made_up/casl: ")
