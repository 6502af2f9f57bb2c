"""The synth world: drawn images with known factors, and small models shipped with the package."""

from __future__ import annotations

import functools
from pathlib import Path

from casl_bench.backbones.backbone import BACKBONES, Backbone
from casl_bench.backbones.clip_model import ClipModel
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.images.rendered_dataset import RenderedDataset
from casl_bench.scorers.attribute_classifier import AttributeClassifier
from casl_bench.scorers.clip_scorer import ClipScorer
from casl_bench.scorers.embedder import RenderEmbedder
from casl_bench.scorers.factor_regressor import FactorRegressor
from casl_bench.worlds.domains import DOMAINS, domain_named
from casl_bench.worlds.options import WorldOptions
from casl_bench.worlds.world import WORLDS, World

ASSETS = Path(__file__).parent / "assets"
"""One folder a domain, one folder a model in it: weights, card, curve."""

CLASSIFIERS = ("classifier_plain", "classifier_depthwise")
"""The first one is primary: it chooses strengths and decides the headline columns."""


def synth_world(
    domain: str,
    device: str = "cpu",
    options: WorldOptions | None = None,
    assets: Path = ASSETS,
) -> World:
    """A rendered domain with its shipped models.

    Args:
        domain: name of its data set.
        device: where the backbone runs.
        options: of the real world; all that is needed here is shipped.
        assets: folder of shipped models.

    Raises:
        InvalidBenchmarkError: if a shipped file is absent or damaged.
        UsageError: there is no such domain, or on a device that the small models do not use.
    """
    drawing = domain_named(domain).drawing
    folder = assets / domain
    if not folder.is_dir():
        raise InvalidBenchmarkError(
            "the shipped models are absent", where=str(folder), mend="install the package again"
        )
    if device != "cpu":
        raise UsageError(
            f"the synth world runs on the CPU, not on '{device}'",
            mend="give --device cpu; its models are too small to gain from anything else",
        )
    return World(
        name="synth",
        dataset=RenderedDataset(drawing),
        backbone=BACKBONES.create(f"{domain}_unet", folder / "unet"),
        guide_clip=ClipModel.load(folder / "guide_clip"),
        score_clip=ClipScorer.load(folder / "score_clip"),
        classifiers=tuple(AttributeClassifier.load(folder / name) for name in CLASSIFIERS),
        embedder=RenderEmbedder.load(folder / "render_embedder"),
        factors=FactorRegressor.load(folder / "factor_regressor"),
    )


for _name in DOMAINS:
    BACKBONES.register(f"{_name}_unet", Backbone.from_folder)
    WORLDS.register(_name, functools.partial(synth_world, _name))
