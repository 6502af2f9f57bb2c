"""Train a diffusion model on rendered pictures or photographs: `casl-bench train unet --help`.

A DDPM (Ho et al. 2020) with 1000 linear steps that predicts v (Salimans & Ho 2022) in the
preconditioned cosine bands of 4×4 patches (`models/band_codec.py`): a net that predicts x_0
divides its error by sqrt(1 - alpha_bar) = 0.01 at t = 0 and throws the inversion off the data's
trajectory; one that predicts v inverts from t = 0.

While it trains, skip channels are dropped, so that h has to carry the image; nothing is dropped
when the model is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from casl_bench.core.option_types import SEED, BoundedFloat, BoundedInt, LocalPath
from casl_bench.models.backbone import Backbone
from casl_bench.models.band_codec import BandCodec, band_statistics
from casl_bench.models.noise_schedule import NoiseSchedule
from casl_bench.models.random_numbers import generator
from casl_bench.models.unet import decoder_half, encoder_half
from casl_bench.training.pools import (
    chosen_pictures,
    dataset_options,
    domain_option,
    pool_options,
)
from casl_bench.training.trainer import (
    TrainingRun,
    bf16_pays,
    pause_option,
    plateau,
    training_config,
)

UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 48,
    "out_channels": 96,  # a value and a gate for each band
    "layers_per_block": 1,
    "block_out_channels": [64, 128],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 32,
    "norm_num_groups": 16,
}
PATCH_SIZE = 4
STATISTICS_IMAGES = 4096
EMA_DECAY = 0.9995
MIN_SNR_GAMMA = 5.0


def drop_channels(skips: tuple[Tensor, ...], rng: torch.Generator) -> tuple[Tensor, ...]:
    """Skip connections with channels set to zero, at a rate drawn uniformly for each image."""
    rate = torch.rand(len(skips[0]), 1, generator=rng)
    kept = [torch.rand(s.shape[:2], generator=rng) >= rate for s in skips]
    return tuple(s * k.to(s)[:, :, None, None] for s, k in zip(skips, kept, strict=True))


def v_loss(
    unet: UNet2DModel,
    codec: BandCodec,
    x_0: Tensor,
    t: Tensor,
    noise: Tensor,
    alpha_bar: Tensor,
    rng: torch.Generator,
    bf16: bool = False,
    encode: Callable[..., Any] = encoder_half,
    decode: Callable[..., Any] = decoder_half,
) -> Tensor:
    """Per-image weighted error of the predicted bands, skip channels dropped.

    The weight over t is the mean of plain v error (which keeps the small timesteps accurate,
    where inversion starts) and min-SNR (Hang et al. 2023, eq. 8 for v), which favours the large
    ones, where the image's content is decided. Over bands it is that of plain v in units of the
    noise: all alike at small t, the coarse ones more at large t.

    Args:
        unet: gives the codec's values and gates.
        codec: of the images' bands.
        x_0: [n, 3, H, W] in [-1, 1].
        t: [n] int64.
        noise: white, like x_0.
        alpha_bar: [T] float32.
        rng: draws what is dropped.
        bf16: whether the network runs under autocast; the bands never do.
        encode: the first half of the network, as it is or compiled.
        decode: the second half, likewise.

    Returns:
        [n] losses.
    """
    ab = alpha_bar[t][:, None, None, None]
    x_t = ab.sqrt() * x_0 + (1 - ab).sqrt() * codec.colour(noise)
    sample = codec.input(x_t, ab)
    with torch.autocast(x_0.device.type, torch.bfloat16, enabled=bf16):
        h, temb, skips = encode(unet, sample, t)
        output = decode(unet, h, temb, drop_channels(skips, rng)).float()
    squared = (codec.v(output, sample, ab) - codec.target(x_0, noise, ab)).pow(2)
    error = (squared * codec.v_weight(ab)).mean((1, 2, 3))
    snr = (ab / (1 - ab)).flatten()
    weight = 0.5 + 0.5 * snr.clamp(max=MIN_SNR_GAMMA) / (snr + 1) * 2
    losses: Tensor = error * weight
    return losses


def use_plain_attention(unet: UNet2DModel) -> None:
    """Attention written out: on 64 places its backward pass is quicker than the fused kernel's."""
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())


@click.command("unet")
@domain_option
@dataset_options
@click.option("--out", type=LocalPath(), required=True, help="Training folder.")
@pool_options
@click.option("--start", type=LocalPath(exists=True), help="Folder of a shipped "
              "U-Net to start from, as another domain's.")  # fmt: skip
@click.option("--steps", type=BoundedInt(), help="Length in steps.")
@click.option("--minutes", type=BoundedFloat(0.01, 1e7), help="Length in minutes, instead.")
@click.option("--batch-size", type=BoundedInt(), default=32, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--learning-rate", type=BoundedFloat(1e-12, 1e3), default=1e-3, show_default=True)
@click.option("--bf16/--fp32", default=None, help="[default: whichever is faster here]")
@click.option("--device", default="cpu", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Compile the network: some 15 % faster "
              "on a CPU with a C++ compiler, other last bits.")  # fmt: skip
@pause_option
def main(
    domain: str | None, dataset: str | None, data_root: Path | None, unmirrored: bool, out: Path,
    cache: Path | None, start: Path | None, steps: int | None, minutes: float | None,
    batch_size: int, images: int | None, seed: int, learning_rate: float, bf16: bool | None,
    device: str, compiled: bool, pause_file: Path | None,
) -> None:  # fmt: skip
    """Train, resuming from OUT's checkpoint; `export_unet` makes the shipped file of it."""
    bf16 = bf16_pays() if bf16 is None else bf16
    pictures = chosen_pictures(domain, dataset, data_root, unmirrored)
    images = images or pictures.images
    pool = pictures.load("train", images, seed, cache, False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = UNet2DModel(**UNET)
    started = None
    if start is not None:
        backbone = Backbone.from_folder(start)
        model.load_state_dict(backbone.unet.state_dict())
        started = backbone.weights_hash
    statistics = band_statistics(
        pool.batch(torch.arange(min(len(pool), STATISTICS_IMAGES))), PATCH_SIZE
    )
    codec = BandCodec(PATCH_SIZE, statistics)
    config = training_config(
        "unet", pictures, unet=UNET, patch_size=PATCH_SIZE, prediction="v", start=started,
        bands=statistics.model_dump(),
        batch_size=batch_size, images=images, seed=seed, bf16=bf16, learning_rate=learning_rate,
        ema_decay=EMA_DECAY, device=device,
    )  # fmt: skip
    run = TrainingRun(
        out, model.to(device), learning_rate=learning_rate, config=config, steps=steps,
        minutes=minutes, schedule=plateau, ema_decay=EMA_DECAY, pause_file=pause_file,
    )  # fmt: skip
    model.train()
    use_plain_attention(model)
    compile_half = torch.compile if compiled else lambda half: half
    halves = compile_half(encoder_half), compile_half(decoder_half)
    alpha_bar = torch.cumprod(1 - NoiseSchedule.linear().betas, 0).float().to(device)
    for step in run.steps(log_every=50):
        rng = generator(seed, "train_unet", step)
        index = torch.randint(len(pool), (batch_size,), generator=rng)
        x_0 = pool.batch(index).to(device)
        # Stratified timesteps: one from each of batch_size equal slices, a quieter gradient.
        slices = torch.arange(batch_size) + torch.rand(batch_size, generator=rng)
        t = (slices / batch_size * len(alpha_bar)).long().to(device)
        noise = torch.randn(x_0.shape, generator=rng).to(device)
        run.update(v_loss(model, codec, x_0, t, noise, alpha_bar, rng, bf16, *halves).mean())
