"""What ships with the drawings: where their models are, and what h of their U-Net carries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from casl_bench.core.files import read_checked
from casl_bench.domains.rendering.renderer import Drawing, RenderedDataset

ASSETS = Path(__file__).parents[1] / "assets"
"""One folder per domain, one folder per model in it: weights, card, curve."""

GATES = "gates.json"
"""Beside a U-Net: what `casl-bench train gates` measured of it."""
CARRIED = 0.8
"""h carries an attribute if a donor's h brings it along in this share of images, where they differ.

An attribute that h does not carry is no concept: no method is ranked on it, whether it edits
through h or not. It stays among those that no edit may move.
"""


class Gates(BaseModel):
    """What a domain needs of the figures in `GATES`."""

    model_config = ConfigDict(frozen=True)

    donor_h_transfer: dict[str, Annotated[float, Field(ge=0, le=1)]]

    @property
    def not_carried(self) -> tuple[str, ...]:
        """Attributes, ranked or not, under `CARRIED`."""
        return tuple(a for a, share in self.donor_h_transfer.items() if share < CARRIED)


def rendered_dataset(drawing: Drawing, assets: Path = ASSETS) -> RenderedDataset:
    """The pictures of a drawing, with the concepts that its U-Net's h carries.

    All of them where no gate was measured. Raises InvalidBenchmarkError on a damaged file.
    """
    path = assets / drawing.name / "unet" / GATES
    gates = read_checked(Gates, path, "gates of a U-Net") if path.exists() else None
    return RenderedDataset(drawing, gates.not_carried if gates else ())
