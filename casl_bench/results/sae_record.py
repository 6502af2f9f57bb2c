"""What is kept of one dictionary's evaluation, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from casl_bench.core.errors import InvalidBenchmarkError, first_fault
from casl_bench.core.files import read_json, safe_name, write_json
from casl_bench.results.record import Frozen, Measurement

CELLS = "cells"


class SaeCellId(Frozen):
    """Which dictionary, on which data set, where in the network."""

    dataset: str
    sae: str
    site: str = "mid"
    d_sae: int | None = None  # asked for; None is the kind's default
    k: int | None = None  # target L0, likewise
    seed: int = 0
    vectors: int | None = None  # trained on; None is the suite's
    trained_on: str | None = None  # range of timesteps; None is all of them

    @property
    def name(self) -> str:
        """As a file or a page."""
        sizes = (("w", self.d_sae), ("k", self.k), ("n", self.vectors))
        size = "".join(f"-{letter}{value}" for letter, value in sizes if value)
        size += f"-{safe_name(self.trained_on)}" if self.trained_on else ""
        sae = Path(self.sae).name if Path(self.sae).is_absolute() else self.sae
        return f"{self.dataset}-{safe_name(sae)}-{self.site}{size}-seed{self.seed}"


class LatentPage(Frozen):
    """One latent for readers.

    Attributes:
        latent: its place.
        attributes: those that it is matched to.
        images: ids of the images that activate it most.
        activity: [image][position] of its code in them.
        purity: largest share of one attribute's value among these images.
        moves: attribute → mean change in reference units when it is turned up; empty where it was
            not turned up.
        pictures: file of these images and of edits with the latent turned up, beside the record.
    """

    latent: int
    attributes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    activity: tuple[tuple[float, ...], ...] = ()
    purity: float | None = None
    moves: dict[str, float] = Field(default_factory=dict)
    pictures: str | None = None


class SaeRecord(Frozen):
    """One dictionary's numbers.

    Attributes:
        key: hash of everything that determines them.
        ranges: of timesteps, in their order.
        measurements: range of timesteps → metric, or metric/attribute → number.
        control: whether the dictionary is a floor or a ceiling rather than a rival.
        latents: pages of the latents that are matched to attributes.
        seconds: of training (None where read from a cache that does not say) and evaluation.
    """

    id: SaeCellId
    key: str
    title: str
    control: bool
    signed: bool
    source: str
    suite: str
    quick: bool
    d_sae: int
    attributes: tuple[str, ...]
    ranges: tuple[str, ...]
    measurements: dict[str, dict[str, Measurement]]
    latents: tuple[LatentPage, ...] = ()
    content_hash: str
    domain_kind: str
    seconds: dict[str, float] = Field(default_factory=dict)


def record_path(run: Path, cell: SaeCellId) -> Path:
    """Where a cell's record lies in a run folder."""
    return run / CELLS / f"{cell.name}.json"


def write_record(run: Path, record: SaeRecord) -> None:
    """Write a record whole or not at all."""
    write_json(record_path(run, record.id), record.model_dump(mode="json"))


def read_record(path: Path) -> SaeRecord:
    """Raises InvalidBenchmarkError where the file is no record of this version."""
    try:
        return SaeRecord.model_validate(read_json(path))
    except (OSError, ValueError) as error:
        told = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise InvalidBenchmarkError(
            f"not the record of a dictionary: {told}", where=str(path), hint="delete it"
        ) from error


def read_records(run: Path) -> list[SaeRecord]:
    """All records of a run folder, in order of their names."""
    return [read_record(path) for path in sorted((run / CELLS).glob("*.json"))]


def ranges_of(records: Sequence[SaeRecord]) -> list[str]:
    """Names of the ranges of timesteps, in the order in which they were measured."""
    return [*dict.fromkeys(name for r in records for name in r.ranges)]
