"""Rendered domains: images with known factors, and small models shipped with the package."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from casl_bench.core.errors import InvalidBenchmarkError, UsageError, unknown_name
from casl_bench.core.files import read_checked
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.domain import DOMAINS, Domain
from casl_bench.domains.options import DomainOptions
from casl_bench.domains.rendering import churches, dogs, faces
from casl_bench.domains.rendering.captions import Wording
from casl_bench.domains.rendering.renderer import Drawing, RenderedDataset
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import BACKBONES, Backbone
from casl_bench.models.clip import ClipModel, ClipScorer
from casl_bench.models.embedder import RenderEmbedder
from casl_bench.models.factor_regressor import FactorRegressor

ASSETS = Path(__file__).parent / "assets"
"""One folder per domain, one folder per model in it: weights, card, curve."""

CLASSIFIERS = ("classifier_plain", "classifier_depthwise", "classifier_residual")
"""The first one is primary: it chooses strengths and decides the headline columns."""

TUNING_CLASSIFIER = "classifier_tuning"

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


def rendered_dataset(domain: str, assets: Path = ASSETS) -> RenderedDataset:
    """The pictures of a domain, with the concepts that its U-Net's h carries.

    All of them where no gate was measured. Raises InvalidBenchmarkError on a damaged file.
    """
    path = assets / domain / "unet" / GATES
    gates = read_checked(Gates, path, "gates of a U-Net") if path.exists() else None
    return RenderedDataset(RENDERED[domain].drawing, gates.not_carried if gates else ())


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
        dataset=rendered_dataset(domain, assets),
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
    DATASETS.register(_name, functools.partial(rendered_dataset, _name))
    DOMAINS.register(_name, functools.partial(rendered_domain, _name))
