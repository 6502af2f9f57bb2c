"""Train the diffusion model of a synth domain: `python -m casl_bench.worlds.train_unet --help`.

A DDPM (Ho et al. 2020) with 1000 linear steps on pixel-unshuffled images, predicting v (Salimans
& Ho 2022): a net that predicts x_0 divides its error by sqrt(1 - alpha_bar) = 0.01 at t = 0 and
throws the inversion off the data's trajectory; one that predicts v inverts from t = 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from casl_bench.backbones.backbone import Backbone
from casl_bench.backbones.schedule import NoiseSchedule
from casl_bench.core.amounts import SEED, Amount, Count
from casl_bench.core.seeding import generator
from casl_bench.worlds.domains import DOMAINS
from casl_bench.worlds.render_pool import load_pool
from casl_bench.worlds.train_common import (
    TrainingRun,
    batch,
    bf16_pays,
    one_line_errors,
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
    return error * weight


@click.command()
@click.option("--domain", type=click.Choice(list(DOMAINS)), default="rendered_faces")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Training folder.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of rendered pools.")
@click.option("--start", type=click.Path(path_type=Path, exists=True), help="Folder of a shipped "
              "U-Net to start from, as another domain's.")  # fmt: skip
@click.option("--steps", type=Count(), help="Length in steps.")
@click.option("--minutes", type=Amount(0.01, 1e7), help="Length in minutes, instead.")
@click.option("--batch-size", type=Count(), default=32, show_default=True)
@click.option("--images", type=Count(), default=40_960, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--learning-rate", type=Amount(1e-12, 1e3), default=1e-3, show_default=True)
@click.option("--bf16/--fp32", default=None, help="[default: whichever is faster here]")
@click.option("--device", default="cpu", show_default=True)
def main(
    domain: str, out: Path, cache: Path | None, start: Path | None, steps: int | None,
    minutes: float | None, batch_size: int, images: int, seed: int, learning_rate: float,
    bf16: bool | None, device: str,
) -> None:  # fmt: skip
    """Train, resuming from OUT's checkpoint; `export_unet` makes the shipped file of it."""
    bf16 = bf16_pays() if bf16 is None else bf16
    drawing = DOMAINS[domain].drawing
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


if __name__ == "__main__":
    one_line_errors(main)()
