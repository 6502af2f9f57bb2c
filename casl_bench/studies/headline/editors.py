"""Synthetic editors: edits of all concepts by one hand whose every mistake is known beforehand.

An editor misses images, flips the wrong attribute or another one as well, moves the subject, puts
strangers in the place of images, or leaves the target half transparent, each as often and as far as
its settings say. What it does to each image is written in factors before anything is rendered, so
its precision is known without a picture or a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from casl_bench.core.seeding import derive_seed
from casl_bench.domains.rendering.renderer import Factors
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.precise_edits import TOLERANCES
from casl_bench.studies.headline.subjects import ATTRIBUTE_SD, NUISANCE_SD, SEED, Subject

EDITORS = 24
"""Of each domain; the first three are the exact edit, no edit and a stranger for every image."""

SHOWN = 0.5
"""Share of an attribute from which on a picture shows it."""


@dataclass(frozen=True)
class Settings:
    """What an editor does wrong.

    Attributes:
        missed: share of the images that are left alone.
        swapped: share in whose place an unrelated image stands that has the attribute.
        wrong: share in which another attribute is flipped instead.
        others: share in which another attribute is flipped as well.
        drift: by how much of their range the factors of the subject move.
        shown: least share by which the edit is blended in; each image's is between it and 1.
    """

    missed: float = 0.0
    swapped: float = 0.0
    wrong: float = 0.0
    others: float = 0.0
    drift: float = 0.0
    shown: float = 1.0


@dataclass(frozen=True, eq=False)
class EditPlan:
    """One editor's edit of n images: `share` [n] of the picture of `end` over that of `before`."""

    before: Factors
    end: Factors
    share: Array


def settings_of(domain: str, number: int) -> Settings:
    """The settings of an editor, the same ones for every concept of a domain."""
    if number < 3:
        return (Settings(), Settings(missed=1.0), Settings(swapped=1.0))[number]
    rng = np.random.default_rng(derive_seed(SEED, "synthetic editor", domain, number))
    largest = {
        "missed": 0.7, "swapped": 0.5, "wrong": 0.3, "others": 0.9, "drift": 0.6, "shown": 0.7
    }  # fmt: skip
    chosen = {k: rng.uniform(0, v) if rng.random() < 0.4 else 0.0 for k, v in largest.items()}
    return Settings(**{**chosen, "shown": 1 - chosen["shown"]})


def plan(subject: Subject, number: int) -> EditPlan:
    """What an editor does to the images of a subject that lack its attribute."""
    drawing = subject.drawing
    settings, before = settings_of(drawing.name, number), subject.lacking
    n, rng = len(before), subject.rng("synthetic editor", str(number))
    ends = drawing.flipped(before, subject.concept.attribute)
    attributes, nuisance = ends.attributes.copy(), ends.nuisance.copy()
    # One number an image and mistake decides which images it befalls.
    missed, swapped, wrong, others = rng.random((4, n))
    columns = np.array([j for j in range(len(drawing.attributes)) if j != subject.target])
    another = rng.choice(columns, n)
    both = np.flatnonzero(others < settings.others)
    attributes[both, another[both]] ^= True
    attributes = np.where((wrong < settings.wrong)[:, None], before.attributes, attributes)
    instead = np.flatnonzero(wrong < settings.wrong)
    attributes[instead, another[instead]] = ~before.attributes[instead, another[instead]]
    spared = {*drawing.scenery, *drawing.unread}
    moving = [k for k, name in enumerate(drawing.nuisance) if name not in spared]
    step = np.float32(settings.drift) * rng.choice([-1, 1], (n, len(moving))).astype(np.float32)
    moved = nuisance[:, moving] + step
    nuisance[:, moving] = np.where((moved < 0) | (moved >= 1), nuisance[:, moving] - step, moved)
    nuisance = np.clip(nuisance, 0, np.nextafter(np.float32(1), np.float32(0)))
    strangers = swapped < settings.swapped
    donors = subject.having[rng.permutation(n)]
    attributes = np.where(strangers[:, None], donors.attributes, attributes)
    nuisance = np.where(strangers[:, None], donors.nuisance, nuisance)
    share = np.where(strangers, 1.0, rng.uniform(settings.shown, 1.0, n))
    share = np.where(missed < settings.missed, 0.0, share)
    return EditPlan(before, replace(ends, attributes=attributes, nuisance=nuisance), share)


def known_precise(edit: EditPlan, target: int, tolerances: Sequence[float] = TOLERANCES) -> Array:
    """[n] share of the tolerances at which each image is a precise edit by its factors alone.

    The target, absent before, shows by at least `SHOWN`, and no other factor, attribute or
    continuous, has moved by more than the tolerance, as a share of its range.
    """
    moved = edit.share[:, None] * _moved(edit)
    others = np.delete(np.abs(moved), target, axis=1).max(1)
    shown = moved[:, target] >= SHOWN
    precise: Array = (shown & (others <= np.array(tolerances)[:, None])).mean(0)
    return precise


def known_purity(edit: EditPlan, target: int) -> Array:
    """[n] target change over all change, in sd of the factors; 0 where the target does not show.

    As `KnownChange.precision`, image by image: another notion of precision, without a tolerance.
    """
    attributes = len(edit.before.attributes[0])
    moved = edit.share[:, None] * _moved(edit)
    moved[:, :attributes] /= ATTRIBUTE_SD
    moved[:, attributes:] /= NUISANCE_SD
    change = np.abs(moved).sum(1)
    shown = moved[:, target] * ATTRIBUTE_SD >= SHOWN
    purity: Array = np.divide(
        moved[:, target], change, out=np.zeros(len(change)), where=(change > 0) & shown
    )
    return purity


def _moved(edit: EditPlan) -> Array:
    """[n, F] from `before` to `end`, each factor as a share of its range, attributes first."""
    binary = edit.end.attributes.astype(np.float64) - edit.before.attributes
    continuous = edit.end.nuisance.astype(np.float64) - edit.before.nuisance
    return np.concatenate([binary, continuous], axis=1)


def described(settings: Settings) -> str:
    """The settings that are not the exact edit's, for a table."""
    plain = asdict(Settings())
    parts = [f"{k} {v:.2f}" for k, v in asdict(settings).items() if v != plain[k]]
    return ", ".join(parts) or "exact"
