"""Graded edits → scores, by the very code that scores a method's edits.

Reconstructions are all but perfect here: noise as strong as the error of the benchmark's own
inversion is added to an image and to its edit alike, so that there is a noise floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.dataset import Concept
from casl_bench.domains.domain import Domain
from casl_bench.domains.rendered import domain_named
from casl_bench.domains.rendering.renderer import Drawing, Factors, to_pixels
from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.epr import EPS
from casl_bench.metrics.metric import METRICS, EditMetric, MetricInfo, first_column
from casl_bench.models.random_numbers import image_noise
from casl_bench.runs.scoring import Scorers
from casl_bench.studies.metric_validity.edits import FAMILIES, SEED, GradedEdit, Subject, exact
from casl_bench.studies.metric_validity.records import EditRow, MetricRef, rounded

SPLIT = "validation"
IMAGES = 64
"""Images per concept of those that lack its attribute, and of those that have it."""
SPREAD_IMAGES = 128
"""Training images over which logits' standard deviations and unrelated pairs are taken."""
RECONSTRUCTION_NOISE = 0.0063
"""Standard deviation, pixels in [-1, 1]: 50 dB, as suite `standard` reconstructs."""


def subject_of(drawing: Drawing, concept: Concept, images: int) -> Subject:
    """The first validation images that lack the concept's attribute, and as many that have it."""
    stream = derive_seed(SEED, drawing.name, SPLIT)
    factors = drawing.sample(np.arange(8 * images + 64), stream)
    has = factors.attributes[:, drawing.index(concept.attribute)]
    return Subject(drawing, concept, factors[~has][:images], factors[has][:images])


class Renderer:
    """Renders each picture once: edits of a concept share most of theirs."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self._rendered: dict[tuple[bytes, bytes], Tensor] = {}

    def draw(self, factors: Factors) -> Tensor:
        """[n, 3, H, W] float32 in [-1, 1]."""
        return torch.stack([self._one(factors[i : i + 1]) for i in range(len(factors))])

    def _one(self, factors: Factors) -> Tensor:
        key = (factors.attributes.tobytes(), factors.nuisance.tobytes())
        if key not in self._rendered:
            self._rendered[key] = to_pixels(self.drawing.render(factors))[0]
        return self._rendered[key]

    def draw_edit(self, edit: GradedEdit) -> Tensor:
        """The finished pictures of an edit, [n, 3, H, W]."""
        pixels = self.draw(edit.end)
        if edit.share < 1:
            start = self.draw(edit.start)
            pixels = start + edit.share * (pixels - start)
        return pixels if edit.damage is None else edit.damage(pixels)


class Judge:
    """The scorers of a rendered data set."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.scorers = Scorers(domain)
        train = domain.dataset.load("train", SPREAD_IMAGES)
        self.spreads: Array = self.scorers.logits(train.pixels).std(axis=1)
        self.unrelated = self.scorers.unrelated(_inversions(train.image_ids, train.pixels))

    def scores(
        self, concept: Concept, before: Factors, rendered: Tensor, edits: Sequence[Tensor]
    ) -> list[dict[str, EditScores]]:
        """Scores of edits of the same images.

        Args:
            concept: what is edited.
            before: factors of the n images.
            rendered: their pictures [n, 3, H, W].
            edits: S times [n, 3, H, W].

        Returns:
            For each edit: classifier → scores.
        """
        ids = tuple(f"{SPLIT}-{i:06d}" for i in before.image_ids.tolist())
        noise = RECONSTRUCTION_NOISE * image_noise(rendered.shape[1:], ids, SEED, "reconstruction")
        images = _inversions(ids, rendered, rendered + noise)
        places = [float(i) for i in range(1, len(edits) + 1)]
        edited = torch.stack([edit + noise for edit in edits])
        table, _ = self.scorers.table(concept, images, edited, places)
        return [
            {
                name: table.at(
                    place,
                    concept.attribute,
                    self.spreads[k],
                    classifier=name,
                    unrelated_perceptual=self.unrelated[0],
                    unrelated_identity=self.unrelated[1],
                )
                for k, name in enumerate(table.classifiers)
            }
            for place in places
        ]


def _inversions(
    ids: tuple[str, ...], images: Tensor, reconstruction: Tensor | None = None
) -> Inversions:
    """Images as scorers take them; nothing is inverted."""
    base = images if reconstruction is None else reconstruction
    return Inversions(ids, (0,), images, torch.zeros_like(images), base)


# Plain alternatives to the registered metrics: judged beside them, offered nowhere else.


def _per_image_ratio(scores: EditScores) -> Array:
    change = np.abs(scores.edit - scores.base)
    ratio: Array = change[:, scores.target] / (change[:, scores.others].mean(1) + EPS)
    return ratio[:, None]


def _difference(scores: EditScores) -> Array:
    change = (scores.edit - scores.base) / scores.spread
    gain = scores.sign * change[:, scores.target]
    difference: Array = gain - np.abs(change[:, scores.others]).mean(1)
    return difference[:, None]


MEAN_OF_RATIOS = EditMetric(
    # mean_i |d_t(i)| / (mean_{j != t} |d_j(i)| + eps): EPR's ratio within each image.
    MetricInfo("mean_of_ratios", 1, True, "ratio", (0, None), "mean of per-image ratios"),
    _per_image_ratio,
    first_column,
)
TARGET_MINUS_OTHERS = EditMetric(
    # mean_i sign d_t(i) / s_t - mean_{j != t} mean_i |d_j(i)| / s_j: a difference for a ratio.
    MetricInfo("target_minus_others", 1, True, "sd", (None, None), "target change − other change"),
    _difference,
    first_column,
)


@dataclass(frozen=True)
class Candidate:
    """A metric on trial: one of `METRICS`, or a plain alternative."""

    metric: EditMetric
    registered: bool


def candidates() -> list[Candidate]:
    """All registered metrics in order of name, then the alternatives."""
    found = [Candidate(METRICS.create(name), True) for name in METRICS.names()]
    return found + [Candidate(m, False) for m in (MEAN_OF_RATIOS, TARGET_MINUS_OTHERS)]


def metric_ref(info: MetricInfo, registered: bool) -> MetricRef:
    """What records say of a metric on trial."""
    return MetricRef(
        name=info.name,
        version=info.version,
        title=info.title,
        higher_is_better=info.higher_is_better,
        registered=registered,
    )


def edit_rows(
    judge: Judge,
    concepts: Sequence[Concept],
    metrics: Sequence[Candidate],
    *,
    images: int = IMAGES,
    families: Sequence[str] = tuple(FAMILIES),
    say: Callable[[str], None] = lambda _: None,
) -> list[EditRow]:
    """The scored edits of some concepts of one data set: the exact edit, then family by family.

    Args:
        judge: of the data set.
        concepts: those that are edited.
        metrics: on trial.
        images: n per concept.
        families: of the edits.
        say: is given the name of each concept that is begun.
    """
    dataset = judge.domain.dataset.card.name
    drawing = domain_named(dataset).drawing
    rows = []
    for concept in concepts:
        say(f"{dataset}: {concept.name}")
        subject, renderer = subject_of(drawing, concept, images), Renderer(drawing)
        edits = [exact(subject), *(e for name in families for e in FAMILIES[name].make(subject))]
        # Edits of the same images are scored together.
        for _, group in groupby(edits, key=lambda e: (e.family, id(e.before))):
            together = list(group)
            before, rendered = together[0].before, [renderer.draw_edit(e) for e in together]
            scores = judge.scores(concept, before, renderer.draw(before), rendered)
            rows += [
                EditRow(
                    dataset=dataset,
                    concept=concept.name,
                    family=edit.family,
                    other=edit.other,
                    level=edit.level,
                    classifier=classifier,
                    precision=round(edit.known.precision, 6),
                    collateral=round(edit.known.collateral, 6),
                    values=tuple(rounded(c.metric.value(own)) for c in metrics),
                )
                for edit, by_classifier in zip(together, scores, strict=True)
                for classifier, own in by_classifier.items()
            ]
    return rows
