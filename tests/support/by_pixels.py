"""For methods of tests that know the perfect edit: which toy picture this is, by its pixels.

The ids that a method is given say nothing, so it looks for the picture among those that exist.
"""

from __future__ import annotations

from functools import cache

from torch import Tensor

from casl_bench.conformance.toy_domain import ToyShapes
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.dataset import Split

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@cache
def _known() -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for split in _SPLITS:
        batch = ToyShapes().load(split, 64)
        for image_id, pixels in zip(batch.image_ids, batch.pixels, strict=True):
            found[pixels.numpy().tobytes()] = image_id
    return found


def toy_change(inversions: Inversions, attribute: str) -> Tensor:
    """[n, 3, 16, 16] what flipping an attribute changes in each of these toy pictures."""
    ids = [_known()[pixels.contiguous().numpy().tobytes()] for pixels in inversions.x_0]
    return ToyShapes().oracle(ids, attribute) - inversions.x_0
