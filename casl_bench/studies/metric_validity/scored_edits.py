"""Graded edits → scores, by the very code that scores a method's edits.

Reconstructions are all but perfect here: noise as strong as the error of the benchmark's own
inversion is added to a picture and to its edit alike, so that there is a noise floor to speak of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.dataset import Concept
from casl_bench.domains.domain import World
from casl_bench.domains.rendering.renderer import Drawing, Factors, to_pixels
from casl_bench.metrics.epr import EPS
from casl_bench.metrics.metric import METRICS, EditMetric, MetricInfo, first_column
from casl_bench.models.random_numbers import image_noise
from casl_bench.results.record import Finite, Frozen
from casl_bench.results.score_table import Array, EditScores
from casl_bench.runs.scoring import Scorers
from casl_bench.studies.metric_validity.edits import SEED, GradedEdit, Subject
from casl_bench.studies.study_files import parse_lines, to_lines

SPLIT = "validation"
SPREAD_IMAGES = 128
"""Training images over which logits' standard deviations and unrelated pairs are taken."""
RECONSTRUCTION_NOISE = 0.0063
"""Standard deviation, pixels in [-1, 1]: 50 dB, as suite `standard` reconstructs."""


def subject_of(drawing: Drawing, concept: Concept, images: int) -> Subject:
    """The first validation images that lack the concept's attribute, and as many that have it.

    Args:
        drawing: the renderer.
        concept: what is edited.
        images: n of each.
    """
    stream = derive_seed(SEED, drawing.name, SPLIT)
    factors = drawing.sample(np.arange(8 * images + 64), stream)
    has = factors.attributes[:, drawing.index(concept.attribute)]
    return Subject(drawing, concept, factors[~has][:images], factors[has][:images])


class Renderer:
    """Draws each picture once: edits of a concept share most of theirs."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self._drawn: dict[tuple[bytes, bytes], Tensor] = {}

    def draw(self, factors: Factors) -> Tensor:
        """[n, 3, H, W] float32 in [-1, 1]."""
        return torch.stack([self._one(factors[i : i + 1]) for i in range(len(factors))])

    def _one(self, factors: Factors) -> Tensor:
        key = (factors.attributes.tobytes(), factors.nuisance.tobytes())
        if key not in self._drawn:
            self._drawn[key] = to_pixels(self.drawing.render(factors))[0]
        return self._drawn[key]

    def draw_edit(self, edit: GradedEdit) -> Tensor:
        """The finished pictures of an edit, [n, 3, H, W]."""
        pixels = self.draw(edit.end)
        if edit.share < 1:
            start = self.draw(edit.start)
            pixels = start + edit.share * (pixels - start)
        return pixels if edit.damage is None else edit.damage(pixels)


class Judge:
    """The scorers of a world.

    Args:
        world: a drawn one.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.scorers = Scorers(world)
        train = world.dataset.load("train", SPREAD_IMAGES)
        self.spreads: Array = self.scorers.logits(train.pixels).std(axis=1)
        self.unrelated = self.scorers.unrelated(_inversions(train.image_ids, train.pixels))

    def scores(
        self, concept: Concept, before: Factors, drawn: Tensor, edits: Sequence[Tensor]
    ) -> list[dict[str, EditScores]]:
        """Scores of edits of the same images.

        Args:
            concept: what is edited.
            before: factors of the n images.
            drawn: their pictures [n, 3, H, W].
            edits: S times [n, 3, H, W].

        Returns:
            For each edit: classifier → scores.
        """
        ids = tuple(f"{SPLIT}-{i:06d}" for i in before.image_ids.tolist())
        noise = _reconstruction_noise(ids, drawn)
        images = _inversions(ids, drawn, drawn + noise)
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


def _reconstruction_noise(ids: tuple[str, ...], drawn: Tensor) -> Tensor:
    return RECONSTRUCTION_NOISE * image_noise(drawn.shape[1:], ids, SEED, "reconstruction")


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
    """A metric on trial.

    Attributes:
        metric: the metric.
        registered: whether it is one of `METRICS`, or a plain alternative.
    """

    metric: EditMetric
    registered: bool


def candidates() -> list[Candidate]:
    """All registered metrics in order of name, then the alternatives."""
    found = [Candidate(METRICS.create(name), True) for name in METRICS.names()]
    return found + [Candidate(m, False) for m in (MEAN_OF_RATIOS, TARGET_MINUS_OTHERS)]


# What the study keeps: one JSON line each for the study, a scored edit and a side of a trick.


DIGITS = 5
"""Significant digits of a metric's value."""

Values = tuple[Finite | None, ...]


class MetricRef(Frozen):
    """A metric on trial.

    Attributes:
        name: lower_snake.
        version: as declared.
        title: as in a table.
        higher_is_better: as declared.
        registered: whether it is one of `METRICS`, or a plain alternative of this study.
    """

    name: str
    version: int
    title: str
    higher_is_better: bool | None
    registered: bool


class StudyHeader(Frozen):
    """What all other lines rest on.

    Attributes:
        kind: "study".
        version: of the study: of its edits, its truth and its tricks.
        command: that made the records.
        images: edited for each concept.
        split: that they are of.
        datasets: data set → revision.
        scorers: data set → scorer → hash of its weights.
        packages: versions of python and of the packages that decide numbers.
        metrics: in the order of an edit's `values`.
        metrics_of_tricks: in the order of a trick's `values`: the same, then EPR+.
    """

    kind: Literal["study"] = "study"
    version: int
    command: str
    images: int
    split: str
    datasets: dict[str, str]
    scorers: dict[str, dict[str, str]]
    packages: dict[str, str]
    metrics: tuple[MetricRef, ...]
    metrics_of_tricks: tuple[MetricRef, ...]


class EditRow(Frozen):
    """One graded edit of one concept, as one classifier and the other scorers see it.

    Attributes:
        kind: "edit".
        dataset: its name.
        concept: its name.
        family: of `FAMILIES`, or "exact".
        other: the attribute that is changed as well, where it is one.
        level: of the family.
        classifier: whose logits.
        precision: the known one, in [-1, 1].
        collateral: the known one, in standard deviations summed over factors.
        values: one a metric; None where undefined.
    """

    kind: Literal["edit"] = "edit"
    dataset: str
    concept: str
    family: str
    other: str = ""
    level: Finite
    classifier: str
    precision: Finite = Field(ge=-1, le=1)
    collateral: Finite = Field(ge=0)
    values: Values


class TrickRow(Frozen):
    """One side of a trick, over all cases that it was tried on.

    Attributes:
        kind: "trick".
        trick: its name.
        side: "before" or "after".
        classifier: whose logits; "linear" in the toy.
        cases: that it was tried on: (data set, concept) or (draw of the toy, target).
        values: medians over cases, one a metric; None where it is undefined in most cases.
        low: 5 % quantiles over cases.
        high: 95 % quantiles.
    """

    kind: Literal["trick"] = "trick"
    trick: str
    side: Literal["before", "after"]
    classifier: str
    cases: int
    values: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class StudyRecords:
    """The whole of it.

    Attributes:
        header: what it rests on.
        edits: in the order in which they were made.
        tricks: likewise.
    """

    header: StudyHeader
    edits: tuple[EditRow, ...]
    tricks: tuple[TrickRow, ...]

    def place(self, metric: str) -> int:
        """Where a metric stands in an edit's `values`.

        Raises:
            InvalidBenchmarkError: the records do not have it.
        """
        names = [m.name for m in self.header.metrics]
        if metric not in names:
            raise InvalidBenchmarkError(
                f"the study's records hold no metric '{metric}'", mend="make them anew"
            )
        return names.index(metric)

    def to_jsonl(self) -> str:
        """One line each, the header first; equal records give equal bytes."""
        return to_lines((self.header, *self.edits, *self.tricks))

    @classmethod
    def from_jsonl(cls, text: str, where: str = "") -> StudyRecords:
        """Read what `to_jsonl` wrote.

        Raises:
            InvalidBenchmarkError: on anything else.
        """
        header, edits, tricks = parse_lines(text, _parts, where)
        for rows, metrics in ((edits, header.metrics), (tricks, header.metrics_of_tricks)):
            if not {len(r.values) for r in rows} <= {len(metrics)}:
                raise InvalidBenchmarkError("rows and header differ in their metrics", where=where)
        return cls(header, tuple(edits), tuple(tricks))


def _parts(lines: list[Any]) -> tuple[StudyHeader, list[EditRow], list[TrickRow]]:
    first, *rest = lines
    return (
        StudyHeader.model_validate(first),
        [EditRow.model_validate(row) for row in rest if row["kind"] == "edit"],
        [TrickRow.model_validate(row) for row in rest if row["kind"] != "edit"],
    )


def rounded(value: float | None) -> float | None:
    """With `DIGITS` significant digits."""
    return None if value is None else float(f"{value:.{DIGITS}g}")
