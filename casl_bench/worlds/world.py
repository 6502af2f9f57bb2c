"""A World: the only place that knows synth from real."""

from __future__ import annotations

from dataclasses import dataclass

from casl_bench.backbones.backbone import Backbone
from casl_bench.backbones.clip_model import ClipModel
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.registry import Registry
from casl_bench.images.dataset import Dataset
from casl_bench.scorers.attribute_classifier import AttributeClassifier
from casl_bench.scorers.clip_scorer import ClipScorer
from casl_bench.scorers.embedder import RenderEmbedder


@dataclass(frozen=True)
class World:
    """Everything a run needs for one data set, loaded and verified.

    Attributes:
        name: "synth" or "real"; printed with every table.
        dataset: images, concepts, attributes.
        backbone: the frozen diffusion model that every method edits.
        guide_clip: the CLIP that methods may train against.
        score_clip: the CLIP that scores: other weights than the guide's, or construction fails.
        classifiers: attribute classifiers, the primary one first.
        embedder: perceptual and identity distances.
    """

    name: str
    dataset: Dataset
    backbone: Backbone
    guide_clip: ClipModel
    score_clip: ClipScorer
    classifiers: tuple[AttributeClassifier, ...]
    embedder: RenderEmbedder

    def __post_init__(self) -> None:
        """Refuse a world in which a method would be marked by its own teacher."""
        if self.guide_clip.weights_hash == self.score_clip.info.weights_hash:
            raise InvalidBenchmarkError(
                "the CLIP that guides is the CLIP that scores",
                where=f"world '{self.name}', dataset '{self.dataset.card.name}'",
                mend="give the scorer other weights",
            )
        if not self.classifiers:
            raise InvalidBenchmarkError("a world needs at least one attribute classifier")

    @property
    def scorer_hashes(self) -> dict[str, str]:
        """Scorer name → hash of its weights."""
        infos = [c.info for c in self.classifiers] + [self.score_clip.info, self.embedder.info]
        return {info.name: info.weights_hash for info in infos}


WORLDS: Registry[World] = Registry("world of dataset", entry_point_group="casl_bench.worlds")
"""Data set name → factory(device) of its World."""
