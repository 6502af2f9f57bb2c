"""Whether a trained U-Net can carry the benchmark: measured, not judged by its loss.

A good reconstruction alone shows nothing: an inversion that leaves the model's distribution copies
the image through the skip connections, and then no direction of h-space moves anything. So x_T's
statistics, what h holds, and whether plain directions steer are measured beside the PSNR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from casl_bench.activations.trajectory_store import TrajectoryStore
from casl_bench.backbones.backbone import Backbone
from casl_bench.core.seeding import image_noise
from casl_bench.images.dataset import Dataset, ImageBatch
from casl_bench.inversion.ddim import ddim_generation
from casl_bench.inversion.inversions import Inversions
from casl_bench.inversion.inverter import invert
from casl_bench.methods.generation import EditWindow, generate_edits
from casl_bench.metrics.probe_accuracy import ProbeData, RawProbe
from casl_bench.metrics.reconstruction import noise_statistics, psnr
from casl_bench.scorers.attribute_classifier import AttributeClassifier

DIRECTION_STRENGTHS = (2.0, 4.0, 6.0, 8.0)
DIRECTION_WINDOW = EditWindow(t_edit=350)
PROBE_T = 100
TRAIN_IMAGES, TEST_IMAGES, EDITED_IMAGES, SAMPLES = 256, 96, 12, 64


def measure_gates(
    backbone: Backbone,
    dataset: Dataset,
    classifier: AttributeClassifier,
    timesteps: Sequence[int],
    refinements: int = 0,
) -> tuple[dict[str, Any], Tensor]:
    """All gates of a synth domain's U-Net.

    Args:
        backbone: the trained model.
        dataset: whose validation images are held out from its training.
        classifier: decides attributes.
        timesteps: the default walk.
        refinements: of the inversion, see `ddim_inversion`.

    Returns:
        Figures by name, and [64, 3, H, W] unconditional samples to look at.
    """
    train, store, _ = _inverted(
        backbone, dataset.load("train", TRAIN_IMAGES), timesteps, refinements
    )
    test, test_store, inversions = _inverted(
        backbone, dataset.load("validation", TEST_IMAGES), timesteps, refinements
    )
    source = classifier.logits(inversions.x_0)
    again = classifier.logits(inversions.reconstruction.clamp(-1, 1))
    noise = noise_statistics(inversions.x_T.numpy())
    step = min(range(len(timesteps)), key=lambda s: abs(timesteps[s] - PROBE_T))
    samples = _samples(backbone, timesteps)
    figures: dict[str, Any] = {
        "timesteps": list(timesteps),
        "refinements": refinements,
        "psnr": float(psnr(inversions.reconstruction.numpy(), inversions.x_0.numpy()).mean()),
        "attribute_agreement": float(((source > 0) == (again > 0)).float().mean()),
        "x_T_mean": noise.mean,
        "x_T_std": noise.std,
        "raw_h_probe": _probe(train, store, test, test_store, step),
        "direction_flip_rate": _steer(backbone, train, store, test, inversions, classifier),
        "samples": _sample_figures(classifier, samples, source),
    }
    return figures, samples


def _inverted(
    backbone: Backbone, batch: ImageBatch, timesteps: Sequence[int], refinements: int
) -> tuple[ImageBatch, TrajectoryStore, Inversions]:
    store = TrajectoryStore.create(
        None, batch.image_ids, timesteps, batch.pixels.shape[1:], backbone.h_shape,
        refined=refinements > 0,
    )  # fmt: skip
    inversions = invert(
        backbone, batch.image_ids, batch.pixels, timesteps,
        collect=store.record, refinements=refinements,
    )  # fmt: skip
    return batch, store, inversions


def _labels(batch: ImageBatch) -> Tensor:
    assert batch.attributes is not None  # a synth domain knows its factors
    return batch.attributes


def _probe(
    train: ImageBatch, store: TrajectoryStore, test: ImageBatch, held: TrajectoryStore, step: int
) -> list[float]:
    """Accuracy of a linear SVM on flattened h, one number an attribute."""
    features = [s.h(step).flatten(1).double().numpy() for s in (store, held)]
    probe = RawProbe(ProbeData(features[0], features[1]))
    columns = range(_labels(train).shape[1])
    return [
        probe(_labels(train)[:, a].numpy(), _labels(test)[:, a].numpy(), 0).accuracy
        for a in columns
    ]


def _steer(
    backbone: Backbone,
    train: ImageBatch,
    store: TrajectoryStore,
    test: ImageBatch,
    inversions: Inversions,
    classifier: AttributeClassifier,
) -> list[float]:
    """Share of images that the mean-difference direction flips at its best strength."""
    rates = []
    for a in range(_labels(train).shape[1]):
        has = _labels(train)[:, a]
        directions = {
            t: store.h(s)[has].mean(0) - store.h(s)[~has].mean(0)
            for s, t in enumerate(store.timesteps)
        }
        rows = (~_labels(test)[:, a]).nonzero().flatten().tolist()[:EDITED_IMAGES]

        def delta_h(
            h: Tensor, t: int, temb: Tensor, directions: dict[int, Tensor] = directions
        ) -> Tensor:
            return directions[t].expand_as(h)

        edits = generate_edits(
            backbone, inversions.take(rows), DIRECTION_STRENGTHS, delta_h, DIRECTION_WINDOW, 0
        )
        flips = [float((classifier.logits(e.clamp(-1, 1))[:, a] > 0).float().mean()) for e in edits]
        rates.append(max(flips))
    return rates


def _samples(backbone: Backbone, timesteps: Sequence[int]) -> Tensor:
    """Unconditional DDIM samples in [-1, 1]."""
    size = backbone.image_size
    ids = [f"sample-{i}" for i in range(SAMPLES)]
    noise = image_noise((3, size, size), ids, 0, "unconditional samples")
    return ddim_generation(backbone, noise, timesteps).clamp(-1, 1).cpu()


def _sample_figures(
    classifier: AttributeClassifier, samples: Tensor, real_logits: Tensor
) -> dict[str, Any]:
    """How sure the classifier is of samples beside real images, and how often each attribute is."""
    logits = classifier.logits(samples)
    return {
        "entropy": _entropy(logits),
        "entropy_of_real": _entropy(real_logits),
        "attribute_rate": [round(float(r), 3) for r in (logits > 0).float().mean(0)],
    }


def _entropy(logits: Tensor) -> float:
    """Mean binary entropy of the decisions, in bits; 0 is sure, 1 undecided."""
    p = torch.sigmoid(logits.double()).clamp(1e-9, 1 - 1e-9).numpy()
    return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean())
