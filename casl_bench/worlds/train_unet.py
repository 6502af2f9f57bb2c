"""Train the diffusion model of a synth domain: `python -m casl_bench.worlds.train_unet --help`.

A DDPM (Ho et al. 2020) with 1000 linear steps on pixel-unshuffled images, predicting v (Salimans
& Ho 2022): a net that predicts x_0 divides its error by sqrt(1 - alpha_bar) = 0.01 at t = 0 and
throws the inversion off the data's trajectory; one that predicts v inverts from t = 0.
Checkpointed and resumable: killed anywhere and started again, it goes on from the last
checkpoint with the same batches and noise, since both are keyed by the step.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import click
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from casl_bench.backbones.schedule import NoiseSchedule
from casl_bench.core.seeding import generator
from casl_bench.worlds.render_pool import load_pool

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
LEARNING_RATE = 1e-3
WARMUP_STEPS = 300
DECAY_SHARE = 0.35
EMA_DECAY = 0.9995
MIN_SNR_GAMMA = 5.0


def learning_rate(step: int, num_steps: int) -> float:
    """Warm-up, plateau, then a square-root decay to zero over the last `DECAY_SHARE` of steps.

    Unlike a cosine, the plateau does not depend on the length of the run, so a run can be made
    shorter or longer after it has started.
    """
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    start = num_steps * (1 - DECAY_SHARE)
    decay = 1.0 if step < start else 1 - math.sqrt((step - start) / (num_steps - start))
    return LEARNING_RATE * warm * max(decay, 0.0)


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


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, step: int) -> None:
    """Exponential moving average of the weights, with a short memory at the start."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for e, p in zip(ema.parameters(), model.parameters(), strict=True):
        e.lerp_(p, 1 - decay)


@click.command()
@click.option("--domain", default="rendered_faces", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Training folder.")
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Rendered images.")
@click.option("--steps", default=9000, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--images", default=40_960, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--bf16/--fp32", default=True, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--checkpoint-every", default=250, show_default=True)
def main(
    domain: str,
    out: Path,
    cache: Path,
    steps: int,
    batch_size: int,
    images: int,
    seed: int,
    bf16: bool,
    device: str,
    checkpoint_every: int,
) -> None:
    """Train until STEPS, resuming from OUT's checkpoint; see `export_unet` for the shipped file."""
    out.mkdir(parents=True, exist_ok=True)
    pool = load_pool(images, seed=seed, split="train", cache_dir=cache)
    torch.manual_seed(seed)
    model: Any = UNet2DModel(**UNET)
    ema: Any = UNet2DModel(**UNET)
    model.to(device)
    ema.to(device).requires_grad_(False)
    ema.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    alpha_bar = torch.cumprod(1 - NoiseSchedule.linear().betas, 0).float().to(device)
    step, seconds = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        model.load_state_dict(saved["model"])
        ema.load_state_dict(saved["ema"])
        optimiser.load_state_dict(saved["optimiser"])
        step, seconds = saved["step"], saved["seconds"]
    config = {
        "domain": domain, "unet": UNET, "patch_size": PATCH_SIZE, "prediction": "v",
        "steps": steps, "batch_size": batch_size, "images": images, "seed": seed, "bf16": bf16,
        "learning_rate": LEARNING_RATE, "ema_decay": EMA_DECAY, "device": device,
    }  # fmt: skip
    (out / "train_config.json").write_text(json.dumps(config, indent=1))
    started, running = time.time(), 0.0
    while step < steps:
        rng = generator(seed, "train_unet", step)
        index = torch.randint(len(pool.images), (batch_size,), generator=rng)
        pixels = torch.from_numpy(pool.images[index.numpy()]).permute(0, 3, 1, 2)
        x_0 = nn.functional.pixel_unshuffle(pixels.float() / 127.5 - 1, PATCH_SIZE).to(device)
        # Stratified timesteps: one from each of batch_size equal slices, a quieter gradient.
        slices = torch.arange(batch_size) + torch.rand(batch_size, generator=rng)
        t = (slices / batch_size * len(alpha_bar)).long().to(device)
        noise = torch.randn(x_0.shape, generator=rng).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            loss = v_loss(model, x_0, t, noise, alpha_bar).mean()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        update_ema(ema, model, step)
        running += float(loss.detach())
        step += 1
        if step % 50 == 0:
            spent = seconds + time.time() - started
            with (out / "curve.csv").open("a") as f:
                f.write(f"{step},{running / 50:.6f},{spent:.1f}\n")
            click.echo(f"step {step}/{steps} loss {running / 50:.4f} {spent:.0f} s")
            running = 0.0
        if step % checkpoint_every == 0 or step == steps:
            spent = seconds + time.time() - started
            state = {
                "model": model.state_dict(), "ema": ema.state_dict(),
                "optimiser": optimiser.state_dict(), "step": step, "seconds": spent,
            }  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)


if __name__ == "__main__":
    main()
