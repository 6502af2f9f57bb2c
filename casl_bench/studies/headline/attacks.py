"""The red team: edits that are made to win and not to edit, and rows that are honest but simple.

Each is given what an entrant could get: the labelled training images, the shipped scorers with
their weights, and for some as many other pictures as it likes. None runs a diffusion model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.core.seeding import derive_seed
from casl_bench.domains.domain import Domain
from casl_bench.domains.rendering.renderer import Factors, to_pixels
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.precise_edits import FULL_FLIP, TOLERANCE
from casl_bench.models.factor_regressor import FactorRegressor
from casl_bench.models.scorers import Differentiable
from casl_bench.studies.headline.subjects import SEED, Subject

TRAIN, POOL = 128, 1_000
"""Training images that every task grants, and pictures that somebody with a renderer has."""

BLENDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
TEMPLATES = 6
STEPS, RATE, RADIUS = 60, 0.01, 0.12
"""Of the white-box attack: Adam's steps and rate, and the largest change of a value."""

RIDGE = 0.1
"""Of the attack's own classifier, against the mean square of an image."""

REGION = 0.15
"""Share of the pixels that are pasted."""

HELD = 2.0
"""What a change of the other attributes costs it, against what the target's brings."""

GOAL = 2.0
"""Logit of the target at which it rests: beyond the boundary, where it is sure."""

Kind = Literal["anchor", "attack", "honest"]


@dataclass
class RedTeam:
    """What the attacks on one domain know.

    Attributes:
        domain: with the shipped scorers alone.
        spreads: [K, A] of the shipped classifiers' logits.
        train: factors of the training images, whose labels are known.
        pool: factors of further pictures.
    """

    domain: Domain
    spreads: Array
    train: Factors
    pool: Factors
    render: Callable[[Factors], NDArray[np.uint8]]

    def pictures(self, factors: Factors) -> Tensor:
        """[n, 3, H, W] in [-1, 1]."""
        return to_pixels(self.render(factors))

    @cached_property
    def train_pictures(self) -> Tensor:
        """[TRAIN, 3, H, W]."""
        return self.pictures(self.train)

    @cached_property
    def pool_pictures(self) -> Tensor:
        """[POOL, 3, H, W]."""
        return self.pictures(self.pool)

    @cached_property
    def train_logits(self) -> Array:
        """[K, TRAIN, A] in sd."""
        return self.logits(self.train_pictures)

    @cached_property
    def pool_logits(self) -> Array:
        """[K, POOL, A] in sd."""
        return self.logits(self.pool_pictures)

    def logits(self, pictures: Tensor) -> Array:
        """[K, n, A] of the shipped classifiers, in sd."""
        rows = [c.logits(pictures).double().numpy() for c in self.domain.classifiers]
        return np.stack(rows) / self.spreads[:, None]


Strength = float
Edit = Callable[[Tensor, Strength], Tensor]
"""Pictures that lack the attribute [n, 3, H, W], and a strength → edited pictures."""


def _swap(team: RedTeam, subject: Subject, images: Tensor, pool: bool) -> Tensor:
    """The stranger that has the attribute and else the most similar logits, for each image."""
    logits, pictures = (
        (team.pool_logits, team.pool_pictures) if pool else (team.train_logits, team.train_pictures)
    )
    t = subject.target
    others = [j for j in range(logits.shape[2]) if j != t]
    own = team.logits(images)
    apart = np.abs(own[:, :, None, others] - logits[:, None, :, others]).max((0, 3))
    apart[:, (logits[:, :, t] <= 0).any(0)] = np.inf
    return pictures[torch.from_numpy(apart.argmin(1))]


def _half(images: Tensor, edited: Tensor) -> Tensor:
    """Every other image as it was."""
    keep = torch.arange(len(images)) % 2 == 0
    return torch.where(keep[:, None, None, None], images, edited)


def swap_half_train(team: RedTeam, subject: Subject) -> Edit:
    """Half of the images become one of the training images, the others stay."""
    return lambda x, _: _half(x, _swap(team, subject, x, pool=False))


def swap_half_pool(team: RedTeam, subject: Subject) -> Edit:
    """The same with other pictures to choose from."""
    return lambda x, _: _half(x, _swap(team, subject, x, pool=True))


def swap_all_pool(team: RedTeam, subject: Subject) -> Edit:
    """Every image becomes a stranger with equal other attributes."""
    return lambda x, _: _swap(team, subject, x, pool=True)


def swap_guarded(team: RedTeam, subject: Subject) -> Edit:
    """Of the strangers, the one of which the shipped scorers say the least that it is another.

    By attributes, known factors and identity together: what an attacker does who has read how the
    headline is computed.
    """

    def edit(x: Tensor, _: Strength) -> Tensor:
        pictures, logits, t = team.pool_pictures, team.pool_logits, subject.target
        others = [j for j in range(logits.shape[2]) if j != t]
        own = team.logits(x)
        apart = np.abs(own[:, :, None, others] - logits[:, None, :, others]).mean(0).max(2) / 2
        apart[:, (logits[:, :, t] <= 0).any(0)] = np.inf
        chosen = []
        reader = team.domain.factors
        of_pool = None if reader is None else reader.factors(pictures)
        for row, image in zip(apart, x, strict=True):
            near = torch.from_numpy(np.argsort(row)[:64])
            drift = torch.from_numpy(row)[near]
            alike = team.domain.embedder.identity_similarity(
                pictures[near], image[None].expand(len(near), -1, -1, -1)
            )
            if alike is not None:
                drift = torch.maximum(drift, 1 - alike.double())
            if reader is not None and of_pool is not None:
                moved = of_pool[near] - reader.factors(image[None])
                worst = reader.worst_change_of(moved, subject.concept.attribute)
                drift = torch.maximum(drift, worst.double())
            chosen.append(int(near[drift.argmin()]))
        return pictures[chosen]

    return edit


def soft_swap(team: RedTeam, subject: Subject) -> Edit:
    """Each image fades into a stranger, just so far that both shipped classifiers say yes."""

    def edit(x: Tensor, _: Strength) -> Tensor:
        strangers, result = _swap(team, subject, x, pool=True), x.clone()
        for share in reversed(BLENDS):
            faded = torch.lerp(x, strangers, share)
            result = torch.where(_seen(team, subject, faded), faded, result)
        return result

    return edit


def one_image(team: RedTeam, subject: Subject) -> Edit:
    """A perfect edit of the first image; nothing else is touched."""

    def edit(x: Tensor, _: Strength) -> Tensor:
        result = x.clone()
        result[0] = _exact(team, subject, x)[0]
        return result

    return edit


def exact_edit(team: RedTeam, subject: Subject) -> Edit:
    """The perfect edit: what an attack by image ids would give, could ids be read."""
    return lambda x, _: _exact(team, subject, x)


def _exact(team: RedTeam, subject: Subject, x: Tensor) -> Tensor:
    factors = subject.lacking[: len(x)]
    flipped = subject.drawing.flipped(factors, subject.concept.attribute)
    return x + team.pictures(flipped) - team.pictures(factors)


def _deceive(
    team: RedTeam, subject: Subject, x: Tensor, start: Tensor, with_factors: bool = False
) -> Tensor:
    """Pixels near `start` of which every shipped classifier says: as `x`, but with the attribute.

    Adam on the pixels within `RADIUS`, as Carlini & Wagner 2017 without their box constraint; on
    request the regressor of factors is told that nothing changed, too.
    """
    scorers = [c for c in team.domain.classifiers if isinstance(c, Differentiable)]
    scales = [torch.from_numpy(s).float() for s in team.spreads]
    before = [c.logits(x) for c in scorers]
    others = torch.arange(len(scales[0])) != subject.target
    reader = team.domain.factors if with_factors else None
    if isinstance(reader, FactorRegressor):
        kept = [i for i, name in enumerate(reader.columns) if name != subject.concept.attribute]
        known = reader.outputs(x)[:, kept]
    change = torch.zeros_like(x, requires_grad=True)
    optimiser = torch.optim.Adam([change], RATE)
    for _step in range(STEPS):
        seen = (start + change).clamp(-1, 1)
        loss = x.new_zeros(())
        for scorer, scale, was in zip(scorers, scales, before, strict=True):
            now = scorer.logits_with_grad(seen)
            short = (GOAL - now[:, subject.target]).clamp(min=0) / scale[subject.target]
            moved = ((now - was) / scale)[:, others]
            loss = loss + short.sum() + HELD * moved.abs().mean(1).sum()
        if isinstance(reader, FactorRegressor):
            loss = loss + HELD * (reader.outputs(seen)[:, kept] - known).abs().amax(1).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            change.clamp_(-RADIUS, RADIUS)
    return (start + change.detach()).clamp(-1, 1)


def white_box(team: RedTeam, subject: Subject) -> Edit:
    """Pixels that every shipped classifier is deceived by while its other logits stay."""
    return lambda x, _: _deceive(team, subject, x, x)


def hidden(team: RedTeam, subject: Subject) -> Edit:
    """`pixel_mean`, and pixels that hide from the shipped scorers what else it changes."""
    plain = pixel_mean(team, subject)
    return lambda x, s: _deceive(team, subject, x, plain(x, s).clamp(-1, 1), with_factors=True)


def pixel_mean(team: RedTeam, subject: Subject) -> Edit:
    """Mean picture of the training images that have the attribute, less that of those without."""
    has = torch.from_numpy(team.train.attributes[:, subject.target])
    change = team.train_pictures[has].mean(0) - team.train_pictures[~has].mean(0)
    return lambda x, strength: x + strength * change


def _templates(team: RedTeam, subject: Subject) -> Tensor:
    """[TRAIN, 3, H, W] what the attribute adds to each training image."""
    train = team.train
    on, off = train.attributes.copy(), train.attributes.copy()
    on[:, subject.target], off[:, subject.target] = True, False
    return team.pictures(replace(train, attributes=on)) - team.pictures(
        replace(train, attributes=off)
    )


def mean_template(team: RedTeam, subject: Subject) -> Edit:
    """What the attribute adds to a training image, averaged: one picture for all."""
    change = _templates(team, subject).mean(0)
    return lambda x, strength: x + strength * change


def nearest_template(team: RedTeam, subject: Subject) -> Edit:
    """What the attribute adds to the most similar training image."""
    templates = _templates(team, subject)

    def edit(x: Tensor, strength: Strength) -> Tensor:
        apart = torch.cdist(x.flatten(1), team.train_pictures.flatten(1))
        return x + strength * templates[apart.argmin(1)]

    return edit


def selective(team: RedTeam, subject: Subject) -> Edit:
    """`nearest_template` at the least strength that every shipped classifier says yes to.

    An image that none is enough for stays as it was.
    """
    return _least(team, subject, nearest_template(team, subject))


def selective_mean(team: RedTeam, subject: Subject) -> Edit:
    """The same of `pixel_mean`."""
    return _least(team, subject, pixel_mean(team, subject))


def _least(team: RedTeam, subject: Subject, plain: Edit) -> Edit:
    def edit(x: Tensor, _: Strength) -> Tensor:
        result = x.clone()
        for strength in reversed(STRENGTHS):
            tried = plain(x, strength)
            result = torch.where(_seen(team, subject, tried), tried, result)
        return result

    return edit


def best_template(team: RedTeam, subject: Subject) -> Edit:
    """Of the nearest templates at four strengths, what the shipped scorers like best, per image.

    By all that the headline asks of attributes, known factors and identity.
    """
    templates = _templates(team, subject)

    def edit(x: Tensor, _: Strength) -> Tensor:
        near = torch.cdist(x.flatten(1), team.train_pictures.flatten(1)).argsort(1)[:, :TEMPLATES]
        best, least = x.clone(), torch.full((len(x),), torch.inf, dtype=torch.float64)
        for place, strength in product(range(TEMPLATES), STRENGTHS[:4]):
            tried = (x + strength * templates[near[:, place]]).clamp(-1, 1)
            drift = _drift(team, subject, x, tried)
            drift[~_seen(team, subject, tried)[:, 0, 0, 0]] = torch.inf
            better = drift < least
            best[better], least[better] = tried[better], drift[better]
        return best

    return edit


def _moved(team: RedTeam, subject: Subject, x: Tensor, edited: Tensor) -> Tensor:
    """[n] how far the shipped classifiers see another attribute go."""
    moved = np.abs(team.logits(edited) - team.logits(x)).mean(0) / FULL_FLIP
    moved[:, subject.target] = 0
    return torch.from_numpy(moved.max(1))


def _drift(team: RedTeam, subject: Subject, x: Tensor, edited: Tensor) -> Tensor:
    """[n] how far the shipped scorers see anything else go."""
    drift = _moved(team, subject, x, edited)
    alike = team.domain.embedder.identity_similarity(edited, x)
    if alike is not None:
        drift = torch.maximum(drift, 1 - alike.double())
    if (reader := team.domain.factors) is not None:
        change = reader.factors(edited) - reader.factors(x)
        worst = reader.worst_change_of(change, subject.concept.attribute)
        drift = torch.maximum(drift, worst.double())
    return drift


def _seen(team: RedTeam, subject: Subject, x: Tensor) -> Tensor:
    """[n, 1, 1, 1] whether every shipped classifier says yes."""
    return torch.from_numpy((team.logits(x)[:, :, subject.target] > 0).all(0))[:, None, None, None]


def swap_hard(team: RedTeam, subject: Subject) -> Edit:
    """`selective`, and a stranger in place of each image that no strength is enough for."""
    plain = selective(team, subject)

    def edit(x: Tensor, strength: Strength) -> Tensor:
        edited = plain(x, strength)
        strangers = _swap(team, subject, x, pool=True)
        return torch.where(_seen(team, subject, edited), edited, strangers)

    return edit


def abstain(team: RedTeam, subject: Subject) -> Edit:
    """`nearest_template`, and the source where a shipped classifier sees anything else change."""
    plain = nearest_template(team, subject)

    def edit(x: Tensor, strength: Strength) -> Tensor:
        edited = plain(x, strength)
        sure = (_moved(team, subject, x, edited) <= TOLERANCE)[:, None, None, None]
        return torch.where(sure & _seen(team, subject, edited), edited, x)

    return edit


def own_classifier(team: RedTeam, subject: Subject) -> Edit:
    """`nearest_template`, its strengths chosen by a ridge regression on the training images."""
    plain = nearest_template(team, subject)
    small = F.avg_pool2d(team.train_pictures, 2).flatten(1)
    labels = 2 * torch.from_numpy(team.train.attributes[:, subject.target]).float() - 1
    middle, level = small.mean(0), labels.mean()
    rows = small - middle
    kernel = rows @ rows.T
    ridge = RIDGE * kernel.diagonal().mean() * torch.eye(len(rows))
    weights = rows.T @ torch.linalg.solve(kernel + ridge, labels - level)

    def edit(x: Tensor, _: Strength) -> Tensor:
        result = x.clone()
        for strength in reversed(STRENGTHS):
            tried = plain(x, strength)
            said = (F.avg_pool2d(tried, 2).flatten(1) - middle) @ weights + level
            result = torch.where((said > 0)[:, None, None, None], tried, result)
        return result

    return edit


def region_paste(team: RedTeam, subject: Subject) -> Edit:
    """Where images with and without the attribute differ most: the most similar one that has it."""
    has = torch.from_numpy(team.train.attributes[:, subject.target])
    donors = team.train_pictures[has]
    apart = (donors.mean(0) - team.train_pictures[~has].mean(0)).abs().amax(0)
    region = apart > apart.quantile(1 - REGION)

    def edit(x: Tensor, _: Strength) -> Tensor:
        near = torch.cdist((x * ~region).flatten(1), (donors * ~region).flatten(1)).argmin(1)
        return torch.where(region, donors[near], x)

    return edit


def _redrawn(team: RedTeam, subject: Subject, names: Sequence[str], x: Tensor) -> Tensor:
    """The perfect edit with factors of these names drawn anew, too."""
    factors = subject.lacking[: len(x)]
    ends = subject.drawing.flipped(factors, subject.concept.attribute)
    columns = [subject.drawing.nuisance.index(name) for name in names]
    nuisance = ends.nuisance.copy()
    rng = subject.rng("redrawn", *names)
    nuisance[:, columns] = rng.random((len(x), len(columns)), dtype=np.float32)
    return x + team.pictures(replace(ends, nuisance=nuisance)) - team.pictures(factors)


def other_scene(team: RedTeam, subject: Subject) -> Edit:
    """The perfect edit before another background, in another light."""
    names = [n for n in subject.drawing.scenery if n not in subject.drawing.unread]
    return lambda x, _: _redrawn(team, subject, names, x)


def other_subject(team: RedTeam, subject: Subject) -> Edit:
    """The perfect edit of somebody else, of other shape and pose, in the same place and light."""
    spared = {*subject.drawing.scenery, *subject.drawing.unread}
    names = [n for n in subject.drawing.nuisance if n not in spared]
    return lambda x, _: _redrawn(team, subject, names, x)


def untouched(team: RedTeam, subject: Subject) -> Edit:
    """Nothing is edited."""
    return lambda x, _: x


@dataclass(frozen=True)
class Attack:
    """A row of the attack table.

    Attributes:
        kind: an "anchor" of the scale, an "attack" with a bound, or an "honest" row without one.
        strengths: of which the best on validation images counts.
        what: one line for the page.
        make: the edit for one concept.
        over: of an attack that begins with an honest row: which, and so what it may gain over it.
    """

    kind: Kind
    what: str
    make: Callable[[RedTeam, Subject], Edit]
    strengths: tuple[float, ...] = (1.0,)
    over: str = ""


ATTACKS: dict[str, Attack] = {
    "exact": Attack("anchor", "the perfect edit (also: the oracle by image ids)", exact_edit),
    "untouched": Attack("anchor", "no edit", untouched),
    "swap_half_train": Attack(
        "attack", f"half of the images swapped for one of {TRAIN} training images", swap_half_train
    ),
    "swap_half_pool": Attack(
        "attack", f"the same from a pool of {POOL:,} pictures", swap_half_pool
    ),
    "swap_all_pool": Attack("attack", "all images swapped from the pool", swap_all_pool),
    "swap_guarded": Attack(
        "attack", "all swapped for the stranger that the shipped scorers mind least", swap_guarded
    ),
    "soft_swap": Attack("attack", "all faded into a stranger, just past the boundary", soft_swap),
    "one_image": Attack("attack", "one image edited perfectly, the others untouched", one_image),
    "white_box": Attack("attack", "pixels that deceive all shipped classifiers", white_box),
    "other_scene": Attack(
        "attack", "perfect edits before another background, in another light", other_scene
    ),
    "other_subject": Attack("attack", "perfect edits of another subject", other_subject),
    "selective": Attack(
        "attack", "nearest template, its strength chosen image by image by the shipped classifiers",
        selective, over="nearest_template",
    ),
    "selective_mean": Attack(
        "attack", "pixel mean difference, its strength chosen so", selective_mean, over="pixel_mean"
    ),
    "best_template": Attack(
        "attack", f"the best of {TEMPLATES} templates and four strengths, image by image, by all "
        "shipped scorers", best_template, over="nearest_template",
    ),
    "swap_hard": Attack(
        "attack", "the same, and a stranger in place of what no strength is enough for", swap_hard,
        over="nearest_template",
    ),
    "abstain": Attack(
        "attack", "nearest template, and the source where a shipped classifier sees more change",
        abstain, over="nearest_template",
    ),
    "own_classifier": Attack(
        "attack", "nearest template, strengths by a regression on the training images",
        own_classifier, over="nearest_template",
    ),
    "region_paste": Attack(
        "attack", "the region that differs most, from a training image with the attribute",
        region_paste,
    ),
    "hidden": Attack(
        "attack", "pixel mean difference, with pixels that hide from shipped scorers what else "
        "it changes", hidden, (0.75, 1.0, 1.5),
    ),
    "pixel_mean": Attack(
        "honest", "mean of labelled training images with, less without", pixel_mean, STRENGTHS
    ),
    "mean_template": Attack("honest", "mean re-render difference", mean_template, STRENGTHS),
    "nearest_template": Attack(
        "honest", "re-render difference of the nearest training image", nearest_template, STRENGTHS
    ),
}  # fmt: skip


def red_team(domain: Domain, spreads: Array, subject: Subject) -> RedTeam:
    """What is known of the domain that a subject is of."""
    drawing = subject.drawing
    train = drawing.sample(np.arange(TRAIN), derive_seed(SEED, drawing.name, "train"))
    pool = drawing.sample(np.arange(POOL), derive_seed(SEED, "red team", drawing.name))
    return RedTeam(domain, spreads, train, pool, drawing.render)
