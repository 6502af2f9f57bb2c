"""The shipped regressors of known factors: small, as their cards say, and good on unseen pictures.

Its training asks the renderer which factors are circular, and leaves out what it cannot read.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from casl_bench.core.seeding import derive_seed
from casl_bench.domains.rendered import (
    ASSETS,
    CLASSIFIERS,
    RENDERED,
    RenderedDomain,
    rendered_domain,
)
from casl_bench.domains.rendering.renderer import Factors, to_pixels
from casl_bench.models.factor_regressor import FactorRegressor, LookoutNet
from casl_bench.training.degrade import blur, degrade
from casl_bench.training.train_factors import (
    FLOOR,
    Reading,
    calibrate_readings,
    circular_factors,
    explained,
    keep_outputs,
)
from casl_bench.training.trainer import card_text

PICTURES = 96
CIRCULAR = {
    "rendered_faces": {"background_hue", "shirt_hue", "background_angle", "light_direction"},
    "rendered_dogs": {"light_direction"},
    "rendered_churches": {"light_direction"},
}


@pytest.fixture(scope="module", params=RENDERED.values(), ids=lambda d: d.name)
def domain(request: pytest.FixtureRequest) -> RenderedDomain:
    found: RenderedDomain = request.param
    return found


@pytest.fixture(scope="module")
def card(domain: RenderedDomain) -> dict[str, Any]:
    path = ASSETS / domain.name / "factor_regressor" / "card.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def regressor(domain: RenderedDomain) -> FactorRegressor:
    return FactorRegressor.load(ASSETS / domain.name / "factor_regressor")


@pytest.fixture(scope="module")
def factors(domain: RenderedDomain) -> Factors:
    return domain.drawing.sample(np.arange(PICTURES), derive_seed(0, "test of the regressor"))


@pytest.fixture(scope="module")
def pictures(domain: RenderedDomain, factors: Factors) -> Tensor:
    return to_pixels(domain.drawing.render(factors))


def test_small_and_described(domain: RenderedDomain, card: dict[str, Any]) -> None:
    folder = ASSETS / domain.name / "factor_regressor"
    assert (folder / "model.safetensors").stat().st_size < 400e3
    assert (folder / "README.md").read_text(encoding="utf-8") == card_text(card)
    assert len((folder / "curve.csv").read_text(encoding="utf-8").splitlines()) > 5


def test_the_domain_has_it_and_it_is_no_classifier(
    domain: RenderedDomain, card: dict[str, Any], regressor: FactorRegressor
) -> None:
    hashes = rendered_domain(domain.name).scorer_hashes
    assert hashes["factor_regressor"] == regressor.info.weights_hash
    architectures = [
        json.loads((ASSETS / domain.name / name / "card.json").read_text())["config"]
        for name in CLASSIFIERS
    ]
    assert card["config"]["architecture"] not in [c["architecture"] for c in architectures]


def test_the_card_lists_what_is_read_and_what_is_not(
    domain: RenderedDomain, card: dict[str, Any], regressor: FactorRegressor
) -> None:
    measured, drawing = card["measured"], domain.drawing
    left_out = {
        k.removeprefix("left_out_for_r2_of_"): v
        for k, v in measured.items()
        if k.startswith("left_out")
    }
    assert regressor.names[: len(drawing.attributes)] == drawing.attributes
    read = regressor.names[len(drawing.attributes) :]
    assert set(read).isdisjoint(left_out)
    assert {*read, *left_out} == set(drawing.nuisance) - set(drawing.unread)
    assert all(r2 < FLOOR for r2 in left_out.values())
    r2 = [measured[f"r2_clean_of_{name}"] for name in read]
    assert min(r2) >= FLOOR and np.mean(r2) == pytest.approx(measured["mean_r2_clean"], abs=1e-4)


def test_the_floors_of_the_card_are_kept(card: dict[str, Any]) -> None:
    measured = card["measured"]
    assert measured["mean_r2_clean"] >= 0.8
    assert min(measured["accuracy_clean"].values()) >= 0.99
    assert min(measured["accuracy_degraded"].values()) >= 0.98
    assert max(measured["share_error_blended"].values()) <= 0.06
    assert min(measured["flip_change_in_sd_2_is_right"].values()) >= 1.9
    assert max(measured["flip_others_in_sd_0_is_right"].values()) <= 0.25


def test_unseen_pictures_are_read_as_well_as_the_card_says(
    domain: RenderedDomain,
    card: dict[str, Any],
    regressor: FactorRegressor,
    factors: Factors,
    pictures: Tensor,
) -> None:
    a = len(domain.drawing.attributes)
    reading = Reading(domain.drawing, frozenset(CIRCULAR[domain.name]))
    kept = [k for k, name in enumerate(reading.columns[a:]) if name in regressor.names]
    targets, names = reading.targets(factors)[:, kept], regressor.columns[a:]
    found = regressor.factors(pictures)
    r2 = explained(found[:, a:], targets, names)
    assert np.mean(list(r2.values())) >= card["measured"]["mean_r2_clean"] - 0.05
    assert min(r2.values()) >= FLOOR - 0.2
    soft = explained(regressor.factors(blur(pictures, 1.0))[:, a:], targets, names)
    assert np.mean(list(soft.values())) >= np.mean(list(r2.values())) - 0.05
    spoilt = degrade(pictures, torch.Generator().manual_seed(0), clean=0.0)
    for read in (found, regressor.factors(spoilt)):
        right = (read[:, :a] > 0) == torch.from_numpy(factors.attributes)
        assert float(right.float().mean()) >= 0.98


def test_an_oracle_edit_moves_its_attribute_and_little_else(
    domain: RenderedDomain, regressor: FactorRegressor, factors: Factors, pictures: Tensor
) -> None:
    few = slice(0, 16)
    for k, attribute in enumerate(domain.drawing.attributes):
        flipped = to_pixels(domain.drawing.render(domain.drawing.flipped(factors[few], attribute)))
        target, others = regressor.factor_change(flipped, pictures[few], attribute)
        turned_on = torch.from_numpy(~factors.attributes[few, k])
        assert bool(((target > 0) == turned_on).all())
        assert float(target.abs().mean()) > 1.8 and float(others.mean()) < 0.3


def test_half_an_edit_is_half_a_change(
    domain: RenderedDomain, regressor: FactorRegressor, factors: Factors, pictures: Tensor
) -> None:
    attribute, few = domain.drawing.attributes[0], slice(0, 16)
    flipped = to_pixels(domain.drawing.render(domain.drawing.flipped(factors[few], attribute)))
    base = pictures[few]
    half, _ = regressor.factor_change((base + flipped) / 2, base, attribute)
    assert float(half.abs().mean()) == pytest.approx(1, abs=0.25)


def test_a_factor_that_moves_is_the_one_that_is_read_to_move(
    domain: RenderedDomain, card: dict[str, Any], regressor: FactorRegressor, factors: Factors
) -> None:
    drawing, few = domain.drawing, factors[:16]
    read = [n for n in regressor.names if n in drawing.nuisance and n not in CIRCULAR[drawing.name]]
    best = max(read, key=lambda name: card["measured"][f"r2_clean_of_{name}"])
    ends = []
    for value in (0.25, 0.75):
        nuisance = few.nuisance.copy()
        nuisance[:, drawing.nuisance.index(best)] = value
        ends.append(to_pixels(drawing.render(replace(few, nuisance=nuisance))))
    changes = regressor.changes(ends[1], ends[0]).mean(0)
    k = regressor.names.index(best)
    assert float(changes[k]) == pytest.approx(0.5 * 12**0.5, rel=0.2)
    changes[k] = 0
    assert float(changes.mean()) < 0.2


def test_the_renderer_tells_which_factors_are_circular(domain: RenderedDomain) -> None:
    assert circular_factors(domain.drawing) == CIRCULAR[domain.name]


def test_targets_have_mean_zero_and_deviation_one(domain: RenderedDomain) -> None:
    reading = Reading(domain.drawing, frozenset(CIRCULAR[domain.name]))
    targets = reading.targets(domain.drawing.sample(np.arange(20_000), seed=1))
    assert targets.shape[1] == len(reading.columns) - len(domain.drawing.attributes)
    assert float(targets.mean(0).abs().max()) < 0.05
    assert float((targets.std(0) - 1).abs().max()) < 0.05


def test_calibration_finds_scale_and_bias_and_keeps_circles_round() -> None:
    targets = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    raw = (targets - 1) / torch.tensor([0.5, 2.0, 2.0])
    scale, bias = calibrate_readings(raw, targets, ("place", "hue", "hue"))
    assert torch.allclose(scale, torch.tensor([0.5, 2.0, 2.0]))
    assert torch.allclose(bias, torch.ones(3))
    raw = targets / torch.tensor([1.0, 2.0, 4.0])
    scale, _ = calibrate_readings(raw, targets, ("place", "hue", "hue"))
    assert scale[1] == scale[2] and 2 < float(scale[1]) < 4


def test_what_is_explained_worked_by_hand() -> None:
    targets = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0], [-1.0, 0.0, -1.0]])
    readings = targets.clone()
    readings[:, 0] = 0
    readings[0, 1] = 0
    # All of the first factor is missed; of the second 1 of a total of 2 + 2.
    assert explained(readings, targets, ("place", "hue", "hue")) == {"place": 0.0, "hue": 0.75}


def test_outputs_left_out_leave_the_others_as_they_are() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LookoutNet(5, (4, 8), 3, 2, 8).eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network(x)
        keep_outputs(network, [0, 3, 4])
        assert torch.allclose(network(x), whole[:, [0, 3, 4]], atol=1e-6)
