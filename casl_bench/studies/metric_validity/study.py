"""All of the study: graded edits and tricks, scored by the very code that scores a method's edits.

Reconstructions are all but perfect here: noise as strong as the error of the benchmark's own
inversion is added to an image and to its edit alike, so that there is a noise floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.dataset import Concept
from casl_bench.domains.domain import Domain
from casl_bench.domains.rendered import RENDERED, rendered_domain
from casl_bench.domains.rendering.renderer import Drawing, Factors, to_pixels
from casl_bench.metrics.edit_scores import Array, EditScores
from casl_bench.metrics.epr import EPS
from casl_bench.metrics.epr_plus import EPR_PLUS_INFO
from casl_bench.metrics.metric import METRICS, EditMetric, MetricInfo, first_column
from casl_bench.models.micro_batch import one_thread
from casl_bench.models.random_numbers import image_noise
from casl_bench.models.scorers import Differentiable
from casl_bench.results.provenance import package_versions
from casl_bench.runs.names import load_registries
from casl_bench.runs.scoring import Scorers
from casl_bench.studies.metric_validity.edits import FAMILIES, SEED, GradedEdit, Subject, exact
from casl_bench.studies.metric_validity.records import (
    EditRow,
    MetricRef,
    StudyHeader,
    StudyRecords,
    rounded,
)
from casl_bench.studies.metric_validity.tricks import (
    SIDES,
    Case,
    play_on_rows,
    play_on_toys,
    summarised,
    values_of,
)

STUDY_VERSION = 1
"""Raise it whenever an edit, its truth or a trick changes."""
COMMAND = "casl-bench study metric-validity"
SPLIT = "validation"
SPREAD_IMAGES = 128
"""Training images over which logits' standard deviations and unrelated pairs are taken."""
RECONSTRUCTION_NOISE = 0.0063
"""Standard deviation, pixels in [-1, 1]: 50 dB, as suite `standard` reconstructs."""


@one_thread()
def make_study(images: int, say: Callable[[str], None]) -> StudyRecords:
    """Render, edit and score every concept of every rendered data set, then play the tricks.

    Args:
        images: n per concept, of those that lack its attribute.
        say: takes lines of progress.
    """
    load_registries()
    metrics = candidates()
    rows: list[EditRow] = []
    cases: list[Case] = []
    revisions, hashes = {}, {}
    for name, rendered in RENDERED.items():
        domain = rendered_domain(name)
        scorers, card = StudyScorers(domain), domain.dataset.card
        revisions[name], hashes[name] = card.revision, domain.scorer_hashes
        rows += edit_rows(scorers, card.concepts, metrics, images=images, say=say)
        say(f"{name}: tricks")
        for concept in card.concepts:
            cases += play_on_images(metrics, scorers, subject_of(rendered.drawing, concept, images))
    say("linear tricks")
    cases += [*play_on_rows(rows), *play_on_toys(metrics)]
    refs = tuple(metric_ref(metric.info) for metric in metrics)
    header = StudyHeader(
        version=STUDY_VERSION,
        command=COMMAND,
        images=images,
        split=SPLIT,
        datasets=revisions,
        scorers=hashes,
        packages=package_versions(),
        metrics=refs,
        metrics_of_tricks=(*refs, metric_ref(EPR_PLUS_INFO)),
    )
    return StudyRecords(header, tuple(rows), tuple(summarised(cases)))


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


class StudyScorers:
    """The scorers of a rendered data set, with the spread of its logits [classifiers, A]."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.scorers = Scorers(domain)
        train = domain.dataset.load("train", SPREAD_IMAGES)
        self.spreads: Array = self.scorers.logits(train.pixels).std(axis=1)
        self.unrelated = self.scorers.unrelated(_inversions(train.image_ids, train.pixels))

    def scores(
        self, concept: Concept, before: Factors, rendered: Tensor, edits: Sequence[Tensor]
    ) -> list[dict[str, EditScores]]:
        """Classifier → scores, for each of S edits of the same n images.

        Args:
            concept: what is edited.
            before: factors of the images.
            rendered: their pictures [n, 3, H, W].
            edits: S times [n, 3, H, W].
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


# Plain alternatives to the registered metrics: on trial beside them, offered nowhere else.


def _per_image_ratio(scores: EditScores) -> Array:
    change = np.abs(scores.edit - scores.base)
    ratio: Array = change[:, scores.target] / (change[:, scores.others].mean(1) + EPS)
    return ratio[:, None]


def _difference(scores: EditScores) -> Array:
    change = (scores.edit - scores.base) / scores.spread
    gain = scores.sign * change[:, scores.target]
    difference: Array = gain - np.abs(change[:, scores.others]).mean(1)
    return difference[:, None]


ALTERNATIVES = (
    EditMetric(
        # mean_i |d_t(i)| / (mean_{j != t} |d_j(i)| + eps): EPR's ratio within each image.
        MetricInfo("mean_of_ratios", 1, True, "ratio", (0, None), "mean of per-image ratios"),
        _per_image_ratio,
        first_column,
    ),
    EditMetric(
        # mean_i sign d_t(i) / s_t - mean_{j != t} mean_i |d_j(i)| / s_j: a difference for a ratio.
        MetricInfo("target_minus_others", 1, True, "sd", (None, None),
                   "target change − other change"),
        _difference,
        first_column,
    ),
)  # fmt: skip


def candidates() -> list[EditMetric]:
    """The metrics on trial: all registered ones in order of name, then the alternatives."""
    return [*map(METRICS.create, METRICS.names()), *ALTERNATIVES]


def metric_ref(info: MetricInfo) -> MetricRef:
    """What records say of a metric on trial."""
    return MetricRef(
        name=info.name,
        version=info.version,
        title=info.title,
        higher_is_better=info.higher_is_better,
        registered=all(info is not metric.info for metric in ALTERNATIVES),
    )


def edit_rows(
    scorers: StudyScorers,
    concepts: Sequence[Concept],
    metrics: Sequence[EditMetric],
    *,
    images: int,
    families: Sequence[str] = tuple(FAMILIES),
    say: Callable[[str], None] = lambda _: None,
) -> list[EditRow]:
    """Scored edits of some concepts of a data set: the exact edit, then family by family."""
    dataset = scorers.domain.dataset.card.name
    drawing = RENDERED[dataset].drawing
    rows = []
    for concept in concepts:
        say(f"{dataset}: {concept.name}")
        subject, renderer = subject_of(drawing, concept, images), Renderer(drawing)
        edits = [exact(subject), *(e for name in families for e in FAMILIES[name].edits(subject))]
        # Edits of the same images are scored together.
        for _, group in groupby(edits, key=lambda e: (e.family, id(e.before))):
            together = list(group)
            before, rendered = together[0].before, [renderer.draw_edit(e) for e in together]
            scores = scorers.scores(concept, before, renderer.draw(before), rendered)
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
                    values=tuple(rounded(metric.value(own)) for metric in metrics),
                )
                for edit, by_classifier in zip(together, scores, strict=True)
                for classifier, own in by_classifier.items()
            ]
    return rows


# Tricks on rendered images: nothing is edited.

RADIUS = 8 / 127.5
"""Largest change of a value, pixels in [-1, 1]: 8 grey levels of 255."""
STEPS = 20
OTHERS_WEIGHT = 4.0
"""What a change of the others costs, against what the same change of the target brings."""
COPY_JITTER = 0.02
"""Standard deviation of the noise on a copy, pixels in [-1, 1]."""


def attacked(scorer: Differentiable, pixels: Tensor, target: int, spread: Array) -> Tensor:
    """Pictures within `RADIUS` of the given ones whose target logit is up and whose others stay.

    Projected signed gradient ascent, Madry et al. 2018.

    Args:
        scorer: the classifier that is deceived.
        pixels: [n, 3, H, W] in [-1, 1], as is the result.
        target: column to be turned on.
        spread: [A] standard deviation of each logit over real images, > 0.
    """
    scale = torch.from_numpy(spread).float()
    before = scorer.logits(pixels)
    others = torch.arange(len(scale)) != target
    change = torch.zeros_like(pixels)
    for _ in range(STEPS):
        change.requires_grad_(True)
        moved = (scorer.logits_with_grad(pixels + change) - before) / scale
        gain = moved[:, target] - OTHERS_WEIGHT * moved[:, others].abs().mean(1)
        (slope,) = torch.autograd.grad(gain.sum(), change)
        change = (change.detach() + RADIUS / 8 * slope.sign()).clamp(-RADIUS, RADIUS)
        change = (pixels + change).clamp(-1, 1) - pixels
    return pixels + change


def play_on_images(
    metrics: Sequence[EditMetric], scorers: StudyScorers, subject: Subject
) -> Iterator[Case]:
    """The tricks that edit nothing, on one concept; the first classifier is attacked."""
    deceived = scorers.domain.classifiers[0]
    assert isinstance(deceived, Differentiable)  # all that are shipped are
    images = to_pixels(subject.drawing.render(subject.lacking))
    right = to_pixels(subject.drawing.render(exact(subject).end))
    ids = [str(i) for i in subject.lacking.image_ids.tolist()]
    noise = COPY_JITTER * image_noise(images.shape[1:], ids, SEED, "jittered copy")
    edits = {
        "copy": images,
        "jittered_copy": images + noise,
        "pixel_attack": attacked(deceived, images, subject.target, scorers.spreads[0]),
    }
    given = [right, *edits.values()]
    exactly, *tried = scorers.scores(subject.concept, subject.lacking, images, given)
    for name, found in zip(edits, tried, strict=True):
        for classifier in exactly:
            for side, own in zip(SIDES, (exactly, found), strict=True):
                yield name, side, classifier, values_of(metrics, own[classifier])
