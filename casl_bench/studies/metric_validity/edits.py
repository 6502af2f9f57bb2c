"""The edits of the study, in families: the exact edit of a concept with more and more gone wrong.

An edit is described by factors before it is rendered, so its truth never depends on a picture or a
network. All random choices are nested: what is wrong at one level is wrong at the next one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.core.seeding import derive_seed
from casl_bench.domains.dataset import Concept
from casl_bench.domains.rendering.renderer import Drawing, Factors
from casl_bench.metrics.edit_scores import Array
from casl_bench.models.random_numbers import image_noise
from casl_bench.training.degrade import blur, compress

# The true change of an edit, from the rendered factors: no network is asked.

ATTRIBUTE_SD = 0.5
NUISANCE_SD = 12**-0.5


@dataclass(frozen=True)
class KnownChange:
    """Means over images of an edit, in standard deviations of the factors.

    Attributes:
        target: signed change of the target, + where it is turned on.
        effort: absolute change of the target, at least |target|.
        collateral: absolute changes of all other factors, summed over factors.
    """

    target: float
    effort: float
    collateral: float

    @property
    def precision(self) -> float:
        """Target / (effort + collateral): the share of all change that was asked for, in [-1, 1].

        Raises InputError where nothing was changed, so that there is nothing to be precise about.
        """
        if self.effort + self.collateral == 0:
            raise InputError("an edit that changes no factor has no precision")
        return self.target / (self.effort + self.collateral)


def known_change(
    before: Factors, start: Factors, end: Factors, share: float, target: int
) -> KnownChange:
    """The change from `before` to a picture that shows `share` of `end` and the rest of `start`.

    Args:
        before: factors of the n images that are edited, n >= 1; `start` and `end` are of the same.
        start: factors of the picture that is blended from.
        end: factors of the picture that is blended to.
        share: of `end`, in [0, 1]; 1 is `end` itself.
        target: column of the attribute that is to be turned on.

    Raises:
        InputError: if the three are not of the same images, or the share is out of its range.
    """
    ids = before.image_ids
    if len(ids) == 0 or not all(np.array_equal(ids, f.image_ids) for f in (start, end)):
        raise InputError("a change is known between factors of the same images, at least one")
    if not 0 <= share <= 1:
        raise InputError(f"a blend has a share in [0, 1], not {share}")
    was, first, last = (_standardised(f) for f in (before, start, end))
    moved = (1 - share) * first + share * last - was
    others = np.delete(np.abs(moved), target, axis=1)
    return KnownChange(
        target=float(moved[:, target].mean()),
        effort=float(np.abs(moved[:, target]).mean()),
        collateral=float(others.sum(1).mean()),
    )


def _standardised(factors: Factors) -> Array:
    attributes = factors.attributes.astype(np.float64) / ATTRIBUTE_SD
    nuisance = factors.nuisance.astype(np.float64) / NUISANCE_SD
    return np.concatenate([attributes, nuisance], axis=1)


Truth = Literal["precision", "damage"]

SEED = 0
OTHERS = 3
"""Other attributes, the next ones in the drawing's order, that `one_other` flips in turn."""
SHARES = (0.05, 0.10, 0.25, 0.50, 0.75, 1.0)
DRIFTS = (0.02, 0.05, 0.10, 0.20, 0.40)
BLURS = (0.4, 0.7, 1.0, 1.5, 2.0)
NOISES = (0.02, 0.05, 0.10, 0.20)
COMPRESSIONS = (2.0, 4.0, 7.0, 10.0)
STRENGTHS = (0.25, 0.5, 1.0)
BLENDS = (0.25, 0.40, 0.55, 0.70, 0.85)
WRONG_SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Subject:
    """What the edits of one concept, which are to turn its attribute on, start from.

    `lacking` are factors of n images that lack the attribute, `having` of n that have it.
    """

    drawing: Drawing
    concept: Concept
    lacking: Factors
    having: Factors

    @property
    def target(self) -> int:
        """Column of the attribute."""
        return self.drawing.index(self.concept.attribute)

    @property
    def others(self) -> tuple[str, ...]:
        """All other attributes, beginning with the one that follows the target."""
        names, t = self.drawing.attributes, self.target
        return names[t + 1 :] + names[:t]

    def rng(self, *purpose: str) -> np.random.Generator:
        """Random numbers of this concept and purpose."""
        keys = (self.drawing.name, self.concept.name, *purpose)
        return np.random.default_rng(derive_seed(SEED, "graded edits", *keys))


@dataclass(frozen=True, eq=False)
class GradedEdit:
    """One edit of n images: `share` of the picture of `end` over that of `start`, then `damage`.

    Attributes:
        level: how much of what the family is about.
        target: column of the attribute that is to be turned on.
        other: the attribute that is changed as well, where it is one.
        damage: spoils the finished pixels [n, 3, H, W]; None where nothing does.
    """

    family: str
    level: float
    target: int
    before: Factors
    start: Factors
    end: Factors
    share: float = 1.0
    other: str = ""
    damage: Callable[[Tensor], Tensor] | None = None

    @property
    def known(self) -> KnownChange:
        """What it does to the factors."""
        return known_change(self.before, self.start, self.end, self.share, self.target)


@dataclass(frozen=True)
class Family:
    """Edits that differ in one thing.

    Attributes:
        truth: what its levels differ in: the known precision, or damage that no factor shows.
        matched: whether the target is turned on entirely in every image, at every level.
        with_exact: whether the exact edit is its level 0.
        what: one sentence for the page.
        make: edits of a subject, made of the exact one.
    """

    name: str
    truth: Truth
    matched: bool
    with_exact: bool
    what: str
    make: Callable[[Subject, GradedEdit], list[GradedEdit]]

    def edits(self, subject: Subject) -> list[GradedEdit]:
        """All of them, without the exact one."""
        return self.make(subject, replace(exact(subject), family=self.name))


def exact(subject: Subject) -> GradedEdit:
    """The known edit: the attribute turned on, all else equal."""
    before = subject.lacking
    end = subject.drawing.flipped(before, subject.concept.attribute)
    return GradedEdit("exact", 0.0, subject.target, before, before, end)


def _one_other(subject: Subject, plain: GradedEdit) -> list[GradedEdit]:
    edits = []
    for other in subject.others[:OTHERS]:
        order = subject.rng("one_other", other).permutation(len(plain.end))
        for share in SHARES:
            end = subject.drawing.flipped(plain.end, other, _first(order, share))
            edits.append(replace(plain, level=share, end=end, other=other))
    return edits


def _several_others(subject: Subject, plain: GradedEdit) -> list[GradedEdit]:
    names = list(subject.others)
    subject.rng("several_others").shuffle(names)
    edits, end = [], plain.end
    for count, name in enumerate(names, start=1):
        end = subject.drawing.flipped(end, name)
        edits.append(replace(plain, level=float(count), end=end))
    return edits


def _identity_drift(subject: Subject, plain: GradedEdit) -> list[GradedEdit]:
    drawing = subject.drawing
    spared = {*drawing.scenery, *drawing.unread}
    columns = [k for k, name in enumerate(drawing.nuisance) if name not in spared]
    signs = subject.rng("identity_drift").choice([-1, 1], size=(len(plain.end), len(columns)))
    edits = []
    for step in DRIFTS:
        nuisance = plain.end.nuisance.copy()
        moved = nuisance[:, columns] + np.float32(step) * signs
        # A factor that would leave its range moves as far the other way.
        turned = nuisance[:, columns] - np.float32(step) * signs
        nuisance[:, columns] = np.where((moved < 0) | (moved >= 1), turned, moved)
        edits.append(replace(plain, level=step, end=replace(plain.end, nuisance=nuisance)))
    return edits


def _damaged(
    levels: Sequence[float], spoil: Callable[[Subject, float], Callable[[Tensor], Tensor]]
) -> Callable[[Subject, GradedEdit], list[GradedEdit]]:
    return lambda subject, plain: [
        replace(plain, level=v, damage=spoil(subject, v)) for v in levels
    ]


def _noise(subject: Subject, sigma: float) -> Callable[[Tensor], Tensor]:
    ids = [str(i) for i in subject.lacking.image_ids.tolist()]

    def add(pixels: Tensor) -> Tensor:
        return pixels + sigma * image_noise(pixels.shape[1:], ids, SEED, "graded noise")

    return add


def _unmatched(subject: Subject, plain: GradedEdit) -> list[GradedEdit]:
    other = subject.others[0]
    order = subject.rng("one_other", other).permutation(len(plain.end))
    edits = []
    for share in (0.0, 0.25, 0.5, 1.0):
        end = subject.drawing.flipped(plain.end, other, _first(order, share))
        edits += [replace(plain, level=s, share=s, end=end, other=other) for s in STRENGTHS]
    return edits


def _partial_target(subject: Subject, plain: GradedEdit) -> list[GradedEdit]:
    other = subject.others[0]
    start = subject.drawing.flipped(plain.before, other)
    end = subject.drawing.flipped(plain.end, other)
    edit = replace(plain, start=start, end=end, other=other)
    return [replace(edit, level=share, share=share) for share in (*BLENDS, 1.0)]


def _wrong_way(subject: Subject, plain: GradedEdit) -> list[GradedEdit]:
    edits = []
    for share in WRONG_SHARES:
        wrong = round(share * len(subject.lacking))
        lacking = subject.lacking[: len(subject.lacking) - wrong]
        before = Factors.concatenated([lacking, subject.having[:wrong]])
        end = subject.drawing.flipped(before, subject.concept.attribute)
        edits.append(replace(plain, level=share, before=before, start=before, end=end))
    return edits


def _first(order: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """The first places of an order; at least one where the share is not 0."""
    count = max(round(share * len(order)), 1 if share else 0)
    return order[:count]


def _percent(shares: Sequence[float]) -> str:
    return ", ".join(f"{100 * share:g}" for share in shares) + " %"


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "one_other", "precision", True, True,
            f"one other attribute is flipped as well in {_percent(SHARES)} of the images, for "
            f"each of the {OTHERS} attributes that follow the target in the drawing's list",
            _one_other,
        ),
        Family(
            "several_others", "precision", True, True,
            "1, 2, … all other attributes are flipped as well, in all images",
            _several_others,
        ),
        Family(
            "identity_drift", "precision", True, True,
            "all factors that make up the subject and can be read off a picture (shape, pose, "
            f"tones; not place and light) are moved by {_percent(DRIFTS)} of their range, each "
            "up or down at random",
            _identity_drift,
        ),
        Family(
            "wrong_way", "precision", False, True,
            f"in {_percent(WRONG_SHARES)} of the images the attribute is taken away instead "
            "(images that have it)",
            _wrong_way,
        ),
        Family(
            "partial_target", "precision", False, False,
            "another attribute is flipped in all images, and the target shows by a share of "
            f"{_percent((*BLENDS, 1.0))} (pixels blended)",
            _partial_target,
        ),
        Family(
            "unmatched_strength", "precision", False, False,
            "target and collateral (another attribute in none, 25, 50 and 100 % of the images) "
            f"are blended in together by {_percent(STRENGTHS)}: strength changes, precision does "
            "not",
            _unmatched,
        ),
        Family(
            "blur", "damage", True, True,
            f"Gaussian blur of {', '.join(map(str, BLURS))} pixels after the exact edit",
            _damaged(BLURS, lambda _, v: partial(blur, sigma=v)),
        ),
        Family(
            "noise", "damage", True, True,
            f"noise of standard deviation {', '.join(map(str, NOISES))} (pixels in [-1, 1])",
            _damaged(NOISES, _noise),
        ),
        Family(
            "compression", "damage", True, True,
            f"8×8 cosine blocks quantised as JPEG does, strength "
            f"{', '.join(f'{c:g}' for c in COMPRESSIONS)}",
            _damaged(COMPRESSIONS, lambda _, v: partial(compress, strength=v)),
        ),
    )
}  # fmt: skip
