"""The `rendered_dogs` data set: drawn dogs with known factors and a true counterfactual."""

from __future__ import annotations

from casl_bench.images import rendered_dogs
from casl_bench.images.dataset import DATASETS, Concept
from casl_bench.images.drawing import Drawing
from casl_bench.images.rendered_dataset import RenderedDataset

CONCEPTS: tuple[Concept, ...] = (
    Concept("tongue", "a dog with a closed mouth", "a dog with its tongue out", "tongue"),
    Concept("ears_up", "a dog with floppy ears", "a dog with pointed ears", "ears_up"),
    Concept("light_fur", "a dog with dark fur", "a dog with golden fur", "light_fur"),
    Concept("spots", "a dog without spots", "a dog with spots", "spots"),
    Concept("collar", "a dog without a collar", "a dog with a collar", "collar"),
    Concept("eyes_closed", "a dog with open eyes", "a dog with closed eyes", "eyes_closed"),
)
DRAWING = Drawing(
    name="rendered_dogs",
    subject="dogs",
    attributes=rendered_dogs.ATTRIBUTES,
    nuisance=rendered_dogs.NUISANCE,
    scenery=rendered_dogs.SCENERY,
    unread=rendered_dogs.UNREAD,
    concepts=CONCEPTS,
    draw=rendered_dogs.draw,
    source="casl_bench.images.rendered_dogs",
)


class RenderedDogs(RenderedDataset):
    """Dogs drawn on request.

    Args:
        seed: of the data set; one seed has three splits that share no picture.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(DRAWING, seed)


DATASETS.register("rendered_dogs", RenderedDogs)
