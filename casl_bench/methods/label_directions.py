"""Directions of h-space from labels: the mean difference, and the normal of a linear SVM.

Of a whole map [C, h, w]: concepts are local, so the positions of h are not pooled. Everything is
exact and takes no random number.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import ROUNDING

Normal = Literal["mean_difference", "svm"]
"""How two classes give a unit vector, see `StandardisedMaps`."""


def require_two_classes(labels: Tensor | None, attribute: str) -> Tensor:
    """The labels [n] bool. Raises InputError where there are none, or they are all alike."""
    if labels is None:
        raise InputError("a direction from labels needs labels in its task")
    if bool(labels.all()) or not bool(labels.any()):
        raise InputError(
            "the training images are all of one class",
            where=f"attribute '{attribute}'",
            hint="use more training images",
        )
    return labels


def mean_difference(values: Tensor, labels: Tensor) -> Tensor:
    """Mean of values [n, ...] with the attribute minus mean of those without: [...] float32.

    Of labels [n] bool both classes must be present. Sums in float64.
    """
    values = values.double()
    return (values[labels].mean(0) - values[~labels].mean(0)).float()


def unit(vector: Tensor) -> Tensor:
    """The vector [D], other than 0, at length 1."""
    scaled: Tensor = vector / vector.norm()
    return scaled


@dataclass(frozen=True)
class StandardisedMaps:
    """Maps of h as vectors of mean 0 and standard deviation 1.

    Attributes:
        x: [n, D] float64.
        mean: [D], of h.
        std: [D], of h; 1 where h does not vary.
        shape: (C, h, w) of a map.
    """

    x: Tensor
    mean: Tensor
    std: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, h: Tensor) -> StandardisedMaps:
        """Standardise maps h [n, C, h, w]."""
        x = h.flatten(1).double()
        mean, std = x.mean(0), x.std(0)
        std = torch.where(std > ROUNDING * x.abs().amax(0), std, 1.0)
        return cls((x - mean) / std, mean, std, h.shape[1:])

    def svm_normal(self, labels: Tensor, C: float) -> Tensor:
        """[D] unit normal of a linear SVM's hyperplane, towards the images with the attribute.

        Solved in its dual: n images have n coefficients, however many numbers a map has. `labels`
        are [n] bool, both classes present; C is the penalty per image where inner products are
        means over features, and a small one weighs all images alike.
        """
        # Without a state of its own it would take a global random number, and not use it.
        machine = _svc()(kernel="precomputed", C=C, tol=1e-6, random_state=0)
        machine.fit((self.x @ self.x.T / self.x.shape[1]).numpy(), labels.numpy())
        weights = torch.zeros(len(self.x), dtype=torch.float64)
        weights[torch.from_numpy(machine.support_).long()] = torch.from_numpy(machine.dual_coef_[0])
        return unit(weights @ self.x)

    def difference_normal(self, labels: Tensor) -> Tensor:
        """[D] unit vector from the mean of the images without the attribute to that with it."""
        return unit(self.x[labels].mean(0) - self.x[~labels].mean(0))

    def normal(self, kind: Normal, labels: Tensor, C: float) -> Tensor:
        """[D] the unit normal of one kind; C is the SVM's."""
        return self.svm_normal(labels, C) if kind == "svm" else self.difference_normal(labels)

    def direction(self, normal: Tensor, labels: Tensor) -> Tensor:
        """A unit vector [D] as [C, h, w] in the units of h, as long as the class means' distance.

        That is the distance along it, in standardised features.
        """
        distance = (self.x[labels].mean(0) - self.x[~labels].mean(0)) @ normal
        direction: Tensor = (distance * normal * self.std).reshape(self.shape).float()
        return direction


def _svc() -> Callable[..., Any]:
    """scikit-learn's SVC, imported on demand: a second that other methods should not pay."""
    state = random.getstate()  # which that import uses up
    from sklearn.svm import SVC

    random.setstate(state)
    svc: Callable[..., Any] = SVC
    return svc


def svm_direction(h: Tensor, labels: Tensor, C: float) -> Tensor:
    """Normal [C, h, w] float32 of a linear SVM, as long as the distance of the class means on it.

    Of h [n, C, h, w] and labels [n] bool, both classes present; see `StandardisedMaps`.
    """
    maps = StandardisedMaps.of(h)
    return maps.direction(maps.svm_normal(labels, C), labels)
