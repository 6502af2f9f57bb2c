"""Train an attribute classifier: `casl-bench train classifier --help`.

Pictures are spoilt as edits spoil them, and a share is blended with their own re-render with one
attribute flipped, labelled by the share of it that shows: so a half-made edit gets a logit near 0
and logits stay graded where a plain classifier would jump.
"""

from __future__ import annotations

from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from casl_bench.core.option_types import BoundedInt
from casl_bench.domains.rendering.renderer import IMAGE_SIZE
from casl_bench.metrics.scorer_validation import calibration_error
from casl_bench.models.attribute_classifier import build_classifier
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.random_numbers import generator
from casl_bench.training.degrade import degrade
from casl_bench.training.pools import RenderedPool
from casl_bench.training.trainer import (
    ScorerTraining,
    accuracy,
    means_of_flips,
    per_attribute,
    rounded_to_half,
    training_options,
)

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "plain": {"architecture": "plain", "widths": [24, 48, 96, 128]},
    "depthwise": {"architecture": "depthwise", "widths": [48, 96], "blocks": [1, 3]},
    "residual": {"architecture": "residual", "widths": [24, 48, 96]},
    "tuning": {"architecture": "plain", "widths": [16, 40, 80, 96]},
}
"""The first three score; the last one, of other widths and data, only tunes settings."""
POOL_SEEDS = {"tuning": 1}
BLEND_SHARE = 0.3


def examples(
    pool: RenderedPool, index: Tensor, rng: torch.Generator, blend: float
) -> tuple[Tensor, Tensor]:
    """Pictures [n, 3, H, W] in [-1, 1] and soft labels [n, A] in [0, 1].

    A share `blend` of rows is a mixture of a picture and its flip.
    """
    labels, other, _ = pool.flipped_labels(index)
    share = torch.rand(len(index), generator=rng)
    # Unblended rows are the picture or its flip, whole.
    mixed = torch.rand(len(index), generator=rng) < blend
    share = torch.where(mixed, share, share.round())
    x = torch.lerp(pool.batch(index), pool.batch(index, flipped=True), share[:, None, None, None])
    return x, torch.lerp(labels.float(), other.float(), share[:, None])


def calibrate(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Scale [A] > 0 and bias [A] for each attribute that minimise the cross-entropy.

    Logits [n, A] are raw, targets [n, A] in [0, 1].
    """
    logits, targets = logits.double(), targets.double()
    log_scale = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros_like(log_scale, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_scale, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(logits * log_scale.exp() + bias, targets)
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    return log_scale.exp().detach().float(), bias.detach().float()


def measure(
    network: nn.Module, scale: Tensor, bias: Tensor, pool: RenderedPool, seed: int
) -> dict[str, Any]:
    """What the card says, on pictures the training never saw."""
    index = torch.arange(len(pool))

    def score(x: Tensor) -> Tensor:
        return in_micro_batches(network, x) * scale + bias

    with torch.no_grad():
        labels, other, column = pool.flipped_labels(index)
        clean, flipped = score(pool.batch(index)), score(pool.batch(index, flipped=True))
        rng = generator(seed, "classifier_held_out")
        spoilt = score(degrade(pool.batch(index), rng, clean=0.0))
        mixed, soft = examples(pool, index, rng, blend=0.5)
        mixed_logits = score(degrade(mixed, rng))
    rows = torch.arange(len(index))
    # In units of each logit's spread, so that attributes can be compared.
    change = (flipped - clean) / clean.std(0).clamp_min(1e-6)
    own = change[rows, column]
    right = (own * (other[rows, column].float() * 2 - 1) > 0).float()
    leak = change.abs()
    leak[rows, column] = 0
    leak = leak.sum(1) / (labels.shape[1] - 1)

    return {
        "accuracy_clean": accuracy(pool.attributes, clean, labels),
        "accuracy_degraded": accuracy(pool.attributes, spoilt, labels),
        "calibration_error_blended": per_attribute(
            pool.attributes, torch.from_numpy(calibration_error(mixed_logits, soft))
        ),
        "logit_spread_clean": per_attribute(pool.attributes, clean.std(0)),
        "flip_sign_right": per_attribute(pool.attributes, means_of_flips(right, column)),
        "flip_change_in_spreads": per_attribute(pool.attributes, means_of_flips(own.abs(), column)),
        "flip_leakage_in_spreads": per_attribute(pool.attributes, means_of_flips(leak, column)),
    }


@click.command("classifier")
@click.option("--architecture", type=click.Choice(sorted(ARCHITECTURES)), required=True)
@click.option("--batch-size", type=BoundedInt(), default=128, show_default=True)
@training_options(seed=1)
def main(training: ScorerTraining, architecture: str, batch_size: int) -> None:
    """Train, calibrate, measure and publish one classifier."""
    name, drawing, seed = f"classifier_{architecture}", training.drawing, training.seed
    settings = {
        **ARCHITECTURES[architecture],
        "attributes": list(drawing.attributes),
        "image_size": IMAGE_SIZE,
    }
    pool_seed = POOL_SEEDS.get(architecture, 0)
    pool = training.rendered_pool(seed=pool_seed)
    run, network = training.begin(
        name, lambda: build_classifier(settings), learning_rate=3e-3, network=settings,
        batch_size=batch_size, blend_share=BLEND_SHARE,
    )  # fmt: skip
    for step in run.steps():
        rng = generator(seed, name, step)
        index = torch.randint(len(pool), (batch_size,), generator=rng)
        x, target = examples(pool, index, rng, BLEND_SHARE)
        x = degrade(x, rng).contiguous(memory_format=torch.channels_last)
        with training.autocast():
            logits = network(x)
        loss = F.binary_cross_entropy_with_logits(logits.float(), target)
        whole = (target == target.round()).all(1)
        hits = ((logits > 0) == (target > 0.5))[whole].float().mean()
        run.update(loss, accuracy=float(hits))
    shipped = rounded_to_half(run.average)
    held_out = training.rendered_pool("calibration")
    rng = generator(seed, name, "calibration")
    x, target = examples(held_out, torch.arange(len(held_out)), rng, blend=0.5)
    with torch.no_grad():
        raw = in_micro_batches(shipped, degrade(x, rng))
    scale, bias = (v.half().float() for v in calibrate(raw, target))
    training.publish(
        run, shipped, settings, (scale, bias),
        title=f"Attribute classifier `{name}` of {training.name}",
        description=f"Multi-label attribute logits of rendered {drawing.subject}, calibrated for "
        "each attribute (scale and bias) on a separate pool of spoilt and blended pictures. Trained"
        " with blur, noise, compression, resampling, small shifts and light changes, and on "
        "pictures blended with their own flip (label = share that shows), so that logits of "
        "half-made edits are graded. A threshold of 0 decides.",
        measured=measure(shipped, scale, bias, training.rendered_pool("heldout"), seed),
        data=f"{training.images} rendered pictures and as many flips, stream ({pool_seed}, train)",
    )  # fmt: skip
