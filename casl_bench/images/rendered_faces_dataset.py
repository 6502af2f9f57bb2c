"""The `rendered_faces` data set: drawn portraits with known factors and a true counterfactual."""

from __future__ import annotations

from casl_bench.images import rendered_faces
from casl_bench.images.dataset import DATASETS, Concept
from casl_bench.images.drawing import Drawing
from casl_bench.images.rendered_dataset import RenderedDataset

CONCEPTS: tuple[Concept, ...] = (
    Concept("smiling", "a sad face", "a smiling face", "smiling"),
    Concept("eyeglasses", "a face without eyeglasses", "a face with eyeglasses", "eyeglasses"),
    Concept("beard", "a face without a beard", "a face with a beard", "beard"),
    Concept("hat", "a face without a hat", "a face with a hat", "hat"),
    Concept("blond", "a face with dark hair", "a face with blond hair", "blond"),
    Concept("bangs", "a face without bangs", "a face with bangs", "bangs"),
    Concept("mouth_open", "a face with a closed mouth", "a face with an open mouth", "mouth_open"),
    Concept("pale", "a face with tan skin", "a face with pale skin", "pale"),
)
DRAWING = Drawing(
    name="rendered_faces",
    subject="portraits",
    attributes=rendered_faces.ATTRIBUTES,
    nuisance=rendered_faces.NUISANCE,
    scenery=rendered_faces.SCENERY,
    unread=rendered_faces.UNREAD,
    concepts=CONCEPTS,
    draw=rendered_faces.draw,
    source="casl_bench.images.rendered_faces",
)


class RenderedFaces(RenderedDataset):
    """Portraits drawn on request.

    Args:
        seed: of the data set; one seed has three splits that share no picture.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(DRAWING, seed)


DATASETS.register("rendered_faces", RenderedFaces)
