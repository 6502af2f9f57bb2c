"""Every metric on planted truth: the oracle at its bound, useless ones below, damage monotone."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from casl_bench.metrics.dictionaries import SAE_METRICS
from tests.support.planted_dictionaries import (
    TEST,
    Measured,
    Sae,
    merged,
    oracle,
    random_orthogonal,
    shuffled_decoder,
    untrained,
)

READ = ("pair_score", "pair_direction", "pair_share", "absorption", "localisation", "probe")
BOUNDS = {"probe": 1.0} | {
    name: float(SAE_METRICS[name].best or 0.0)
    for name in ("pair_score", "pair_direction", "pair_share", "absorption", "localisation",
                 "explained_variance", "ablation", "steering")
}  # fmt: skip


@cache
def measured(kind: str) -> Measured:
    kinds = {"oracle": lambda: oracle(TEST), "untrained": untrained, "random": random_orthogonal}
    return Measured(kinds[kind]())


@pytest.mark.parametrize("name", [*READ, "explained_variance", "ablation", "steering"])
def test_the_oracle_is_within_five_percent_of_the_bound(name: str) -> None:
    assert getattr(measured("oracle"), name)() == pytest.approx(BOUNDS[name], abs=0.05)


@pytest.mark.parametrize("kind", ["untrained", "random"])
@pytest.mark.parametrize("name", READ)
def test_useless_dictionaries_are_below_the_oracle(name: str, kind: str) -> None:
    best, useless = getattr(measured("oracle"), name)(), getattr(measured(kind), name)()
    if name in ("absorption", "pair_direction"):
        # Named as unable to tell them apart where all positions are pooled and flips are clean.
        assert useless >= best if name == "absorption" else useless <= best
    else:
        assert useless < best - 0.1


def test_the_untrained_one_reconstructs_less() -> None:
    found = measured("untrained").explained_variance()
    assert found < measured("oracle").explained_variance() - 0.1


def curve(name: str, damaged: list[Sae]) -> list[float]:
    return [float(getattr(Measured(sae), name)()) for sae in damaged]


@pytest.mark.parametrize("name", ["pair_score", "pair_share", "localisation"])
def test_merging_latents_lowers_what_is_read(name: str) -> None:
    values = curve(name, [merged(oracle(TEST), share) for share in (0, 0.25, 0.5, 0.75, 1)])
    assert all(a > b for a, b in pairwise(values)), values
    assert values[-1] < values[0] - 0.2


@pytest.mark.parametrize("name", ["probe", "monosemanticity", "ablation", "steering"])
def test_merging_latents_lowers_these_too_be_it_not_in_every_step(name: str) -> None:
    values = curve(name, [merged(oracle(TEST), share) for share in (0, 0.25, 0.5, 0.75, 1)])
    assert all(a > b - 1e-9 for a, b in pairwise(values)), values
    assert values[-1] < values[0]


@pytest.mark.parametrize("name", ["ablation", "steering"])
def test_useless_dictionaries_act_less_precisely(name: str) -> None:
    best = getattr(measured("oracle"), name)()
    for kind in ("untrained", "random"):
        assert getattr(measured(kind), name)() < best - 0.1
    assert getattr(Measured(shuffled_decoder(oracle(TEST), 1)), name)() < best - 0.3


@pytest.mark.parametrize("name", ["explained_variance"])
def test_shuffling_the_decoder_lowers_what_is_kept(name: str) -> None:
    damaged = [shuffled_decoder(oracle(TEST), share) for share in (0, 0.1, 0.3, 0.6, 1)]
    values = curve(name, damaged)
    assert all(a > b for a, b in pairwise(values)), values


def test_interchange_of_the_oracle_causes_and_isolates() -> None:
    cause, isolate = measured("oracle").interchange()
    assert cause == pytest.approx(1, abs=0.05) and isolate == pytest.approx(1, abs=0.05)


def test_interchange_falls_with_a_shuffled_decoder_and_with_merged_latents() -> None:
    whole = [
        float(np.mean(Measured(sae).interchange()))
        for sae in (oracle(TEST), shuffled_decoder(oracle(TEST), 0.03 * 2), merged(oracle(TEST), 1))
    ]
    broken = float(np.mean(Measured(shuffled_decoder(oracle(TEST), 1)).interchange()))
    assert broken < whole[0] - 0.2
    assert whole[2] < whole[0]


@pytest.mark.parametrize("kind", ["untrained", "random"])
def test_interchange_of_useless_dictionaries_does_not_cause(kind: str) -> None:
    assert measured(kind).interchange()[0] < measured("oracle").interchange()[0] - 0.3
