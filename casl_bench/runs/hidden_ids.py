"""Ids that say nothing: what a method knows images by.

An id such as `test-000012` says which split an image is of, and a renderer makes the perfect edit
of it. Methods are given random names instead, new ones in every process. What random numbers of an
image hang on is in `Inversions.noise_keys`, which no name takes part in.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from casl_bench.diffusion.inversion import Inversions
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.methods.method import OracleRenderer
from casl_bench.runs.withheld import granted


class HiddenIds:
    """Gives each image of a data set one random name, and knows it again."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    def names(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """The names of images, in the order of their ids."""
        for image_id in image_ids:
            if image_id not in self._names:
                name = secrets.token_hex(8)
                self._names[image_id], self._ids[name] = name, image_id
        return tuple(self._names[i] for i in image_ids)

    def inversions(self, inversions: Inversions) -> Inversions:
        """The same images by their names."""
        return replace(inversions, image_ids=self.names(inversions.image_ids))

    def trajectories(self, store: TrajectoryStore) -> TrajectoryStore:
        """The same store by their names."""
        found = copy.copy(store)
        found.image_ids = self.names(store.image_ids)
        return found

    def oracle(self, render: OracleRenderer) -> OracleRenderer:
        """A renderer, for controls, that knows images by their names."""

        def by_name(image_ids: Sequence[str], attribute: str) -> Tensor:
            with granted():
                return render([self._ids[name] for name in image_ids], attribute)

        return by_name
