"""How many images are edited at once: as many as memory holds, and fewer where it does not.

Networks run in micro-batches of a fixed size whatever this is (`core.micro_batch`), so it changes
speed and memory and never a number. What grows with it are the pictures of all images and
strengths between two steps of the walk.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor

from casl_bench.backbones.backbone import Backbone
from casl_bench.core.memory import GB, free_memory, is_out_of_memory
from casl_bench.runs.planning.config import RunConfig

SHARE = 0.5
"""Of the free memory, what edits may take where no budget is given: networks need some, too."""

PICTURES = 4
"""Pictures in single precision that an image takes at one strength: x_t before a step and after it,
the edit, and what it is put together and checked with."""

_FLOAT = 4


class AtOnce:
    """Splits the images of a cell into batches that fit into memory.

    Args:
        config: of the run: its memory budget, batch size and processes.
        backbone: the noise predictor; no batch is less than its micro-batch.
        note: says something to the user.
    """

    def __init__(self, config: RunConfig, backbone: Backbone, note: Callable[[str], None]) -> None:
        self._least, self._note = backbone.micro_batch, note
        self._most = config.batch_size
        if config.memory_budget is None:
            budget = SHARE * free_memory(config.device) / config.jobs
        else:
            budget = config.memory_budget * GB
        self._rows = int(budget / (PICTURES * _FLOAT * 3 * backbone.image_size**2))

    def images(self, strengths: int) -> int:
        """Images of a batch that is edited at so many strengths."""
        held = self._rows // strengths // self._least * self._least
        held = max(held, self._least)
        return held if self._most is None else min(held, self._most)

    def edit(self, count: int, strengths: int, work: Callable[[range], Tensor]) -> list[Tensor]:
        """Have all images edited, batch by batch.

        A batch for which memory runs out is tried again with half as many images, and so are those
        after it.

        Args:
            count: images.
            strengths: of each.
            work: edits the images at these places.

        Raises:
            MemoryError, RuntimeError: where memory does not hold one micro-batch, as it came.
        """
        parts: list[Tensor] = []
        start = 0
        while start < count:
            places = range(start, min(start + self.images(strengths), count))
            part = self._tried(places, work)
            if part is None:
                self._halve(len(places), strengths)
            else:
                parts.append(part)
                start = places.stop
        return parts

    def _tried(self, places: range, work: Callable[[range], Tensor]) -> Tensor | None:
        """None where memory ran out and fewer can be tried."""
        try:
            return work(places)
        except Exception as error:
            if len(places) <= self._least or not is_out_of_memory(error):
                raise
            return None

    def _halve(self, images: int, strengths: int) -> None:
        # Only here is the error gone, and with it what its frames held.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._rows = images * strengths // 2
        self._note(
            f"out of memory with {images} images at {strengths} strengths: going on with "
            f"{self.images(strengths)}"
        )
