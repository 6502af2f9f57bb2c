"""Train a classifier of photographs' attributes: `casl-bench train attributes --help`.

On the labels of a real data set, for users who have its files but no classifier of the right
attributes. The result is what `photos/scorers/classifier.py` reads: NAME.safetensors, its
description NAME.json that carries the calibration, and the card NAME.md, NAME_card.json. Several
may share a folder; each keeps its checkpoint in a folder of its own beside them.

A split is read once and kept as bytes: one byte a value, 5 while it is read. 24,000 images of
128 pixels are 1.2 GB, 5.9 GB for a moment.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_file, make_folder, write_bytes, write_json, write_text
from casl_bench.core.option_types import SEED, BoundedFloat, BoundedInt, LocalPath
from casl_bench.core.seeding import derive_seed
from casl_bench.domains.dataset import Dataset, Split
from casl_bench.metrics.scorer_validation import calibration_error
from casl_bench.models.micro_batch import row_blocks
from casl_bench.models.model_files import WEIGHTS
from casl_bench.models.random_numbers import generator
from casl_bench.models.weights import read_checkpoint
from casl_bench.photos.scorers.classifier import (
    MOST_PIXELS,
    Calibration,
    ClassifierSidecar,
    PhotoClassifier,
    build_network,
    fill,
)
from casl_bench.training.pools import no_labels, open_photographs, read_photographs
from casl_bench.training.train_classifier import calibrate
from casl_bench.training.trainer import (
    TrainingRun,
    card_text,
    pause_option,
    rounded_to_half,
    training_part,
)

# Of each channel, as ImageNet networks expect them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_CLASSES = 1000
# A rare attribute's images count at most this much more than the others.
MAX_WEIGHT = 10.0
LOG_EVERY = 25
BLOCK = 256
MOST_IMAGES, MOST_HELD_OUT = 24_000, 3_000
"""Images that are trained on and held out by default, of a data set that has so many."""


@dataclass(frozen=True)
class LabelledImages:
    """Images of a split, small in memory: pixels [n, 3, S, S] uint8, labels [n, A] bool."""

    pixels: Tensor
    labels: Tensor

    def examples(self, index: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1], each mirrored or not, and float labels."""
        x = as_floats(self.pixels[index])
        mirrored = torch.rand(len(index), generator=rng) < 0.5
        return torch.where(mirrored[:, None, None, None], x.flip(3), x), self.labels[index].float()


def as_floats(pixels: Tensor) -> Tensor:
    """uint8 → float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def load_labelled(dataset: Dataset, split: Split, count: int) -> LabelledImages:
    """The first images of a split; UsageError if their attributes are unknown."""
    images, labels = read_photographs(dataset, split, count)
    if labels is None:
        raise no_labels(dataset.card.name)
    return LabelledImages(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels))


def positive_weights(labels: Tensor) -> Tensor:
    """Weight of the images that have an attribute, so that both answers count alike: [A].

    At most 10 and at least 1/10; what this does to the threshold is undone by the calibration.
    """
    have = labels.float().mean(0).clamp(1e-6, 1 - 1e-6)
    return ((1 - have) / have).clamp(1 / MAX_WEIGHT, MAX_WEIGHT)


def build(architecture: str, attributes: int, weights: Path | None, seed: int) -> nn.Module:
    """The network to train, or to train on from a local file of whole ImageNet weights.

    The last layer of those is dropped.

    Raises:
        UsageError: no such architecture.
        InvalidBenchmarkError: weights are not of this architecture, or damaged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "classifier_of_photos", "init"))
        network = build_network(architecture, attributes)
    if weights is not None:
        whole = build_network(architecture, IMAGENET_CLASSES)
        fill(whole, read_checkpoint(weights).weights, str(weights))
        own = network.state_dict()
        body = {k: v for k, v in whole.state_dict().items() if v.shape == own[k].shape}
        network.load_state_dict(body, strict=False)
    return network


def calibrated(raw: Tensor, labels: Tensor) -> tuple[Calibration, list[int]]:
    """Scale and bias of each attribute, and the columns left as they are.

    Those are the ones of which all images have the same label.
    """
    share = labels.float().mean(0)
    both = (share > 0) & (share < 1)
    scale, bias = torch.ones(len(share)), torch.zeros(len(share))
    if bool(both.any()):
        scale[both], bias[both] = calibrate(raw[:, both], labels[:, both].float())
    left = (~both | ~torch.isfinite(scale) | ~torch.isfinite(bias) | (scale <= 0)).nonzero()
    scale[left], bias[left] = 1.0, 0.0
    return Calibration(scale=tuple(scale.tolist()), bias=tuple(bias.tolist())), left[:, 0].tolist()


def measure(logits: Tensor, labels: Tensor, attributes: tuple[str, ...]) -> dict[str, Any]:
    """What the card says, attribute by attribute, of calibrated logits and labels [n, A]."""
    share = labels.float().mean(0)
    right = ((logits > 0) == labels).float().mean(0)
    tables = {
        "accuracy": right,
        "accuracy_of_the_commoner_answer": torch.maximum(share, 1 - share),
        "calibration_error": torch.from_numpy(calibration_error(logits, labels)),
        "share_that_has_it": share,
    }
    named = {
        key: {a: round(v, 4) for a, v in zip(attributes, values.tolist(), strict=True)}
        for key, values in tables.items()
    }
    return {**named, "mean_accuracy": round(float(right.mean()), 4)}


def score(classifier: PhotoClassifier, images: LabelledImages) -> Tensor:
    """[n, A] logits of unmirrored images."""
    blocks = row_blocks(len(images.pixels), BLOCK)
    return torch.cat([classifier.logits(as_floats(images.pixels[b])) for b in blocks])


@click.command("attributes")
@click.option("--data-root", type=LocalPath(exists=True, file_okay=False),
              required=True, help="Folder of the data set's files.")  # fmt: skip
@click.option("--dataset", default="celeba_hq", show_default=True,
              help="Name of a real data set with labels.")  # fmt: skip
@click.option("--architecture", default="timm:resnet18", show_default=True,
              help="timm:NAME or torchvision:NAME.")  # fmt: skip
@click.option("--weights", type=LocalPath(exists=True, dir_okay=False),
              help="Local file of its ImageNet weights to start from.")  # fmt: skip
@click.option("--images", type=BoundedInt(2), help="Training images.  "
              f"[default: {MOST_IMAGES}, or all that there are]")  # fmt: skip
@click.option("--held-out", type=BoundedInt(2), help="Validation images: half calibrate, half are "
              f"measured.  [default: {MOST_HELD_OUT}, or all that there are]")  # fmt: skip
@click.option("--epochs", type=BoundedFloat(1e-6, 1e6),
              help="Length in passes over the images. [default: 4]")  # fmt: skip
@click.option("--steps", type=BoundedInt(), help="Length in steps, instead.")
@click.option("--batch-size", type=BoundedInt(2), default=64, show_default=True)
@click.option("--image-size", type=BoundedInt(16, MOST_PIXELS), default=128, show_default=True)
@click.option("--learning-rate", type=BoundedFloat(1e-12, 1e3), default=1e-3, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--seed", type=SEED, default=1, show_default=True)
@click.option("--out", type=LocalPath(), required=True, help="Folder of weights, "
              "description, card and checkpoint, from which the same command goes on.")  # fmt: skip
@pause_option
@click.option("--note", default="", help="What a reader of the card should know of this run.")
def main(
    data_root: Path, dataset: str, architecture: str, weights: Path | None, images: int | None,
    held_out: int | None, epochs: float | None, steps: int | None, batch_size: int,
    image_size: int, learning_rate: float, device: str, seed: int, out: Path,
    pause_file: Path | None, note: str,
) -> None:  # fmt: skip
    """Train, calibrate, measure and describe one classifier of photographs."""
    if epochs is not None and steps is not None:
        raise UsageError("give either --steps or --epochs")
    data = open_photographs(dataset, data_root, image_size)
    images = images or min(MOST_IMAGES, data.count("train"))
    held_out = held_out or min(MOST_HELD_OUT, data.count("validation"))
    attributes = data.card.attributes
    # Before the images are read, since this is what may be misspelt.
    network = build(architecture, len(attributes), weights, seed)
    try:
        network.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"cannot train on '{device}': {reason}", hint="give another --device"
        ) from error
    name = f"classifier_{architecture.replace(':', '_')}_{dataset}"
    make_folder(out)
    train = load_labelled(data, "train", images)
    batch_size = min(batch_size, images)
    length = steps or math.ceil((epochs or 4) * images / batch_size)
    config = {
        "name": name,
        "dataset": dataset,
        "revision": data.card.revision,
        "attributes": list(attributes),
        "architecture": architecture,
        "start": None if weights is None else hash_file(weights),
        "images": images,
        "image_size": image_size,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    run = TrainingRun(
        out / f"{name}_training", network, learning_rate=learning_rate, config=config,
        steps=length, minutes=None, pause_file=pause_file,
    )  # fmt: skip
    fit(run, train, batch_size, seed, device)
    finish(run, load_labelled(data, "validation", held_out), out, device, note)


def fit(run: TrainingRun, train: LabelledImages, batch_size: int, seed: int, device: str) -> None:
    """All steps that are left of a run, with the time that they will take."""
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))
    weight = positive_weights(train.labels).to(device)
    an_epoch = max(1, len(train.labels) // batch_size)
    began, first = time.monotonic(), run.step
    run.model.train()
    for step in run.steps(LOG_EVERY):
        epoch, place = divmod(step, an_epoch)
        order = torch.randperm(len(train.labels), generator=generator(seed, "order", epoch))
        index = order[place * batch_size : (place + 1) * batch_size]
        x, target = train.examples(index, generator(seed, "mirror", step))
        x, target = ((x.to(device) + 1) / 2 - mean) / std, target.to(device)
        logits = run.model(x)
        loss = F.binary_cross_entropy_with_logits(logits.float(), target, pos_weight=weight)
        run.update(loss, accuracy=float(((logits > 0) == (target > 0.5)).float().mean()))
        done, length = step + 1, run.num_steps or 0
        if done % LOG_EVERY == 0:
            left = (time.monotonic() - began) / (done - first) * (length - done)
            click.echo(f"step {done:,} of {length:,}, about {left / 60:.1f} minutes left")


def finish(run: TrainingRun, held_out: LabelledImages, out: Path, device: str, note: str) -> None:
    """Calibrate on one half of the held-out images, measure on the other, write all files."""
    config, attributes = run.config, tuple(run.config["attributes"])
    shipped = rounded_to_half(run.average)
    plain = ClassifierSidecar(
        attributes=attributes, mean=MEAN, std=STD,
        **{key: config[key] for key in ("image_size", "architecture", "name")},
    )  # fmt: skip
    raw = score(PhotoClassifier("", "", shipped, plain, attributes, {}).to(device), held_out)
    calibration, left = calibrated(raw[::2], held_out.labels[::2])
    scale, bias = torch.tensor(calibration.scale), torch.tensor(calibration.bias)
    measured = measure((raw * scale + bias)[1::2], held_out.labels[1::2], attributes)
    if left:
        measured["not_calibrated"] = ", ".join(attributes[k] for k in left)
    card = {
        "name": config["name"],
        "title": f"Attribute classifier `{config['name']}`",
        "description": f"Logits of {len(attributes)} attributes of `{config['dataset']}`, trained "
        "on its labels with mirrored images and with rare attributes weighted up, calibrated for "
        "each attribute (scale and bias) on every other validation image. A threshold of 0 "
        "decides.",
        "parameters": sum(p.numel() for p in shipped.parameters()),
        "data": f"{config['images']} training images, revision {config['revision']}",
        "held_out": f"{len(raw[1::2])} validation images, others than those that calibrated",
        "measured": measured,
        "training": training_part(run, note, device),
    }
    path = out / f"{config['name']}.safetensors"
    half = {k: v.half() if v.is_floating_point() else v for k, v in shipped.state_dict().items()}
    write_bytes(path, save({k: v.cpu().contiguous() for k, v in half.items()}))
    sidecar = plain.model_copy(update={"calibration": calibration, "sha256": hash_file(path)})
    write_json(path.with_suffix(".json"), sidecar.model_dump(mode="json", exclude_none=True))
    write_json(out / f"{config['name']}_card.json", card)
    write_text(path.with_suffix(".md"), card_text(card).replace(WEIGHTS, path.name))
    # As a run will read it: what cannot be used is refused now.
    PhotoClassifier.load(path, attributes)
    click.echo(f"mean accuracy {measured['mean_accuracy']:.3f}; wrote {path}")
