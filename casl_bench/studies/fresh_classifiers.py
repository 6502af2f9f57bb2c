"""Classifiers that nobody has seen: trained now, of other shapes, on pictures of their own.

Their seed is chosen by the one who re-judges, so no method can have been optimised against them.
Rendered domains only: a photograph cannot be drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import hash_json
from casl_bench.core.option_types import user_cache
from casl_bench.core.seeding import derive_seed
from casl_bench.domains.rendered import RENDERED
from casl_bench.domains.rendering.renderer import IMAGE_SIZE, Drawing
from casl_bench.models.attribute_classifier import AttributeClassifier, build_classifier
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.model_files import CARD, write_model
from casl_bench.models.random_numbers import generator
from casl_bench.training.degrade import degrade
from casl_bench.training.pools import RenderedPool, load_pool
from casl_bench.training.train_classifier import BLEND_SHARE, calibrate, examples
from casl_bench.training.trainer import cosine

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "fresh_plain": {"architecture": "plain", "widths": [24, 64, 96, 96]},
    "fresh_depthwise": {"architecture": "depthwise", "widths": [40, 80], "blocks": [2, 2]},
}
"""Other shapes than those shipped, of the two families that are known to learn these pictures."""

STEPS, IMAGES, BATCH = 200, 6_144, 96
LONGER = (1, 3, 9)
"""A classifier under its floor is trained anew, so many times as long."""

HELD_OUT = 1_024
LEARNING_RATE = 3e-3
FLOOR = 0.9
"""Least accuracy on any attribute of pictures that the training never saw."""


def fresh_classifiers(
    domain: str,
    seed: int,
    cache: Path | None = None,
    *,
    steps: int = STEPS,
    images: int = IMAGES,
    architectures: Mapping[str, Mapping[str, Any]] = ARCHITECTURES,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[AttributeClassifier, ...]:
    """Train classifiers of a rendered domain; the same seed gives the same ones on one machine.

    Those that are trained already are taken from the cache.

    Args:
        domain: one of `RENDERED`.
        seed: of the pictures and of the training.
        cache: folder of pictures and classifiers; in the user's cache folder where None.
        steps: of each training; more where these are not enough.
        images: to train on, each with its flip.
        architectures: name → what `build_classifier` takes.
        say: takes lines of progress.

    Raises:
        InvalidBenchmarkError: if one is under `FLOOR` on an attribute.
    """
    drawing = RENDERED[domain].drawing
    cache = cache or user_cache("casl_bench", "give --cache") / "fresh_classifiers"
    held_out = load_pool(drawing, HELD_OUT, seed, "rejudge_held_out", cache, flips=True)
    found = []
    for name, shape in architectures.items():
        for length in (steps * factor for factor in LONGER):
            key = hash_json(
                [drawing.revision, seed, name, shape, length, images, BATCH, LEARNING_RATE]
            )
            folder = cache / f"{domain}-{name}-{key[:16]}"
            if not (folder / CARD).exists():
                pool = load_pool(drawing, images, seed, "rejudge", cache, flips=True)
                _train(folder, name, shape, drawing, pool, held_out, seed, length)
            classifier = AttributeClassifier.load(folder)
            accuracy = _accuracy(classifier, held_out)
            say(f"{domain}: {name}, {length} steps, least accuracy {accuracy.min():.3f}")
            if accuracy.min() >= FLOOR:
                break
        else:
            worst = int(accuracy.argmin())
            raise InvalidBenchmarkError(
                f"'{name}' is right on {accuracy[worst]:.2f} of '{drawing.attributes[worst]}' only",
                where=domain,
                hint="give --steps or --images more",
            )
        found.append(classifier)
    return tuple(found)


def _train(
    folder: Path,
    name: str,
    shape: Mapping[str, Any],
    drawing: Drawing,
    pool: RenderedPool,
    held_out: RenderedPool,
    seed: int,
    steps: int,
) -> None:
    """Train one, calibrate it, and write it into a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "rejudge", name))
        network = build_classifier({**shape, "attributes": list(drawing.attributes)})
    network.train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * cosine(step / steps)
        rng = generator(seed, name, step)
        index = torch.randint(len(pool), (BATCH,), generator=rng)
        x, target = examples(pool, index, rng, BLEND_SHARE)
        logits = network(degrade(x, rng).contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits, target)
        if not math.isfinite(float(loss.detach())):
            raise InvalidBenchmarkError("the training diverged", where=name, hint="another --seed")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    rng = generator(seed, name, "calibration")
    x, target = examples(held_out, torch.arange(len(held_out)), rng, blend=0.5)
    with torch.no_grad():
        raw = in_micro_batches(network, degrade(x, rng))
    scale, bias = calibrate(raw, target)
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    config = {**shape, "attributes": list(drawing.attributes), "image_size": IMAGE_SIZE}
    write_model(
        folder,
        {**tensors, "calibration.scale": scale, "calibration.bias": bias},
        {"name": name, "config": config, "seed": seed, "steps": steps, "images": len(pool)},
    )


def _accuracy(classifier: AttributeClassifier, pool: RenderedPool) -> Tensor:
    """[A] on the undamaged pictures of a pool."""
    labels = torch.from_numpy(pool.factors.attributes)
    logits = classifier.logits(pool.batch(torch.arange(len(pool))))
    return ((logits > 0) == labels).float().mean(0)
