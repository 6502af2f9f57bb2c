"""What is left of each method's headline when scorers that nobody has seen score it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from casl_bench.core.files import read_checked, write_json
from casl_bench.results.record import Count, Finite, Frozen, Hash

FILE = "rejudged.json"
"""In a run folder."""

MOST_LOSS = 0.25
"""A method that loses more of its headline than this to fresh scorers is not ranked."""

LEAST_LOSS = 0.05
"""Nor is a loss counted that is smaller than this share of all images: it may be noise."""

NOT_REJUDGED = "not re-judged"
"""Flag of a method of which there are scores alone."""

LOST = "lost by re-judging"
"""Flag that unranks."""


def loss_of(shipped: float, left: float) -> float:
    """Share of a headline that is lost; 0 where it may be noise."""
    return (shipped - left) / shipped if shipped - left > LEAST_LOSS else 0.0


class RejudgedMethod(Frozen):
    """One method on one data set, mean over concepts of its share of precise edits.

    Attributes:
        shipped: by the scorers that are shipped, on the stored test images.
        fresh: by fresh classifiers and a fresh regressor, on the same images, purified.
        fresh_split: likewise on test images that nobody has seen; None where not asked for.
        concepts: over which the means are.
    """

    shipped: Finite = Field(ge=0, le=1)
    fresh: Finite = Field(ge=0, le=1)
    fresh_split: Finite | None = Field(default=None, ge=0, le=1)
    concepts: Count = Field(ge=1)


class RejudgedDataset(Frozen):
    """One data set, with its methods.

    Attributes:
        scorers: hashes of the weights of all of them, fresh ones among them.
        kept: share of its precise edits that the perfect edit keeps.
    """

    scorers: dict[str, Hash]
    methods: dict[str, RejudgedMethod]
    kept: Finite = Field(default=1.0, ge=0, le=1)

    def left(self, method: str) -> float:
        """Headline by fresh scorers over the share that the perfect edit keeps, at most 1."""
        return min(self.methods[method].fresh / max(self.kept, 1e-9), 1.0)

    def least(self, method: str) -> float:
        """Of the same images and of fresh ones, where there are some, the smaller such number."""
        split = self.methods[method].fresh_split
        own = self.left(method)
        return own if split is None else min(own, split / max(self.kept, 1e-9))


class Rejudged(Frozen):
    """All data sets of a run, re-judged with one seed."""

    kind: Literal["rejudged"] = "rejudged"
    seed: Count
    steps: Count
    images: Count
    datasets: dict[str, RejudgedDataset]

    def of(self, methods: Collection[str]) -> Rejudged:
        """What it says of these methods alone."""
        datasets = {
            name: own.model_copy(
                update={"methods": {m: v for m, v in own.methods.items() if m in methods}}
            )
            for name, own in self.datasets.items()
        }
        return self.model_copy(update={"datasets": datasets})

    def loss(self, method: str, dataset: str | None = None) -> float | None:
        """Share of its headline that a method loses, mean over concepts; None if not re-judged.

        Of fresh images, where there are some, and of the same ones, the larger counts. On one data
        set, or on all of them together.
        """
        own = self._own(method, dataset)
        if not own:
            return None
        shipped = _mean(method, own, lambda d: d.methods[method].shipped)
        return loss_of(shipped, min(_mean(method, own, lambda d: d.least(method)), shipped))

    def flag(self, method: str, dataset: str | None = None) -> str | None:
        """`NOT_REJUDGED`, `LOST`, or None where a method's headline stands.

        What is lost on one data set is lost over all of them: others must not make up for it.
        """
        loss = self.loss(method, dataset)
        if loss is None:
            return NOT_REJUDGED
        losses = [loss, *(self.loss(method, d) or 0.0 for d in self.datasets if dataset is None)]
        return LOST if max(losses) > MOST_LOSS else None

    def fresh(self, method: str, dataset: str | None = None) -> float | None:
        """Headline by fresh scorers over all concepts, see `left`; None if not re-judged."""
        own = self._own(method, dataset)
        return _mean(method, own, lambda d: d.left(method)) if own else None

    def _own(self, method: str, dataset: str | None) -> list[RejudgedDataset]:
        some = self.datasets.items()
        return [d for n, d in some if method in d.methods and dataset in (None, n)]


def _mean(
    method: str, datasets: Sequence[RejudgedDataset], value: Callable[[RejudgedDataset], float]
) -> float:
    """Over concepts."""
    weights = [d.methods[method].concepts for d in datasets]
    return sum(w * value(d) for w, d in zip(weights, datasets, strict=True)) / sum(weights)


def read_rejudged(path: Path) -> Rejudged | None:
    """What `write_rejudged` wrote; None where there is no such file.

    Raises:
        InvalidBenchmarkError: if it holds anything else.
    """
    if not path.is_file():
        return None
    return read_checked(Rejudged, path, "re-judging", "run casl-bench rejudge again")


def write_rejudged(path: Path, found: Rejudged) -> None:
    """Write it, whole or not at all."""
    write_json(path, found.model_dump(mode="json"))
