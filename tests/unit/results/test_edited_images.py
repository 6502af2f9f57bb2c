"""The images of a latent: those that activate it most, dark where silent, on disk and back."""

from __future__ import annotations

import numpy as np
import pytest

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.results.edited_images import (
    find_latent_images,
    latents_from_bytes,
    latents_to_bytes,
)


def test_the_images_that_activate_a_latent_most_come_first() -> None:
    codes = np.zeros((5, 4, 4, 4), np.float32)
    codes[3, 2, 0, 1], codes[1, 2, 2, 2] = 4.0, 1.0
    pictures = np.random.default_rng(0).integers(8, 256, (5, 16, 16, 3), dtype=np.uint8)
    best, silent = find_latent_images(codes, [2, 0], pictures)
    assert (best.latent, best.activations) == (2, (4.0, 1.0))
    assert np.array_equal(best.pictures[0], pictures[3])
    share = best.dimmed(0).sum(axis=-1) / best.pictures[0].sum(axis=-1)
    assert share[2, 6] > 0.8 and share[-1, -1] == pytest.approx(0.25, abs=0.02)
    assert silent.pictures == ()
    data = latents_to_bytes([best, silent])
    assert data == latents_to_bytes([best, silent])
    again, nothing = latents_from_bytes(data)
    assert again.activations == best.activations and nothing.latent == 0
    assert np.array_equal(again.dimmed(1), best.dimmed(1))


@pytest.mark.parametrize("data", [b"", b"PK nonsense", b"\x93NUMPY"])
def test_what_is_none_of_its_files_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidBenchmarkError, match="cannot read"):
        latents_from_bytes(data)
