"""What the study keeps: one JSON line for the study, one for each variant of an edit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.records.measurement import Finite, Frozen, Measurement

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
        lines: Sequence[Frozen] = (self.header, *self.rows)
        dumped = (line.model_dump(mode="json") for line in lines)
        return "".join(
            json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in dumped
        )

    @classmethod
    def from_jsonl(cls, text: str, where: str = "") -> LatentRows:
        """Read what `to_jsonl` wrote.

        Raises:
            InvalidBenchmarkError: on anything else.
        """
        try:
            first, *rest = text.splitlines()
            return cls(
                Header.model_validate_json(first),
                tuple(VariantRow.model_validate_json(line) for line in rest),
            )
        except (ValueError, ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InvalidBenchmarkError(
                f"not the rows of this study: {reason}", where=where, mend="make them anew"
            ) from error
