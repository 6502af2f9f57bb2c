"""Rendered domains: images with known factors, and small models shipped with the package."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from casl_bench.core.errors import InvalidBenchmarkError, UsageError, unknown_name
from casl_bench.domains.domain import DOMAINS, Domain
from casl_bench.domains.options import DomainOptions
from casl_bench.domains.rendering import churches, dogs, faces
from casl_bench.domains.rendering.captions import Wording
from casl_bench.domains.rendering.renderer import Drawing
from casl_bench.domains.rendering.shipped import ASSETS as ASSETS
from casl_bench.domains.rendering.shipped import rendered_dataset
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import BACKBONES, Backbone
from casl_bench.models.clip import ClipModel, ClipScorer
from casl_bench.models.embedder import RenderEmbedder
from casl_bench.models.factor_regressor import FactorRegressor

CLASSIFIERS = ("classifier_plain", "classifier_depthwise", "classifier_residual")
"""The first one is primary: it chooses strengths and decides the headline columns."""

TUNING_CLASSIFIER = "classifier_tuning"


@dataclass(frozen=True)
class RenderedDomain:
    """A renderer, and the words of its attributes in which its pictures are described."""

    drawing: Drawing
    wording: Wording

    def __post_init__(self) -> None:
        if self.wording.attributes != self.drawing.attributes:
            raise ValueError(f"the words of {self.drawing.name} are of other attributes")

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.drawing.name


RENDERED: dict[str, RenderedDomain] = {
    domain.name: domain
    for domain in (
        RenderedDomain(faces.DRAWING, faces.WORDING),
        RenderedDomain(dogs.DRAWING, dogs.WORDING),
        RenderedDomain(churches.DRAWING, churches.WORDING),
    )
}


def rendered_domain(
    domain: str,
    device: str = "cpu",
    options: DomainOptions | None = None,
    assets: Path = ASSETS,
) -> Domain:
    """A rendered domain with its shipped models; options of photographs change nothing.

    Raises:
        InvalidBenchmarkError: if a shipped file is absent or damaged.
        UsageError: there is no such domain, or on a device that the small models do not use.
    """
    if domain not in RENDERED:
        raise unknown_name("domain", domain, RENDERED)
    folder = assets / domain
    if not folder.is_dir():
        raise InvalidBenchmarkError(
            "the shipped models are absent", where=str(folder), hint="install the package again"
        )
    if device != "cpu":
        raise UsageError(
            f"the synth domain runs on the CPU, not on '{device}'",
            hint="give --device cpu; its models are too small to gain from anything else",
        )
    return Domain(
        name="synth",
        dataset=rendered_dataset(RENDERED[domain].drawing, assets),
        backbone=BACKBONES.create(f"{domain}_unet", folder / "unet"),
        guide_clip=ClipModel.load(folder / "guide_clip"),
        score_clip=ClipScorer.load(folder / "score_clip"),
        classifiers=tuple(AttributeClassifier.load(folder / name) for name in CLASSIFIERS),
        embedder=RenderEmbedder.load(folder / "render_embedder"),
        factors=FactorRegressor.load(folder / "factor_regressor"),
        tuning_concepts=RENDERED[domain].drawing.tuning_concepts,
        tuning_classifier=AttributeClassifier.load(folder / TUNING_CLASSIFIER),
    )


for _name in RENDERED:
    BACKBONES.register(f"{_name}_unet", Backbone.from_folder)
    DOMAINS.register(_name, functools.partial(rendered_domain, _name))
