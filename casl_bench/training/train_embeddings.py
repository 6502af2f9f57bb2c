"""Train the networks that embed pictures: `casl-bench train clip --help`, `train embedder --help`.

Both learn from rendered pictures together with their re-render with one attribute flipped, or from
photographs together with their mirror image.

CLIP: plain caption matching learns attributes one after another and a tiny model stops half-way.
Here every step asks for every attribute ("with" against "without"), and the displacement from a
picture to its flip is pulled to the displacement of the text, which is what editing by direction
relies on. Photographs have no such flip: that term is left out, and what states an attribute
against what denies it must do. Guide and scorer differ in architecture, seed, order of data and
manner of the captions.

Embedder: a picture and its flip, both spoilt in their own way, must embed alike; others must not.
Since every attribute is flipped on every kind of subject, agreement over single flips carries over
to any number of them. A linear read-out of the drawing's continuous factors keeps the embedding
from living on the background's colour alone. A photograph must embed like its mirror image, and
what an attribute's change does to its embedding is not taught.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from casl_bench.core.option_types import BoundedFloat, BoundedInt
from casl_bench.core.seeding import derive_seed
from casl_bench.domains.rendering.captions import compatible
from casl_bench.domains.rendering.renderer import IMAGE_SIZE, Factors, to_pixels
from casl_bench.models.clip import WordTokenizer, build_clip
from casl_bench.models.embedder import EmbedderNet, feature_distance
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.random_numbers import generator
from casl_bench.training.degrade import blur, degrade
from casl_bench.training.pools import Pool, RenderedPool
from casl_bench.training.trainer import (
    ScorerTraining,
    accuracy,
    means_of_flips,
    per_attribute,
    rounded_to_half,
    training_options,
)

TEXT: dict[str, Any] = {"width": 64, "heads": 2, "layers": 1}
VISION: dict[str, dict[str, Any]] = {
    "guide": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": IMAGE_SIZE},
    "score": {
        "layers": 4, "width": 64, "head_width": 32, "mlp_ratio": 3.0, "patch_size": 8,
        "image_size": IMAGE_SIZE, "pool_type": "avg",
    },
}  # fmt: skip
"""Role of a CLIP → its image tower."""
DIRECTION_WEIGHT = 0.5
# Cosines of displacements are divided by this before the softmax over attributes.
DIRECTION_TEMPERATURE = 0.1


def caption_loss(images: Tensor, texts: Tensor, true: Tensor, scale: Tensor) -> Tensor:
    """Symmetric contrastive loss where several captions may be true of a picture.

    Of unit embeddings [n, D] and [m, D] and the truth bool [n, m]; a row's target is spread evenly
    over the captions that hold.
    """
    logits = scale * images @ texts.T
    total = torch.zeros(())
    for scores, hold in ((logits, true), (logits.T, true.T)):
        target = hold.float()
        mass = target.sum(1)
        row = -(scores.log_softmax(1) * target).sum(1) / mass.clamp(min=1)
        total = total + row[mass > 0].mean() / 2
    return total


def contrast_loss(images: Tensor, yes: Tensor, no: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Every attribute of every picture: the caption that states it against the one that denies it.

    Of unit embeddings: images [n, D], yes and no [A, D]; labels are bool [n, A].
    """
    return F.binary_cross_entropy_with_logits(scale * images @ (yes - no).T, labels.float())


def direction_cosines(
    before: Tensor, after: Tensor, yes: Tensor, no: Tensor, floor: float = 0.02
) -> Tensor:
    """Cosine of each displacement before → after with each attribute's no → yes: [n, A].

    In training a small floor on the length keeps the gradient of pairs that do not yet differ
    within bounds; it lowers the cosine of a typical displacement (length 0.5) by 4 %.
    """
    moved = after - before
    moved = moved / (moved.norm(dim=1, keepdim=True) + floor)
    cosines: Tensor = moved @ F.normalize(yes - no, dim=1).T
    return cosines


def direction_loss(cosines: Tensor, column: Tensor, sign: Tensor) -> Tensor:
    """Cosine 1 with the text of the attribute that changed and no other's.

    Args:
        cosines: [n, A] as from `direction_cosines`.
        column: [n] the attribute that changed.
        sign: [n] 1 where it was turned on, -1 off.
    """
    rows = torch.arange(len(column))
    own = cosines[rows, column] * sign
    others = cosines.clone()
    others[rows, column] = 0
    signed = torch.cat([cosines, -cosines], 1) / DIRECTION_TEMPERATURE
    target = column + torch.where(sign > 0, 0, cosines.shape[1])
    return (1 - own).mean() + others.pow(2).sum(1).mean() + F.cross_entropy(signed, target)


def measure_clip(
    network: CLIP,
    tokenizer: WordTokenizer,
    pool: Pool,
    prompts: Sequence[tuple[str, str]],
    seed: int,
) -> dict[str, Any]:
    """What the card says, on pictures the training never saw and in the concepts' own prompts."""
    index, rng = torch.arange(len(pool)), generator(seed, "clip_held_out")
    labels = pool.labels(index)
    with torch.no_grad():
        no, yes = (network.encode_text(tokenizer(texts), normalize=True)
                   for texts in zip(*prompts, strict=True))  # fmt: skip

        def embed(x: Tensor) -> Tensor:
            return in_micro_batches(lambda part: network.encode_image(part, normalize=True), x, 16)

        flips = isinstance(pool, RenderedPool)
        pictures = [pool.batch(index), *([pool.batch(index, flipped=True)] if flips else [])]
        soft = degrade(torch.cat(pictures), rng, copies=len(pictures), clean=0.0)
        embedded = [embed(x) for x in pictures]
        softly = embed(soft).chunk(len(pictures))
    gap = (yes - no).T
    measured: dict[str, Any] = {
        "zero_shot_accuracy": accuracy(pool.attributes, embedded[0] @ gap, labels),
        "zero_shot_accuracy_degraded": accuracy(pool.attributes, softly[0] @ gap, labels),
        "logit_scale": round(float(network.logit_scale.exp()), 3),
    }
    if not isinstance(pool, RenderedPool):
        # Labels of photographs are seldom even: an order says more than a threshold at 0.
        columns = zip(pool.attributes, (embedded[0] @ gap).T, labels.T, strict=True)
        ranked = {a: _auc(z[y], z[~y]) for a, z, y in columns if 0 < int(y.sum()) < len(y)}
        return {**measured, "zero_shot_auc": ranked}
    _, other, column = pool.flipped_labels(index)
    rows = torch.arange(len(index))
    sign = other[rows, column].float() * 2 - 1

    def direction(a: Tensor, b: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        cosines = direction_cosines(a, b, yes, no, floor=1e-8)
        own = cosines[rows, column] * sign
        # Of the other concepts the one that is nearest on average, whichever way it points.
        table = means_of_flips(cosines.abs(), column).fill_diagonal_(0)
        means = means_of_flips(own, column)
        names = pool.attributes
        return per_attribute(names, means), per_attribute(names, table.amax(1))

    own, runner_up = direction(*embedded)
    soft_own, soft_runner_up = direction(*softly)
    return {
        **measured,
        "direction_cosine": own,
        "direction_cosine_runner_up": runner_up,
        "direction_cosine_degraded": soft_own,
        "direction_cosine_runner_up_degraded": soft_runner_up,
    }


def _auc(positive: Tensor, negative: Tensor) -> float:
    """Area under the curve, of one number at least on either side."""
    truth = np.repeat([1, 0], [len(positive), len(negative)])
    return round(float(roc_auc_score(truth, torch.cat([positive, negative]).numpy())), 4)


@click.command("clip")
@click.option("--role", type=click.Choice(sorted(VISION)), required=True)
@click.option("--pairs", type=BoundedInt(), default=64, show_default=True,
              help="Pictures per batch, each with a flip or a mirror image.")  # fmt: skip
@click.option("--learning-rate", type=BoundedFloat(1e-12, 1e3), default=2e-3, show_default=True)
@training_options(seed=11, photographs=True)
def clip(training: ScorerTraining, role: str, pairs: int, learning_rate: float) -> None:
    """Train, measure and publish one CLIP."""
    pictures, name, seed = training.pictures, f"{role}_clip", training.seed
    manner, writer = pictures.writers[list(VISION).index(role)]
    network_config: dict[str, Any] = {
        "embed_dim": 64, "vision": VISION[role],
        "text": {"context_length": pictures.context_length, **TEXT}, "words": pictures.words,
    }  # fmt: skip

    def build() -> CLIP:
        network = build_clip(network_config)
        # Starts mild enough that a wrong pair costs little, and is learned from there.
        network.logit_scale.data.fill_(3.0)
        return network

    pool = training.pool()
    run, network = training.begin(
        name, build, learning_rate=learning_rate, weight_decay=0.02, network=network_config,
        manner=manner, pairs=pairs, direction_weight=DIRECTION_WEIGHT,
    )  # fmt: skip
    tokenizer = WordTokenizer(pictures.words, pictures.context_length)
    for step in run.steps():
        rng = generator(seed, name, step)
        index = torch.randint(len(pool), (pairs,), generator=rng)
        before = after = pool.labels(index)
        if isinstance(pool, RenderedPool):
            before, after, column = pool.flipped_labels(index)
        labels = torch.cat([before, after])
        x = torch.cat([pool.batch(index), pool.batch(index, flipped=True)])
        x = degrade(x, rng, copies=2).contiguous(memory_format=torch.channels_last)
        captions = writer.describe(labels, rng)
        stated, denied = writer.contrasts(rng)
        with training.autocast():
            images_out = network.encode_image(x)
            texts_out = network.encode_text(tokenizer([*captions.texts, *stated, *denied]))
        seen = F.normalize(images_out.float(), dim=1)
        said, yes, no = F.normalize(texts_out.float(), dim=1).split(
            [len(labels), labels.shape[1], labels.shape[1]]
        )
        scale = network.logit_scale.clamp(max=4.6).exp()
        matching = caption_loss(seen, said, compatible(captions.statements, labels), scale)
        contrast = contrast_loss(seen, yes, no, labels, scale)
        loss, turned = matching + 2 * contrast, {}
        if isinstance(pool, RenderedPool):
            sign = after[torch.arange(pairs), column].float() * 2 - 1
            cosines = direction_cosines(seen[:pairs], seen[pairs:], yes, no)
            loss = loss + DIRECTION_WEIGHT * direction_loss(cosines, column, sign)
            own = cosines.detach()[torch.arange(pairs), column] * sign
            turned = {"cosine": float(own.mean())}
        with torch.no_grad():
            hits = ((seen @ (yes - no).T > 0) == labels).float().mean(0)
        run.update(
            loss, matching=float(matching.detach()), contrast=float(contrast.detach()),
            accuracy=float(hits.mean()), worst=float(hits.min()), **turned,
            scale=float(scale.detach()),
        )  # fmt: skip
    shipped: Any = rounded_to_half(run.average)
    rendered = isinstance(pool, RenderedPool)
    training.publish(
        run, shipped, network_config,
        title=f"{'Guide' if role == 'guide' else 'Scoring'} CLIP `{name}` of {training.name}",
        description="An open_clip model of small configuration over a word-level vocabulary, "
        f"trained on {pictures.subject} with {_CAPTIONS[rendered]} (manner "
        f"'{manner}'): multi-positive caption matching, every attribute stated against denied"
        + (_FLIPS if rendered else ".") + " It knows nothing beyond these pictures."
        + ("" if role == "guide" else " It scores edits and never guides a method."),
        measured=measure_clip(
            shipped, tokenizer, training.pool("heldout"), pictures.prompts, seed
        ),
    )  # fmt: skip


_CAPTIONS = {True: "generated captions", False: "captions from labels and texts of concepts"}
_FLIPS = (
    ", and the displacement of a picture to its re-render with one attribute flipped pulled to the "
    "displacement of the text. The known attributes of the renders were used to make captions and "
    "pairs: this is a rendered domain's stand-in for web-scale pre-training."
)


# The embedder.

EMBEDDER, PHOTO_EMBEDDER = "render_embedder", "photo_embedder"
NETWORK: dict[str, Any] = {"widths": [24, 48, 96, 128], "embed_dim": 64, "image_size": IMAGE_SIZE}
TEMPERATURE = 0.1


class _Trainee(nn.Module):
    """The network with the read-out that only training needs, where factors are known."""

    def __init__(self, factors: int) -> None:
        super().__init__()
        self.network = EmbedderNet(NETWORK["widths"], NETWORK["embed_dim"])
        self.read_out = nn.Linear(NETWORK["embed_dim"], factors) if factors else None

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.embed(self.network.features(pixels))


def matching_loss(a: Tensor, b: Tensor) -> Tensor:
    """Each row of a finds its own in b among all of b, and the other way round."""
    logits = a @ b.T / TEMPERATURE
    target = torch.arange(len(a))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def other_subjects(pool: RenderedPool, rng: np.random.Generator) -> tuple[Factors, Factors]:
    """The same subjects with all attributes sampled anew, and others before the same scenery."""
    f = pool.factors
    same = Factors(f.image_ids, rng.random(f.attributes.shape) < 0.5, f.nuisance)
    nuisance = np.roll(f.nuisance, 1, axis=0)
    for name in pool.drawing.scenery:
        k = pool.drawing.nuisance.index(name)
        nuisance[:, k] = f.nuisance[:, k]
    other = Factors(f.image_ids, rng.random(f.attributes.shape) < 0.5, nuisance)
    return same, other


def measure_embedder(network: EmbedderNet, pool: Pool, name: str, seed: int) -> dict[str, Any]:
    """What the card says, on subjects the training never saw."""
    rng, index = generator(seed, name, "held_out"), torch.arange(len(pool))
    plain = pool.batch(index)
    flipped = again = scenery = None
    if isinstance(pool, RenderedPool):
        # All attributes redrawn: harder than the single flips of training.
        same, other = other_subjects(
            pool, np.random.default_rng(derive_seed(seed, name, "attributes"))
        )
        flipped = pool.batch(index, flipped=True)
        again, scenery = (to_pixels(pool.drawing.render_parallel(f)) for f in (same, other))
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

        e, e_again = embed(plain), embed(degrade(plain if again is None else again, rng))
        positive, negative = (e * e_again).sum(1), (e * e_again.roll(1, 0)).sum(1)
        kind = "same_degraded" if again is None else "same_all_attributes_redrawn_degraded"
        likeness = {kind: positive, "different_subjects": negative}
        areas = {"auc_same_against_different": _auc(positive, negative)}
        few = slice(0, 1024)
        distances = {
            "distance_blur_0.5": distance(plain[few], blur(plain[few], 0.5)),
            "distance_blur_1.0": distance(plain[few], blur(plain[few], 1.0)),
            "distance_other_subject": distance(plain[few], plain[few].roll(1, 0)),
        }
        if flipped is not None and scenery is not None:
            likeness["same_flipped"] = (e * embed(flipped)).sum(1)
            there = likeness["different_subjects_same_scenery"] = (e * embed(scenery)).sum(1)
            areas["auc_same_against_different_same_scenery"] = _auc(positive, there)
            distances["distance_flipped"] = distance(plain[few], flipped[few])
    means = {f"mean_cosine_{k}": round(float(v.mean()), 4) for k, v in likeness.items()}
    return {**areas, **means, **distances}


@click.command("embedder")
@click.option("--pairs", type=BoundedInt(), default=96, show_default=True,
              help="Subjects per batch, each twice.")  # fmt: skip
@training_options(seed=21, photographs=True)
def embedder(training: ScorerTraining, pairs: int) -> None:
    """Train, measure and publish the embedder."""
    pictures, seed, pool = training.pictures, training.seed, training.pool()
    name, read, rendered = PHOTO_EMBEDDER, [], isinstance(pool, RenderedPool)
    if isinstance(pool, RenderedPool):
        name, nuisance = EMBEDDER, enumerate(pool.drawing.nuisance)
        read = [k for k, factor in nuisance if factor not in pool.drawing.unread]
    run, model = training.begin(
        name, lambda: _Trainee(len(read)), learning_rate=3e-3, network=NETWORK, pairs=pairs,
        shipped_part=lambda model: model.network, temperature=TEMPERATURE,
    )  # fmt: skip
    for step in run.steps():
        rng = generator(seed, name, step)
        index = torch.randint(len(pool), (pairs,), generator=rng)
        x = torch.cat(
            [degrade(pool.batch(index), rng), degrade(pool.batch(index, flipped=True), rng)]
        )
        with training.autocast():
            embedding = model(x.contiguous(memory_format=torch.channels_last)).float()
        loss = matching = matching_loss(*embedding.chunk(2))
        terms = {"matching": float(matching.detach())}
        if isinstance(pool, RenderedPool) and model.read_out is not None:
            factors = torch.from_numpy(pool.factors.nuisance[index.numpy()][:, read]).repeat(2, 1)
            # Factors are uniform on [0, 1): unit variance after this.
            reading = F.mse_loss(model.read_out(embedding), (factors - 0.5) * 12**0.5)
            loss, terms["reading"] = matching + reading, float(reading.detach())
        run.update(loss, **terms)
    shipped: Any = rounded_to_half(run.average)
    twin = (
        f"its re-render with any of {len(pictures.attributes)} attributes flipped, spoilt or not, "
        "and to differ between subjects (everything continuous in the drawing: shape, pose, tones, "
        "colours, background)" if rendered else
        "its mirror image, spoilt or not, and to differ between photographs"
    )  # fmt: skip
    training.publish(
        run, shipped.network, NETWORK,
        title=f"Embedder `{name}` of {training.name}",
        description=f"Perceptual and identity distance of {pictures.subject}. Features of all "
        "stages give the perceptual distance; the embedding is trained to agree between a picture "
        f"and {twin}. It is neither LPIPS nor a face recogniser.",
        measured=measure_embedder(shipped.network, training.pool("heldout"), name, seed),
    )  # fmt: skip
