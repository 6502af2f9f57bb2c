"""What the study keeps: one JSON line for the study, one for each variant of an edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from casl_bench.records.measurement import Finite, Frozen, Measurement
from casl_bench.studies.study_files import parse_lines, to_lines

Question = Literal["size", "ablation", "absence"]
"""CASL-Steer at several k; CASL's edit without some latents; an image without some latents."""
Latents = Literal["top", "alike", "none", "all"]
"""Best aligned ones; as many others that are as active; no latent; every one (b is left)."""


class Header(Frozen):
    """What all rows rest on.

    Attributes:
        kind: "study".
        version: of the study.
        command: that made the rows.
        suite: of the run, with its version.
        seed: of the run.
        ks: numbers of latents.
        packages: versions of python and of the packages that decide numbers.
    """

    kind: Literal["study"] = "study"
    version: int
    command: str
    suite: str
    seed: int
    ks: tuple[int, ...]
    packages: dict[str, str]


class VariantRow(Frozen):
    """One variant of an edit on the test images of one concept.

    Attributes:
        kind: "variant".
        dataset: its name.
        concept: its name.
        question: which it belongs to.
        latents: that are kept ("size") or taken away.
        k: how many of them.
        strength: that it ran at.
        reached: whether validation images reached the effect asked for; None where nothing was
            asked for.
        full_effect: mean target change of the perfect edit, in sd.
        measurements: by the classifier that decides.
    """

    kind: Literal["variant"] = "variant"
    dataset: str
    concept: str
    question: Question
    latents: Latents
    k: int = Field(ge=0)
    strength: Finite
    reached: bool | None
    full_effect: Finite = Field(gt=0)
    measurements: dict[str, Measurement]

    @property
    def effect(self) -> float | None:
        """Target change as asked, in shares of the perfect edit's."""
        change = self.measurements["signed_target_change"].value
        return None if change is None else change / self.full_effect


@dataclass(frozen=True)
class LatentRows:
    """The whole of it, rows in the order in which they were made."""

    header: Header
    rows: tuple[VariantRow, ...]

    def to_jsonl(self) -> str:
        """One line each, the header first; equal rows give equal bytes."""
        return to_lines((self.header, *self.rows))

    @classmethod
    def from_jsonl(cls, text: str, where: str = "") -> LatentRows:
        """Read what `to_jsonl` wrote.

        Raises:
            InvalidBenchmarkError: on anything else.
        """
        return parse_lines(text, cls._parse, where)

    @classmethod
    def _parse(cls, lines: list[Any]) -> LatentRows:
        first, *rest = lines
        rows = tuple(VariantRow.model_validate(line) for line in rest)
        return cls(Header.model_validate(first), rows)
