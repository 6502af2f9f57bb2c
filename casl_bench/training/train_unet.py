"""Train the diffusion model of a synth domain: `casl-bench train unet --help`.

A DDPM (Ho et al. 2020) with 1000 linear steps on pixel-unshuffled images, predicting v (Salimans
& Ho 2022): a net that predicts x_0 divides its error by sqrt(1 - alpha_bar) = 0.01 at t = 0 and
throws the inversion off the data's trajectory; one that predicts v inverts from t = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from casl_bench.core.option_types import SEED, BoundedFloat, BoundedInt, LocalPath
from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.domains.dataset import Dataset, ImageBatch
from casl_bench.domains.rendered import RENDERED
from casl_bench.methods.h_space_editor import EditWindow, generate_edits
from casl_bench.metrics.image_similarity import noise_statistics, psnr
from casl_bench.metrics.probe import ProbeData, RawProbe
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import Backbone
from casl_bench.models.noise_schedule import NoiseSchedule
from casl_bench.models.random_numbers import generator, image_noise
from casl_bench.training.trainer import (
    TrainingRun,
    batch,
    bf16_pays,
    load_pool,
    plateau,
    training_config,
)

UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 48,
    "out_channels": 48,
    "layers_per_block": 1,
    "block_out_channels": [64, 128],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 32,
    "norm_num_groups": 16,
}
PATCH_SIZE = 4
EMA_DECAY = 0.9995
MIN_SNR_GAMMA = 5.0


def v_loss(model: nn.Module, x_0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Per-image weighted error of the predicted v.

    v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0. The weight is the mean of plain v error
    (which keeps the small timesteps accurate, where inversion starts) and min-SNR (Hang et al.
    2023, eq. 8 for v), which favours the large ones, where the image's content is decided.

    Args:
        model: predicts v from ([n, 48, 16, 16], [n]).
        x_0: [n, 48, 16, 16] in [-1, 1].
        t: [n] int64.
        noise: like x_0.
        alpha_bar: [T] float32.

    Returns:
        [n] losses.
    """
    ab = alpha_bar[t][:, None, None, None]
    x_t = ab.sqrt() * x_0 + (1 - ab).sqrt() * noise
    target = ab.sqrt() * noise - (1 - ab).sqrt() * x_0
    error = (model(x_t, t).sample.float() - target).pow(2).mean((1, 2, 3))
    snr = (ab / (1 - ab)).flatten()
    weight = 0.5 + 0.5 * snr.clamp(max=MIN_SNR_GAMMA) / (snr + 1) * 2
    loss: Tensor = error * weight
    return loss


@click.command("unet")
@click.option("--domain", type=click.Choice(list(RENDERED)), default="rendered_faces")
@click.option("--out", type=LocalPath(), required=True, help="Training folder.")
@click.option("--cache", type=LocalPath(), help="Folder of rendered pools.")
@click.option("--start", type=LocalPath(exists=True), help="Folder of a shipped "
              "U-Net to start from, as another domain's.")  # fmt: skip
@click.option("--steps", type=BoundedInt(), help="Length in steps.")
@click.option("--minutes", type=BoundedFloat(0.01, 1e7), help="Length in minutes, instead.")
@click.option("--batch-size", type=BoundedInt(), default=32, show_default=True)
@click.option("--images", type=BoundedInt(), default=40_960, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--learning-rate", type=BoundedFloat(1e-12, 1e3), default=1e-3, show_default=True)
@click.option("--bf16/--fp32", default=None, help="[default: whichever is faster here]")
@click.option("--device", default="cpu", show_default=True)
def main(
    domain: str, out: Path, cache: Path | None, start: Path | None, steps: int | None,
    minutes: float | None, batch_size: int, images: int, seed: int, learning_rate: float,
    bf16: bool | None, device: str,
) -> None:  # fmt: skip
    """Train, resuming from OUT's checkpoint; `export_unet` makes the shipped file of it."""
    bf16 = bf16_pays() if bf16 is None else bf16
    drawing = RENDERED[domain].drawing
    pool = load_pool(drawing, images, seed, "train", cache)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = UNet2DModel(**UNET)
    started = None
    if start is not None:
        backbone = Backbone.from_folder(start)
        model.load_state_dict(backbone.unet.state_dict())
        started = backbone.weights_hash
    config = training_config(
        "unet", drawing, unet=UNET, patch_size=PATCH_SIZE, prediction="v", start=started,
        batch_size=batch_size, images=images, seed=seed, bf16=bf16, learning_rate=learning_rate,
        ema_decay=EMA_DECAY, device=device,
    )  # fmt: skip
    run = TrainingRun(
        out, model.to(device), learning_rate=learning_rate, config=config, steps=steps,
        minutes=minutes, schedule=plateau, ema_decay=EMA_DECAY,
    )  # fmt: skip
    model.train()
    alpha_bar = torch.cumprod(1 - NoiseSchedule.linear().betas, 0).float().to(device)
    for step in run.steps(log_every=50):
        rng = generator(seed, "train_unet", step)
        index = torch.randint(len(pool), (batch_size,), generator=rng)
        x_0 = nn.functional.pixel_unshuffle(batch(pool, index), PATCH_SIZE).to(device)
        # Stratified timesteps: one from each of batch_size equal slices, a quieter gradient.
        slices = torch.arange(batch_size) + torch.rand(batch_size, generator=rng)
        t = (slices / batch_size * len(alpha_bar)).long().to(device)
        noise = torch.randn(x_0.shape, generator=rng).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            loss = v_loss(model, x_0, t, noise, alpha_bar).mean()
        run.update(loss)


DIRECTION_STRENGTHS = (2.0, 4.0, 6.0, 8.0)
DIRECTION_WINDOW = EditWindow(t_edit=350)
PROBE_T = 100
TRAIN_IMAGES, TEST_IMAGES, EDITED_IMAGES, SAMPLES = 256, 96, 12, 64


def measure_gates(
    backbone: Backbone,
    dataset: Dataset,
    classifier: AttributeClassifier,
    timesteps: Sequence[int],
    extrapolate: bool = True,
) -> tuple[dict[str, Any], Tensor]:
    """Figures of all gates of a synth domain's U-Net, and [64, 3, H, W] unconditional samples.

    The data set's validation images are held out from its training; the classifier decides
    attributes; for `extrapolate` see `ddim_inversion`.
    """
    train, store, _ = _inverted(
        backbone, dataset.load("train", TRAIN_IMAGES), timesteps, extrapolate
    )
    test, test_store, inversions = _inverted(
        backbone, dataset.load("validation", TEST_IMAGES), timesteps, extrapolate
    )
    source = classifier.logits(inversions.x_0)
    again = classifier.logits(inversions.reconstruction.clamp(-1, 1))
    noise = noise_statistics(inversions.x_T.numpy())
    step = min(range(len(timesteps)), key=lambda s: abs(timesteps[s] - PROBE_T))
    samples = _samples(backbone, timesteps)
    figures: dict[str, Any] = {
        "timesteps": list(timesteps),
        "extrapolate": extrapolate,
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
    backbone: Backbone, batch: ImageBatch, timesteps: Sequence[int], extrapolate: bool
) -> tuple[ImageBatch, TrajectoryStore, Inversions]:
    store = TrajectoryStore.create(
        None, batch.image_ids, timesteps, batch.pixels.shape[1:], backbone.h_shape,
    )  # fmt: skip
    inversions = invert(
        backbone, batch.image_ids, batch.pixels, timesteps,
        collect=store.record, extrapolate=extrapolate,
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
