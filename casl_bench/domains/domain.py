"""A Domain: the only place that knows synth from real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.registry import Registry
from casl_bench.domains.dataset import Concept, Dataset, ImageBatch
from casl_bench.domains.options import DomainOptions
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel, ClipScorer
from casl_bench.models.scorers import AttributeScorer, FactorReader, ScorerInfo, Similarity


@dataclass(frozen=True)
class Domain:
    """Everything a run needs for one data set, loaded and verified.

    Attributes:
        name: "synth" or "real"; printed with every table.
        guide_clip: the CLIP that methods may train against.
        score_clip: the CLIP that scores: other weights than the guide's, or construction fails.
        classifiers: attribute classifiers, the primary one first.
        embedder: perceptual and identity distances.
        factors: reads the factors of a rendered image; None for photographs.
        tuning_concepts: on which settings are tuned; none of them is ranked.
        tuning_classifier: decides while settings are tuned, and never scores.
        accuracy_floor: a classifier under this accuracy on any attribute of real images is refused
            (exit 5), where labels are known.
    """

    name: str
    dataset: Dataset
    backbone: Backbone
    guide_clip: ClipModel
    score_clip: ClipScorer
    classifiers: tuple[AttributeScorer, ...]
    embedder: Similarity
    factors: FactorReader | None = None
    tuning_concepts: tuple[Concept, ...] = ()
    tuning_classifier: AttributeScorer | None = None
    accuracy_floor: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a domain in which a method would be marked by its own teacher."""
        if self.guide_clip.weights_hash == self.score_clip.info.weights_hash:
            raise InvalidBenchmarkError(
                "the CLIP that guides is the CLIP that scores",
                where=f"domain '{self.name}', dataset '{self.dataset.card.name}'",
                hint="give the scorer other weights",
            )
        if not self.classifiers:
            raise InvalidBenchmarkError("a domain needs at least one attribute classifier")
        hashes = {info.weights_hash for info in self._scorers()}
        if self.tuning_classifier and self.tuning_classifier.info.weights_hash in hashes:
            raise InvalidBenchmarkError(
                "the classifier that settings are tuned by also scores",
                where=f"domain '{self.name}', dataset '{self.dataset.card.name}'",
                hint="give one of the two other weights",
            )
        names = [info.name for info in self._scorers()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidBenchmarkError(
                f"two scorers are called '{twice[0]}': records could not tell them apart",
                where=f"domain '{self.name}', dataset '{self.dataset.card.name}'",
                hint="name them otherwise (`name` of a classifier's description)",
            )

    @property
    def scorer_hashes(self) -> dict[str, str]:
        """Scorer name → hash of its weights."""
        return {info.name: info.weights_hash for info in self._scorers()}

    def _scorers(self) -> list[ScorerInfo]:
        infos = [c.info for c in self.classifiers] + [self.score_clip.info, self.embedder.info]
        return infos if self.factors is None else [*infos, self.factors.info]

    def presence(self, batch: ImageBatch) -> Tensor:
        """[n, A] bool: which attributes an image has, as labelled or as the primary scorer sees it.

        Only for choosing images and for the probe. No method gets what a scorer saw.
        """
        if batch.attributes is not None:
            return batch.attributes
        return self.classifiers[0].logits(batch.pixels) > 0


@runtime_checkable
class FindsFaces(Protocol):
    """A similarity scorer that looks for a face, and may find none."""

    def faces_missed(self, images: Tensor) -> int | None:
        """Images [n, 3, H, W] in which none is found; None where none is looked for."""
        ...


class DomainFactory(Protocol):
    """Makes a domain; what it does not know of the options it passes over."""

    def __call__(self, device: str, options: DomainOptions | None = None) -> Domain:
        """The domain on a device."""
        ...


@runtime_checkable
class CountsBadImages(Protocol):
    """A data set that may leave unusable files out."""

    @property
    def bad_images(self) -> tuple[object, ...]:
        """Those left out so far."""
        ...


DOMAINS: Registry[Domain] = Registry("domain of dataset", entry_point_group="casl_bench.domains")
"""Data set name → `DomainFactory`."""
