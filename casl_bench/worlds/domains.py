"""The rendered domains: a drawing with the words in which it is spoken of."""

from __future__ import annotations

from dataclasses import dataclass

from casl_bench.core.errors import unknown_name
from casl_bench.images import rendered_churches_dataset as churches
from casl_bench.images import rendered_dogs_dataset as dogs
from casl_bench.images import rendered_faces_dataset as faces
from casl_bench.images.drawing import Drawing
from casl_bench.worlds import wording_churches, wording_dogs, wording_faces
from casl_bench.worlds.captions import Wording


@dataclass(frozen=True)
class Domain:
    """What models of a synth world are trained on.

    Attributes:
        drawing: the renderer.
        wording: words of captions.

    Raises:
        ValueError: the words are not those of the drawing's attributes.
    """

    drawing: Drawing
    wording: Wording

    def __post_init__(self) -> None:
        if self.wording.attributes != self.drawing.attributes:
            raise ValueError(f"the words of {self.drawing.name} are of other attributes")

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.drawing.name


DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (
        Domain(faces.DRAWING, wording_faces.WORDING),
        Domain(dogs.DRAWING, wording_dogs.WORDING),
        Domain(churches.DRAWING, wording_churches.WORDING),
    )
}


def domain_named(name: str) -> Domain:
    """The domain of this data set.

    Raises:
        UsageError: there is none, with the nearest name offered.
    """
    if name not in DOMAINS:
        raise unknown_name("domain", name, DOMAINS)
    return DOMAINS[name]
