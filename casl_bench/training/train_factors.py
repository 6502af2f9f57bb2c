"""Train the `factor_regressor` of a domain: `casl-bench train factors --help`.

It reads every factor off a picture that the picture shows. Trained like a classifier on pictures
spoilt as edits spoil them and on blends with their flip, labelled by the share that shows; what a
flip leaves alone keeps its label, so the readings of all else learn to stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from casl_bench.core.option_types import BoundedInt
from casl_bench.domains.rendering.renderer import IMAGE_SIZE, Drawing, Factors
from casl_bench.models.factor_regressor import FactorRegressor, LookoutNet, build_regressor
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.random_numbers import generator
from casl_bench.models.scorers import ScorerInfo
from casl_bench.training.degrade import degrade
from casl_bench.training.pools import RenderedPool
from casl_bench.training.train_classifier import calibrate, examples
from casl_bench.training.trainer import (
    HELD_OUT,
    ScorerTraining,
    accuracy,
    means_of_flips,
    per_attribute,
    rounded_to_half,
    training_options,
)

NAME = "factor_regressor"
NETWORK: dict[str, Any] = {
    "architecture": "lookout", "widths": [24, 64], "lookouts": 24, "seen": 32, "hidden": 96,
}  # fmt: skip
BLEND_SHARE = 0.3
FLOOR = 0.5
"""A factor whose reading explains less of its variance on unseen pictures is left out."""

ENDS_PICTURES = 4
LARGEST = 1 - 2.0**-24
"""The largest value that a nuisance factor takes."""


def circular_factors(drawing: Drawing) -> frozenset[str]:
    """Factors whose two ends are one and the same drawing: hues of a full turn, angles.

    The renderer is asked, not its source: from the smallest value to the largest no pixel may move
    by more than a rounding, though from the smallest to the middle some do.
    """
    sample = drawing.sample(np.arange(ENDS_PICTURES), seed=0)

    def drawn(column: int, value: float) -> NDArray[np.int16]:
        nuisance = sample.nuisance.copy()
        nuisance[:, column] = value
        factors = Factors(sample.image_ids, sample.attributes, nuisance)
        return drawing.render(factors).astype(np.int16)

    found = []
    for column, name in enumerate(drawing.nuisance):
        if name not in drawing.unread:
            low, middle, high = (drawn(column, v) for v in (0.0, 0.5, LARGEST))
            if np.abs(high - low).max() <= 1 < np.abs(middle - low).max():
                found.append(name)
    return frozenset(found)


@dataclass(frozen=True)
class Reading:
    """What is read: columns of the network's output.

    A circular factor has two columns, the cosine and the sine of its turn.
    """

    drawing: Drawing
    circular: frozenset[str]

    @property
    def nuisance(self) -> tuple[str, ...]:
        """The continuous factors that are asked for."""
        return tuple(n for n in self.drawing.nuisance if n not in self.drawing.unread)

    @property
    def columns(self) -> tuple[str, ...]:
        """The factor of each column."""
        twice = ((n, n) if n in self.circular else (n,) for n in self.nuisance)
        return (*self.drawing.attributes, *(n for names in twice for n in names))

    def targets(self, factors: Factors) -> Tensor:
        """Nuisance columns, each with mean 0 and standard deviation 1: float [n, C - A]."""
        parts = []
        for name in self.nuisance:
            value = torch.from_numpy(factors.nuisance[:, self.drawing.nuisance.index(name)])
            if name in self.circular:
                turn = math.tau * value
                parts += [turn.cos() * 2**0.5, turn.sin() * 2**0.5]
            else:
                # Uniform on [0, 1).
                parts.append((value - 0.5) * 12**0.5)
        return torch.stack(parts, 1)


def calibrate_readings(
    raw: Tensor, targets: Tensor, names: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """Scale [K] and bias [K] of least squared error, for raw readings and targets [n, K].

    Both columns of a circular factor, which bear the same name, are scaled alike.
    """
    raw, targets = raw.double(), targets.double()
    off = raw - raw.mean(0)
    same = torch.tensor([[float(a == b) for b in names] for a in names], dtype=torch.float64)
    scale = (same @ (off * targets).mean(0)) / (same @ (off * off).mean(0))
    return scale.float(), (targets.mean(0) - scale * raw.mean(0)).float()


def explained(readings: Tensor, targets: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """Factor → R², 1 less the share of its variance that is missed; over both columns if two."""
    missed = (readings - targets).square().sum(0)
    total = (targets - targets.mean(0)).square().sum(0)
    found = {}
    for name in dict.fromkeys(names):
        own = [k for k, n in enumerate(names) if n == name]
        found[name] = round(float(1 - missed[own].sum() / total[own].sum()), 4)
    return found


def keep_outputs(network: LookoutNet, columns: list[int]) -> None:
    """Cut all other outputs out of the last layer, in place."""
    last = network.join[-1]
    assert isinstance(last, nn.Linear)
    slim = nn.Linear(last.in_features, len(columns)).requires_grad_(False)
    slim.weight.copy_(last.weight[columns])
    slim.bias.copy_(last.bias[columns])
    network.join[-1] = slim


def finish(
    network: LookoutNet, reading: Reading, pool: RenderedPool, seed: int
) -> tuple[FactorRegressor, dict[str, float]]:
    """Calibrate on pictures that the training never saw, and leave out what cannot be read.

    Attributes are calibrated on spoilt and blended pictures, as a classifier's, all else on clean
    ones: a shift, which spoiling may bring, does change where things are. The network is changed in
    place; beside the regressor stands the R² of each factor that was left out.
    """
    index = torch.arange(len(pool))
    rng = generator(seed, NAME, "calibration")
    a = len(reading.drawing.attributes)
    x, share = examples(pool, index, rng, blend=0.5)
    names = reading.columns[a:]
    targets = reading.targets(pool.factors)
    with torch.no_grad():
        spoilt = in_micro_batches(network, degrade(x, rng))
        clean = in_micro_batches(network, pool.batch(index))
    of_attributes = calibrate(spoilt[:, :a], share)
    of_rest = calibrate_readings(clean[:, a:], targets, names)
    scale, bias = (
        torch.cat(pair).half().float() for pair in zip(of_attributes, of_rest, strict=True)
    )
    r2 = explained((clean * scale + bias)[:, a:], targets, names)
    left_out = {name: value for name, value in r2.items() if value < FLOOR}
    kept = [k for k, name in enumerate(reading.columns) if name not in left_out]
    keep_outputs(network, kept)
    return FactorRegressor(
        ScorerInfo(NAME, "factors", 1, ""), reading.drawing.attributes,
        tuple(reading.columns[k] for k in kept), network, scale[kept], bias[kept], IMAGE_SIZE,
    ), left_out  # fmt: skip


def measure(
    regressor: FactorRegressor, reading: Reading, pool: RenderedPool, seed: int
) -> dict[str, Any]:
    """What the card says, on pictures that neither training nor calibration saw."""
    index, rng = torch.arange(len(pool)), generator(seed, NAME, "held_out")
    labels, other, column = pool.flipped_labels(index)
    a = labels.shape[1]
    plain, flipped = pool.batch(index), pool.batch(index, flipped=True)
    spoilt = degrade(plain, rng, clean=0.0)
    mixed, share = examples(pool, index, rng, blend=1.0)
    kept = [k for k, name in enumerate(reading.columns[a:]) if name in regressor.names]
    targets, names = reading.targets(pool.factors)[:, kept], regressor.columns[a:]
    read = {"clean": regressor.factors(plain), "degraded": regressor.factors(spoilt)}
    r2 = {key: explained(found[:, a:], targets, names) for key, found in read.items()}
    moved, others = torch.empty(len(pool)), torch.empty(len(pool))
    for k, attribute in enumerate(pool.drawing.attributes):
        rows = column == k
        moved[rows], others[rows] = regressor.factor_change(flipped[rows], plain[rows], attribute)
    # How far the attribute went the way it was flipped.
    moved *= other[index, column].float() * 2 - 1
    by_spoiling = regressor.changes(spoilt, plain)
    return {
        "accuracy_clean": accuracy(pool.attributes, read["clean"][:, :a], labels),
        "accuracy_degraded": accuracy(pool.attributes, read["degraded"][:, :a], labels),
        "share_error_blended": per_attribute(
            pool.attributes, (regressor.shares(degrade(mixed, rng)) - share).abs().mean(0)
        ),
        "flip_change_in_sd_2_is_right": per_attribute(
            pool.attributes, means_of_flips(moved, column)
        ),
        "flip_others_in_sd_0_is_right": per_attribute(
            pool.attributes, means_of_flips(others, column)
        ),
        **{f"mean_r2_{key}": round(sum(v.values()) / len(v), 4) for key, v in r2.items() if v},
        "mean_change_in_sd_by_spoiling": round(float(by_spoiling.mean()), 4),
        **{f"r2_{key}_of_{name}": v for key, found in r2.items() for name, v in found.items()},
    }


@click.command("factors")
@click.option("--batch-size", type=BoundedInt(), default=128, show_default=True)
@training_options(seed=31)
def main(training: ScorerTraining, batch_size: int) -> None:
    """Train, calibrate, measure and publish the regressor of known factors."""
    drawing, seed = training.drawing, training.seed
    reading = Reading(drawing, circular_factors(drawing))
    settings = {
        **NETWORK,
        "attributes": list(drawing.attributes),
        "columns": list(reading.columns),
        "image_size": IMAGE_SIZE,
    }
    pool = training.rendered_pool()
    targets = reading.targets(pool.factors)
    run, network = training.begin(
        NAME, lambda: build_regressor(settings), learning_rate=3e-3, network=settings,
        batch_size=batch_size, blend_share=BLEND_SHARE,
    )  # fmt: skip
    for step in run.steps():
        rng = generator(seed, NAME, step)
        index = torch.randint(len(pool), (batch_size,), generator=rng)
        x, share = examples(pool, index, rng, BLEND_SHARE)
        x = degrade(x, rng).contiguous(memory_format=torch.channels_last)
        with training.autocast():
            found = network(x)
        found = found.float()
        showing = F.binary_cross_entropy_with_logits(found[:, : share.shape[1]], share)
        missed = F.mse_loss(found[:, share.shape[1] :], targets[index])
        run.update(showing + missed, showing=float(showing.detach()), missed=float(missed.detach()))
    shipped: Any = rounded_to_half(run.average)
    regressor, left_out = finish(shipped, reading, training.rendered_pool("calibration"), seed)
    measured = measure(regressor, reading, training.rendered_pool("heldout"), seed)
    measured |= {f"left_out_for_r2_of_{name}": value for name, value in left_out.items()}
    training.publish(
        run, shipped, {**settings, "columns": list(regressor.columns)},
        (regressor.scale, regressor.bias),
        title=f"Factor regressor `{NAME}` of {training.name}",
        description=f"Reads how {drawing.subject} were rendered: how much of each attribute "
        "shows, and the continuous factors that a picture shows, those of a full turn "
        f"({', '.join(n for n in reading.nuisance if n in reading.circular)}) as cosine and sine. "
        "All in standard deviations over the data set. Trained with blur, noise, compression, "
        "resampling, small shifts and light changes, and on pictures blended with their own flip; "
        "a shift does move what is read of a position, whose R² on degraded pictures is low for "
        f"that reason alone. Factors whose R² on unseen clean pictures is under {FLOOR} are left "
        f"out, and so are those that were never asked for: {', '.join(drawing.unread)}. No "
        "classifier and no guide uses it.",
        held_out=f"{HELD_OUT} pictures and flips, stream (0, heldout); what to leave out was "
        "decided on as many of stream (0, calibration)",
        measured=measured,
    )  # fmt: skip
