"""Kernel distance tells sets of pictures apart; gates are marked against what is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from casl_bench.domains.rendered import RENDERED
from casl_bench.domains.rendering.renderer import to_pixels
from casl_bench.runs.suites import SUITES
from casl_bench.training.picture_distance import KernelDistance, features
from casl_bench.training.train_gates import WALKS, gate_rows

DRAWING = RENDERED["rendered_faces"].drawing


def _renders(first: int, count: int = 48) -> Tensor:
    return to_pixels(DRAWING.render(DRAWING.sample(np.arange(first, first + count), 0)))


def test_kernel_distance_grows_with_noise_and_is_none_between_renders() -> None:
    some, others = _renders(0), _renders(100)
    noise = torch.randn(some.shape, generator=torch.Generator().manual_seed(0))
    distance = KernelDistance(_renders(200, 96))
    distances = [distance(some + s * noise, others) for s in (0.0, 0.2, 0.5)]
    assert abs(distances[0]) < distances[1] / 3 < distances[2] / 9


def test_kernel_distance_sees_a_missing_attribute() -> None:
    factors = DRAWING.sample(np.arange(48), 0)
    bare, hats = factors.attributes.copy(), factors.attributes.copy()
    column = DRAWING.index("hat")
    bare[:, column], hats[:, column] = False, True
    pictures = [
        to_pixels(DRAWING.render(type(factors)(factors.image_ids, a, factors.nuisance)))
        for a in (bare, hats)
    ]
    distance = KernelDistance(_renders(200, 96))
    assert distance(pictures[0], pictures[1]) > 5 * abs(distance(_renders(300), _renders(400)))


def test_features_depend_on_their_picture_alone() -> None:
    pictures = _renders(0, 3)
    assert torch.allclose(features(pictures)[1:], features(pictures[1:]), atol=1e-5)


@pytest.mark.parametrize(("psnr", "reached"), [(33.9, False), (34.1, True)])
def test_gates_are_marked(psnr: float, reached: bool) -> None:
    each = {"hat": 0.97, "bangs": 0.97}
    figures: dict[str, Any] = {
        "plain_inversion": {
            "full": {"psnr": 40.0, "attribute_agreement": 0.99},
            "default": {"psnr": psnr, "attribute_agreement": 0.99},
        },
        "inversion": {"default": {"psnr": 33.0, "attribute_agreement": 0.99}},
        "sample_entropy": 0.05, "render_entropy": 0.01,
        "sample_kernel_distance": 1.0, "donor_h_transfer": each, "direction_flip_rate": each,
        "probe_on_h": each, "direction_kernel_distance": {"hat": 2.0, "bangs": 4.0},
    }  # fmt: skip
    alone = {gate: mark for gate, _, _, mark in gate_rows(figures, ("hat", "bangs"), None)}
    assert alone["psnr of plain_inversion, suite default"] is reached
    assert alone["psnr of plain_inversion, suite full"]
    assert alone["psnr of inversion, suite default"] is False
    assert alone["donor_h_transfer: hat"] is True
    assert alone["sample_kernel_distance"] is None, "relative, and nothing to compare with"
    before = {"sample_kernel_distance": 9.0, "direction_kernel_distance": {"smiling": 11.0}}
    beside = {gate: mark for gate, _, _, mark in gate_rows(figures, ("hat", "bangs"), before)}
    assert beside["sample_kernel_distance"] is False
    assert beside["direction_kernel_distance, mean"] is True
    figures["direction_flip_rate"] = {"hat": 0.97, "bangs": 0.1}
    unmoved = {gate: mark for gate, _, _, mark in gate_rows(figures, ("hat", "bangs"), before)}
    assert unmoved["direction_kernel_distance, mean"] is False, "an edit that does nothing is whole"


def test_inversion_is_measured_on_the_walk_of_every_rendered_suite() -> None:
    assert WALKS.keys() == {"default", "full", "quick"}
    assert len(max(WALKS.values(), key=len)) == SUITES["full"].num_steps, "of all else"
