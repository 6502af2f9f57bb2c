"""The `rendered_churches` data set: drawn churches with known factors and a true counterfactual."""

from __future__ import annotations

from casl_bench.images import rendered_churches
from casl_bench.images.dataset import DATASETS, Concept
from casl_bench.images.drawing import Drawing
from casl_bench.images.rendered_dataset import RenderedDataset

CONCEPTS: tuple[Concept, ...] = (
    Concept("brick", "a church with plaster walls", "a church with brick walls", "brick"),
    Concept("spire", "a church with a flat tower", "a church with a gothic spire", "spire"),
    Concept("dome", "a church without a dome", "a church with a dome", "dome"),
    Concept("snow", "a church without snow", "a church with snow", "snow"),
    Concept("night", "a church by day", "a church at night", "night"),
    Concept("tree", "a church without a tree", "a church with a tree", "tree"),
)
DRAWING = Drawing(
    name="rendered_churches",
    subject="churches",
    attributes=rendered_churches.ATTRIBUTES,
    nuisance=rendered_churches.NUISANCE,
    scenery=rendered_churches.SCENERY,
    unread=rendered_churches.UNREAD,
    concepts=CONCEPTS,
    draw=rendered_churches.draw,
    source="casl_bench.images.rendered_churches",
)


class RenderedChurches(RenderedDataset):
    """Churches drawn on request.

    Args:
        seed: of the data set; one seed has three splits that share no picture.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(DRAWING, seed)


DATASETS.register("rendered_churches", RenderedChurches)
