"""The factors of a rendered image, as far as they can be read off it, in standard deviations.

Attributes are a share in [0, 1] of what shows, other factors are continuous; each is divided by its
standard deviation over the data set, so that a change of one compares with a change of another. A
circular factor (a hue, an angle) is read as the cosine and the sine of its turn. No classifier and
no guide uses this network.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError, unknown_name
from casl_bench.models.model_files import ModelFiles, ShippedModel
from casl_bench.models.scorers import CalibratedNetwork, ScorerInfo


class LookoutNet(nn.Module):
    """Convolutions to a grid, on which learned lookouts each find a place and what is there.

    Unlike the classifiers it reads positions from where its lookouts settle (the mean place under a
    softmax over the grid), not by what lies at fixed places. The first of the stages' `widths`
    keeps the unshuffled size, each further one halves it; `seen` numbers are what a lookout reports
    of its place, `hidden` is the width of the layer that joins all reports.
    """

    def __init__(
        self, outputs: int, widths: tuple[int, ...], lookouts: int, seen: int, hidden: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        for stage, (a, b) in enumerate(pairwise([12, *widths])):
            layers += [
                nn.Conv2d(a, b, 3, 1 if stage == 0 else 2, 1, bias=False),
                nn.BatchNorm2d(b),
                nn.SiLU(),
            ]
        self.features = nn.Sequential(*layers)
        last = widths[-1]
        self.refine = nn.Sequential(
            nn.Conv2d(last, last, 3, 1, 1, bias=False), nn.BatchNorm2d(last), nn.SiLU()
        )
        self.where = nn.Conv2d(last, lookouts, 1)
        self.what = nn.Conv2d(last, seen, 1)
        self.join = nn.Sequential(
            nn.BatchNorm1d(lookouts * (seen + 2)),
            nn.Linear(lookouts * (seen + 2), hidden),
            nn.SiLU(),
            nn.Linear(hidden, outputs),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1], H and W multiples of 4 → [n, C]."""
        x = self.features(pixels)
        x = x + self.refine(x)
        h, w = x.shape[-2:]
        place = torch.stack(
            torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        )
        seen = torch.cat([self.what(x), place.to(x.dtype).expand(len(x), 2, h, w)], 1)
        look = self.where(x).flatten(2).softmax(2)
        found: Tensor = self.join((look @ seen.flatten(2).transpose(1, 2)).flatten(1))
        return found


def build_regressor(config: Mapping[str, Any]) -> LookoutNet:
    """The network a card's `config` describes: {"architecture": "lookout", "columns": [...], …}."""
    if config["architecture"] != "lookout":
        raise ValueError(f"unknown regressor architecture '{config['architecture']}'")
    sizes = (
        len(config["columns"]), tuple(config["widths"]), config["lookouts"], config["seen"],
        config["hidden"],
    )  # fmt: skip
    if min(sizes[0], *sizes[1], *sizes[2:]) < 1:
        raise ValueError("a size under 1")
    return LookoutNet(*sizes)


class FactorRegressor(CalibratedNetwork, ShippedModel):
    """A frozen regressor of known factors.

    Args:
        info: its identity.
        attributes: names of the binary factors, in the order of the first columns.
        columns: [C] the factor that each column belongs to, attributes first; a circular factor
            has two neighbouring columns, cosine and sine.
        network: [n, 3, H, W] → [n, C] raw.
        scale: [C], multiplies what is raw.
        bias: [C], added after that; then an attribute is a logit and the rest is a reading.
        image_size: H = W that the network was made for.
    """

    def __init__(
        self,
        info: ScorerInfo,
        attributes: tuple[str, ...],
        columns: tuple[str, ...],
        network: nn.Module,
        scale: Tensor,
        bias: Tensor,
        image_size: int,
    ) -> None:
        super().__init__(info, network, scale, bias, image_size)
        self.attributes, self.columns = attributes, columns
        self.names = tuple(dict.fromkeys(columns))
        # One and the same column where a factor has only one.
        self._first = [columns.index(name) for name in self.names]
        self._last = [i + columns.count(columns[i]) - 1 for i in self._first]

    @classmethod
    def _of_files(cls, files: ModelFiles) -> Self:
        config, network = files.card["config"], files.network(build_regressor)
        info = ScorerInfo(files.card["name"], "factors", 1, files.weights_hash)
        attributes, columns = tuple(config["attributes"]), tuple(config["columns"])
        size, calibration = int(config["image_size"]), files.calibration(len(columns))
        return cls(info, attributes, columns, network, *calibration, size)

    @torch.no_grad()
    def factors(self, pixels: Tensor) -> Tensor:
        """Every factor less its mean, over its standard deviation in the data set: [n, C] float32.

        Columns as `columns`; an attribute is -1 where it is absent and 1 where it shows in full. A
        row depends on its image alone. Arguments and errors as `outputs`.
        """
        readings = self.outputs(pixels)
        k = len(self.attributes)
        # tanh(x / 2) = 2 sigmoid(x) - 1: a fair coin's share less 1/2, over its deviation 1/2.
        return torch.cat([torch.tanh(readings[:, :k] / 2), readings[:, k:]], 1)

    def shares(self, pixels: Tensor) -> Tensor:
        """How much of each attribute shows: [n, A] in [0, 1]. Arguments as `factors`."""
        return (self.factors(pixels)[:, : len(self.attributes)] + 1) / 2

    def changes(self, edited: Tensor, base: Tensor) -> Tensor:
        """How far each factor moved, whichever way: [n, F] >= 0, columns as `names`.

        Of a circular factor it is the root mean square of its two columns, so that drawing a factor
        anew changes a circular one as much (in mean square) as any other. Raises InputError: images
        of another size or number.
        """
        return self._changes(self._moved(edited, base))

    def factor_change(self, edited: Tensor, base: Tensor, attribute: str) -> tuple[Tensor, Tensor]:
        """What an edit did to the attribute that it was to change, and to everything else.

        Of images [n, 3, H, W] after and before it; returns what `change_of` does. Raises
        UsageError: there is no such attribute; InputError: images of another size or number.
        """
        return self.change_of(self._moved(edited, base), attribute)

    def change_of(self, moved: Tensor, attribute: str) -> tuple[Tensor, Tensor]:
        """`factor_change` where `factors` have been read: of their differences [n, C].

        Returns the signed change of the target [n], in [-2, 2], where 2 turns it on entirely, and
        the mean absolute change of all other factors [n], both in standard deviations. Raises
        UsageError: there is no such attribute.
        """
        if attribute not in self.attributes:
            raise unknown_name("attribute", attribute, self.attributes)
        k = self.attributes.index(attribute)
        others = self._changes(moved)
        others[:, k] = 0
        return moved[:, k], others.sum(1) / (len(self.names) - 1)

    def worst_change_of(self, moved: Tensor, *attributes: str) -> Tensor:
        """The largest change of a factor but these attributes: [n] >= 0, as share of its range.

        Of differences of `factors` [n, C]. An attribute's range is 2 standard deviations, that of a
        factor uniform on [0, 1) is sqrt(12). Raises UsageError: there is no such attribute.
        """
        for attribute in attributes:
            if attribute not in self.attributes:
                raise unknown_name("attribute", attribute, self.attributes)
        binary = torch.arange(len(self.names)) < len(self.attributes)
        shares = self._changes(moved) / torch.where(binary, 2.0, 12**0.5)
        shares[:, [self.attributes.index(a) for a in attributes]] = 0
        return shares.amax(1)

    def _moved(self, edited: Tensor, base: Tensor) -> Tensor:
        """Signed changes of all columns: [n, C]."""
        if len(edited) != len(base):
            raise InputError(
                f"{len(edited)} edited images for {len(base)} originals", where=self.info.name
            )
        return self.factors(edited) - self.factors(base)

    def _changes(self, moved: Tensor) -> Tensor:
        squares = moved.square()
        return ((squares[:, self._first] + squares[:, self._last]) / 2).sqrt()
