"""PSNR, agreement and the look of the noise."""

from __future__ import annotations

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.image_similarity import (
    PSNR_CEILING,
    attribute_agreement,
    noise_statistics,
    psnr,
)


def test_psnr_by_hand_is_per_image() -> None:
    reference = np.zeros((2, 3, 4, 4))
    images = reference.copy()
    images[0] += 0.2  # mse 0.04, range 2: 10 log10(4 / 0.04) = 20 dB
    images[1, 0] += 0.2  # a third of that error
    np.testing.assert_allclose(psnr(images, reference), [20, 20 + 10 * np.log10(3)])


def test_psnr_clamps_and_has_a_ceiling_instead_of_infinity() -> None:
    images = np.full((1, 3, 2, 2), 1.7)
    assert psnr(images, np.ones_like(images))[0] == PSNR_CEILING
    assert psnr(images, images)[0] == PSNR_CEILING


def test_psnr_agrees_with_a_plain_computation_on_8_bit_images() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 5, 3, 8, 8)).astype(float)
    plain = [10 * np.log10(255**2 / ((x - y) ** 2).mean()) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(a / 127.5 - 1, b / 127.5 - 1), plain)


def test_agreement_counts_equal_decisions_per_attribute() -> None:
    source = [[1.0, -1.0], [2.0, -3.0], [-1.0, 0.0], [4.0, 5.0]]
    reconstruction = [[0.1, 1.0], [-2.0, -0.1], [-9.0, -1.0], [1.0, 1.0]]
    np.testing.assert_allclose(attribute_agreement(source, reconstruction), [0.75, 0.75])


def test_noise_statistics_are_taken_within_each_image() -> None:
    x_T = np.random.default_rng(0).normal(size=(4, 3, 32, 32))
    plain = noise_statistics(x_T)
    assert plain.mean == pytest.approx(0, abs=0.03) and plain.std == pytest.approx(1, abs=0.03)
    # Offsets that differ from image to image must not pass for spread.
    offset = noise_statistics(x_T * 0.1 + np.array([-3, -1, 1, 3])[:, None, None, None])
    assert offset.std == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    "call",
    [
        lambda: psnr(np.zeros((1, 3, 2, 2)), np.zeros((2, 3, 2, 2))),
        lambda: psnr(np.full((1, 3, 2, 2), np.nan), np.zeros((1, 3, 2, 2))),
        lambda: attribute_agreement(np.zeros((0, 2)), np.zeros((0, 2))),
        lambda: noise_statistics(np.zeros((0, 3, 2, 2))),
        lambda: noise_statistics(np.full((1, 3, 2, 2), np.inf)),
    ],
)
def test_bad_input_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
