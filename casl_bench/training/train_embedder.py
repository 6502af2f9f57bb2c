"""Train the `render_embedder` of a domain: `casl-bench train embedder --help`.

A picture and its re-render with one attribute flipped, both spoilt in their own way, must embed
alike; others must not. Since every attribute is flipped on every kind of subject, agreement
over single flips carries over to any number of them. A linear read-out of the drawing's continuous
factors keeps the embedding from living on the background's colour alone.
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from casl_bench.core.option_types import BoundedInt
from casl_bench.core.seeding import derive_seed
from casl_bench.domains.rendering.renderer import IMAGE_SIZE, Factors, to_pixels
from casl_bench.models.embedder import EmbedderNet, feature_distance
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.random_numbers import generator
from casl_bench.training.degrade import blur, degrade
from casl_bench.training.trainer import (
    HELD_OUT,
    Pool,
    ScorerTraining,
    batch,
    rounded_to_half,
    training_options,
)

NAME = "render_embedder"
NETWORK: dict[str, Any] = {"widths": [24, 48, 96, 128], "embed_dim": 64, "image_size": IMAGE_SIZE}
TEMPERATURE = 0.1


class _Trainee(nn.Module):
    """The network with the read-out that only training needs."""

    def __init__(self, factors: int) -> None:
        super().__init__()
        self.network = EmbedderNet(NETWORK["widths"], NETWORK["embed_dim"])
        self.read_out = nn.Linear(NETWORK["embed_dim"], factors)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.embed(self.network.features(pixels))


def matching_loss(a: Tensor, b: Tensor) -> Tensor:
    """Each row of a finds its own in b among all of b, and the other way round."""
    logits = a @ b.T / TEMPERATURE
    target = torch.arange(len(a))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def other_subjects(pool: Pool, rng: np.random.Generator) -> tuple[Factors, Factors]:
    """The same subjects with all attributes sampled anew, and others before the same scenery."""
    f = pool.factors
    same = Factors(f.image_ids, rng.random(f.attributes.shape) < 0.5, f.nuisance)
    nuisance = np.roll(f.nuisance, 1, axis=0)
    for name in pool.drawing.scenery:
        k = pool.drawing.nuisance.index(name)
        nuisance[:, k] = f.nuisance[:, k]
    other = Factors(f.image_ids, rng.random(f.attributes.shape) < 0.5, nuisance)
    return same, other


def measure(network: EmbedderNet, pool: Pool, seed: int) -> dict[str, Any]:
    """What the card says, on subjects the training never saw."""
    rng = generator(seed, NAME, "held_out")
    # All attributes redrawn: harder than the single flips of training.
    same, other = other_subjects(pool, np.random.default_rng(derive_seed(seed, NAME, "attributes")))
    plain = to_pixels(np.array(pool.images))
    flipped = batch(pool, torch.arange(len(pool)), flipped=True)
    redrawn, scenery = (to_pixels(pool.drawing.render_parallel(f)) for f in (same, other))
    with torch.no_grad():

        def embed(x: Tensor) -> Tensor:
            return in_micro_batches(lambda p: network.embed(network.features(p)), x)

        def distance(a: Tensor, b: Tensor) -> float:
            pair = torch.stack([a, b], 1)
            parts = in_micro_batches(
                lambda p: feature_distance(network.features(p[:, 0]), network.features(p[:, 1])),
                pair,
            )
            return round(float(parts.mean()), 4)

        e, e_redrawn, e_scenery = embed(plain), embed(degrade(redrawn, rng)), embed(scenery)
        likeness = {
            "same_flipped": (e * embed(flipped)).sum(1),
            "same_all_attributes_redrawn_degraded": (e * e_redrawn).sum(1),
            "different_subjects": (e * e_redrawn.roll(1, 0)).sum(1),
            "different_subjects_same_scenery": (e * e_scenery).sum(1),
        }
        few = slice(0, 1024)
        distances = {
            "distance_blur_0.5": distance(plain[few], blur(plain[few], 0.5)),
            "distance_blur_1.0": distance(plain[few], blur(plain[few], 1.0)),
            "distance_flipped": distance(plain[few], flipped[few]),
            "distance_other_subject": distance(plain[few], plain[few].roll(1, 0)),
        }

    def auc(positive: Tensor, negative: Tensor) -> float:
        truth = np.repeat([1, 0], [len(positive), len(negative)])
        return round(float(roc_auc_score(truth, torch.cat([positive, negative]).numpy())), 4)

    positive = likeness["same_all_attributes_redrawn_degraded"]
    return {
        "auc_same_against_different": auc(positive, likeness["different_subjects"]),
        "auc_same_against_different_same_scenery": auc(
            positive, likeness["different_subjects_same_scenery"]
        ),
        **{f"mean_cosine_{k}": round(float(v.mean()), 4) for k, v in likeness.items()},
        **distances,
    }


@click.command("embedder")
@click.option("--pairs", type=BoundedInt(), default=96, show_default=True,
              help="Subjects per batch, each twice.")  # fmt: skip
@training_options(seed=21)
def main(training: ScorerTraining, pairs: int) -> None:
    """Train, measure and publish the embedder."""
    drawing, seed, pool = training.drawing, training.seed, training.pool()
    read = [k for k, name in enumerate(drawing.nuisance) if name not in drawing.unread]
    run, model = training.begin(
        NAME, lambda: _Trainee(len(read)), learning_rate=3e-3, network=NETWORK, pairs=pairs,
        shipped_part=lambda model: model.network, temperature=TEMPERATURE,
    )  # fmt: skip
    for step in run.steps():
        rng = generator(seed, NAME, step)
        index = torch.randint(len(pool), (pairs,), generator=rng)
        x = torch.cat(
            [degrade(batch(pool, index), rng), degrade(batch(pool, index, flipped=True), rng)]
        )
        with training.autocast():
            embedding = model(x.contiguous(memory_format=torch.channels_last)).float()
        factors = torch.from_numpy(pool.factors.nuisance[index.numpy()][:, read]).repeat(2, 1)
        # Factors are uniform on [0, 1): unit variance after this.
        reading = F.mse_loss(model.read_out(embedding), (factors - 0.5) * 12**0.5)
        matching = matching_loss(*embedding.chunk(2))
        run.update(
            matching + reading, matching=float(matching.detach()), reading=float(reading.detach())
        )
    shipped: Any = rounded_to_half(run.average)
    training.publish(
        run, shipped.network, NETWORK,
        title=f"Embedder `{NAME}` of {training.domain}",
        description=f"Perceptual and identity distance of rendered {drawing.subject}. Features of "
        "all stages give the perceptual distance; the embedding is trained to agree between a "
        f"picture and its re-render with any of {len(drawing.attributes)} attributes flipped, "
        "spoilt or not, and to differ between subjects (everything continuous in the drawing: "
        "shape, pose, tones, colours, background). It is neither LPIPS nor a face recogniser.",
        held_out=f"{HELD_OUT} subjects, stream (0, heldout)",
        measured=measure(shipped.network, training.pool("heldout"), seed),
    )  # fmt: skip
