"""Scorers that nobody has seen: trained now, of other shapes, on pictures of their own.

Classifiers of the attributes, and a regressor of the known factors. Their seed is chosen by the one
who re-judges, so no method can have been optimised against them. Rendered domains only: a
photograph cannot be drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import hash_json
from casl_bench.core.option_types import user_cache
from casl_bench.core.seeding import derive_seed
from casl_bench.domains.domain import Domain
from casl_bench.domains.rendered import RENDERED, rendered_domain
from casl_bench.domains.rendering.renderer import IMAGE_SIZE
from casl_bench.models.attribute_classifier import AttributeClassifier, build_classifier
from casl_bench.models.factor_regressor import FactorRegressor, build_regressor
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.model_files import CARD, write_model
from casl_bench.models.random_numbers import generator
from casl_bench.models.scorers import FactorReader
from casl_bench.training.degrade import degrade
from casl_bench.training.pools import RenderedPool, load_pool
from casl_bench.training.train_classifier import BLEND_SHARE, calibrate, examples
from casl_bench.training.train_factors import BLEND_SHARE as REGRESSOR_BLEND
from casl_bench.training.train_factors import Reading, circular_factors, finish
from casl_bench.training.trainer import cosine

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "fresh_plain": {"architecture": "plain", "widths": [24, 64, 96, 96]},
    "fresh_depthwise": {"architecture": "depthwise", "widths": [40, 80], "blocks": [2, 2]},
}
"""Other shapes than those shipped, of the two families that are known to learn these pictures."""

REGRESSOR = "fresh_regressor"
REGRESSOR_SHAPE: dict[str, Any] = {
    "architecture": "lookout", "widths": [32, 48], "lookouts": 20, "seen": 24, "hidden": 96,
}  # fmt: skip

STEPS, IMAGES, BATCH = 200, 6_144, 96
LONGER = (1, 3, 9)
"""A classifier under its floor is trained anew, so many times as long."""

HELD_OUT = 1_024
LEARNING_RATE = 3e-3
FLOOR = 0.9
"""Least accuracy on any attribute of pictures that the training never saw."""

_Train = Callable[[Path, str, Mapping[str, Any], int], None]
Net = TypeVar("Net", bound=nn.Module)


class FreshScorers:
    """Fresh scorers of one rendered domain; the same seed gives the same ones on one machine.

    Those that are trained already are taken from the cache.

    Args:
        domain: one of `RENDERED`.
        seed: of the pictures and of the training.
        cache: folder of pictures and networks; in the user's cache folder where None.
        steps: of each training; more where these are not enough.
        images: to train on, each with its flip.
        say: takes lines of progress.
    """

    def __init__(
        self,
        domain: str,
        seed: int,
        cache: Path | None = None,
        *,
        steps: int = STEPS,
        images: int = IMAGES,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.domain, self.drawing, self.seed = domain, RENDERED[domain].drawing, seed
        self.cache = cache or user_cache("casl_bench", "give --cache") / "fresh_scorers"
        self.steps, self.images, self.say = steps, images, say

    def classifiers(
        self, architectures: Mapping[str, Mapping[str, Any]] = ARCHITECTURES
    ) -> tuple[AttributeClassifier, ...]:
        """One of each shape, as `build_classifier` takes it.

        Raises InvalidBenchmarkError if one is under `FLOOR` on an attribute.
        """
        return tuple(self._classifier(name, shape) for name, shape in architectures.items())

    def _classifier(self, name: str, shape: Mapping[str, Any]) -> AttributeClassifier:
        for steps in (self.steps * factor for factor in LONGER):
            folder = self._trained(name, shape, steps, self._train_classifier)
            classifier = AttributeClassifier.load(folder)
            accuracy = _accuracy(classifier, self._pool(held_out=True))
            self.say(f"{self.domain}: {name}, {steps} steps, least accuracy {accuracy.min():.3f}")
            if accuracy.min() >= FLOOR:
                return classifier
        worst = int(accuracy.argmin())
        attribute = self.drawing.attributes[worst]
        raise InvalidBenchmarkError(
            f"'{name}' is right on {accuracy[worst]:.2f} of '{attribute}' only",
            where=self.domain,
            hint="give --steps or --images more",
        )

    def regressor(self) -> FactorRegressor:
        """One that reads the attributes, and of the other factors those that it has learned.

        It takes `LONGER[1]` times the steps, after which it reads about half of them.
        """
        steps = self.steps * LONGER[1]
        found = FactorRegressor.load(
            self._trained(REGRESSOR, REGRESSOR_SHAPE, steps, self._train_regressor)
        )
        self.say(f"{self.domain}: {REGRESSOR}, {steps} steps, reads {', '.join(found.names)}")
        return found

    def _pool(self, held_out: bool = False) -> RenderedPool:
        count, stream = (HELD_OUT, "rejudge_held_out") if held_out else (self.images, "rejudge")
        return load_pool(self.drawing, count, self.seed, stream, self.cache, flips=True)

    def _trained(self, name: str, shape: Mapping[str, Any], steps: int, train: _Train) -> Path:
        """Folder of a network, from the cache or trained now."""
        settings = [name, shape, steps, self.images, BATCH, LEARNING_RATE]
        key = hash_json([self.drawing.revision, self.seed, *settings])
        folder = self.cache / f"{self.domain}-{name}-{key[:16]}"
        if not (folder / CARD).exists():
            train(folder, name, shape, steps)
        return folder

    def _train_classifier(
        self, folder: Path, name: str, shape: Mapping[str, Any], steps: int
    ) -> None:
        """Train one, calibrate it, and write it into a folder."""
        attributes, pool, held_out = list(self.drawing.attributes), self._pool(), self._pool(True)
        network = self._network(name, lambda: build_classifier({**shape, "attributes": attributes}))

        def loss_of(index: Tensor, rng: torch.Generator) -> Tensor:
            x, target = examples(pool, index, rng, BLEND_SHARE)
            x = degrade(x, rng).contiguous(memory_format=torch.channels_last)
            return F.binary_cross_entropy_with_logits(network(x), target)

        self._optimise(network, name, steps, loss_of)
        rng = generator(self.seed, name, "calibration")
        x, target = examples(held_out, torch.arange(len(held_out)), rng, blend=0.5)
        with torch.no_grad():
            raw = in_micro_batches(network, degrade(x, rng))
        config = {**shape, "attributes": attributes, "image_size": IMAGE_SIZE}
        self._write(folder, name, config, network, calibrate(raw, target), steps)

    def _train_regressor(
        self, folder: Path, name: str, shape: Mapping[str, Any], steps: int
    ) -> None:
        """The same of the regressor; factors that it cannot read are left out."""
        reading = Reading(self.drawing, circular_factors(self.drawing))
        pool = self._pool()
        targets = reading.targets(pool.factors)
        network = self._network(
            name, lambda: build_regressor({**shape, "columns": list(reading.columns)})
        )

        def loss_of(index: Tensor, rng: torch.Generator) -> Tensor:
            x, share = examples(pool, index, rng, REGRESSOR_BLEND)
            found = network(degrade(x, rng).contiguous(memory_format=torch.channels_last))
            a = share.shape[1]
            showing = F.binary_cross_entropy_with_logits(found[:, :a], share)
            return showing + F.mse_loss(found[:, a:], targets[index])

        self._optimise(network, name, steps, loss_of)
        found, _ = finish(network, reading, self._pool(held_out=True), self.seed)
        config = {
            **shape,
            "attributes": list(self.drawing.attributes),
            "columns": list(found.columns),
            "image_size": IMAGE_SIZE,
        }
        self._write(folder, name, config, network, (found.scale, found.bias), steps)

    def _network(self, name: str, build: Callable[[], Net]) -> Net:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "rejudge", name))
            return build()

    def _optimise(
        self,
        network: nn.Module,
        name: str,
        steps: int,
        loss_of: Callable[[Tensor, torch.Generator], Tensor],
    ) -> None:
        network.train().to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-3)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * cosine(step / steps)
            rng = generator(self.seed, name, step)
            loss = loss_of(torch.randint(self.images, (BATCH,), generator=rng), rng)
            if not math.isfinite(float(loss.detach())):
                raise InvalidBenchmarkError(
                    "the training diverged", where=name, hint="another --seed"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)

    def _write(
        self,
        folder: Path,
        name: str,
        config: Mapping[str, Any],
        network: nn.Module,
        calibration: tuple[Tensor, Tensor],
        steps: int,
    ) -> None:
        tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
        tensors |= {"calibration.scale": calibration[0], "calibration.bias": calibration[1]}
        about = {"seed": self.seed, "steps": steps, "images": self.images}
        write_model(folder, tensors, {"name": name, "config": dict(config), **about})


def _accuracy(classifier: AttributeClassifier, pool: RenderedPool) -> Tensor:
    """[A] on the undamaged pictures of a pool."""
    labels = torch.from_numpy(pool.factors.attributes)
    logits = classifier.logits(pool.batch(torch.arange(len(pool))))
    return ((logits > 0) == labels).float().mean(0)


def fresh_domain(
    name: str,
    seed: int,
    cache: Path | None = None,
    *,
    steps: int = STEPS,
    images: int = IMAGES,
    say: Callable[[str], None] = lambda _: None,
) -> Domain:
    """A rendered domain with fresh classifiers and a fresh regressor; see `FreshScorers`."""
    shipped = rendered_domain(name)
    fresh = FreshScorers(name, seed, cache, steps=steps, images=images, say=say)
    assert shipped.factors is not None
    factors = BothReaders(shipped.factors, fresh.regressor())
    return replace(shipped, classifiers=fresh.classifiers(), factors=factors)


class BothReaders:
    """A shipped reader of factors and a fresh one: what either sees change has changed.

    A regressor that is trained in minutes does not read all factors, and what the shipped one sees
    need not be seen twice.
    """

    def __init__(self, shipped: FactorReader, fresh: FactorReader) -> None:
        self.info, self.names = fresh.info, shipped.names
        self._readers = (shipped, fresh)

    def factors(self, pixels: Tensor) -> Tensor:
        """What both read, side by side: [n, C + D]."""
        read = [reader.factors(pixels) for reader in self._readers]
        self._columns = read[0].shape[1]
        return torch.cat(read, 1)

    def change_of(self, moved: Tensor, attribute: str) -> tuple[Tensor, Tensor]:
        """As the shipped reader says."""
        return self._readers[0].change_of(moved[:, : self._columns], attribute)

    def worst_change_of(self, moved: Tensor, *attributes: str) -> Tensor:
        """The larger of both."""
        parts = moved[:, : self._columns], moved[:, self._columns :]
        found = [
            r.worst_change_of(m, *attributes) for r, m in zip(self._readers, parts, strict=True)
        ]
        return torch.maximum(*found)
