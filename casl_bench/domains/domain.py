"""A Domain: the only place that knows synth from real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
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
        accuracy_floor: a classifier under this accuracy on any attribute of real images is refused
            (exit 5), where labels are known.
        tuning_concepts: what settings are tuned on; never among the data set's concepts, which are
            ranked, and of other attributes than these.
        tuning_classifier: what settings are tuned by; never a scorer. None where there is none.
    """

    name: str
    dataset: Dataset
    backbone: Backbone
    guide_clip: ClipModel
    score_clip: ClipScorer
    classifiers: tuple[AttributeScorer, ...]
    embedder: Similarity
    factors: FactorReader | None = None
    accuracy_floor: float = 0.9
    tuning_concepts: tuple[Concept, ...] = ()
    tuning_classifier: AttributeScorer | None = None

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
        names = [info.name for info in self._scorers()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidBenchmarkError(
                f"two scorers are called '{twice[0]}': records could not tell them apart",
                where=f"domain '{self.name}', dataset '{self.dataset.card.name}'",
                hint="name them otherwise (`name` of a classifier's description)",
            )
        self._check_tuning()

    def _check_tuning(self) -> None:
        """Refuse settings that would be chosen on what they are judged on, or by it."""
        where = f"domain '{self.name}', dataset '{self.dataset.card.name}'"
        ranked = {concept.attribute for concept in self.dataset.card.concepts}
        for concept in self.tuning_concepts:
            if concept.attribute in ranked:
                raise InvalidBenchmarkError(
                    f"the tuning concept '{concept.name}' is of an attribute that is ranked",
                    where=where,
                )
        if self.tuning_classifier is not None:
            tuner = self.tuning_classifier.info
            same = [i.name for i in self._scorers()
                    if i.name == tuner.name or i.weights_hash == tuner.weights_hash]  # fmt: skip
            if same:
                raise InvalidBenchmarkError(
                    f"the tuning classifier '{tuner.name}' is the scorer '{same[0]}'", where=where
                )

    def for_tuning(self) -> Domain:
        """The same domain with the tuning classifier for its only one.

        Raises UsageError where no concept is held out for tuning, or no classifier.
        """
        if self.tuning_classifier is None or not self.tuning_concepts:
            what = "concepts" if self.tuning_classifier is not None else "classifier"
            raise UsageError(
                f"no {what} to tune by",
                where=self.dataset.card.name,
                hint="settings are tuned on concepts and by a classifier that are never ranked by",
            )
        return replace(self, classifiers=(self.tuning_classifier,), tuning_classifier=None)

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


@dataclass(frozen=True)
class Preparation:
    """What a domain lacks and can make by itself, before it is opened."""

    what: str  # for people, such as "attribute classifier, …"
    make: Callable[[], None]  # takes up what an interrupted call has left


@runtime_checkable
class Prepares(Protocol):
    """A factory of `DOMAINS` that can make what its domain lacks."""

    def preparation(self, device: str, options: DomainOptions) -> Preparation | None:
        """What is to be made first; None where nothing is. Raises as opening the domain does."""
        ...


@runtime_checkable
class CountsBadImages(Protocol):
    """A data set that may leave unusable files out."""

    @property
    def bad_images(self) -> tuple[object, ...]:
        """Those left out so far."""
        ...


DOMAINS: Registry[Domain] = Registry("domain of dataset", entry_point_group="casl_bench.domains")
"""Data set name → what makes its domain: of a device, and of `DomainOptions` that it knows."""
