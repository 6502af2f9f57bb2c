"""A frozen noise predictor behind one convention: (x_t in pixels, t) -> eps.

What differs between networks is adapted here at the edge: a learned variance, predictions of v or
x_0, pixel-unshuffled images. A pass has two halves that are run apart, because an h-space edit
needs the encoder half once and the decoder half as often as it has versions of h.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor
from torch.nn import functional

from casl_bench.core.errors import InputError
from casl_bench.core.files import hash_json
from casl_bench.core.registry import Registry
from casl_bench.models.band_codec import BandCodec
from casl_bench.models.diffusers_folder import is_diffusers_folder, read_diffusers_folder
from casl_bench.models.micro_batch import run_in_micro_batches
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.unet import (
    BackboneConfig,
    decoder_half,
    encoder_half,
    load_folder,
    time_embedding,
)


@dataclass(frozen=True)
class EncoderState:
    """What the encoder half of the U-Net leaves for the decoder half."""

    x_t: Tensor  # [n, 3, H, W], the noisy images
    t: int  # their timestep
    h: Tensor  # [n, C, h, w], the mid block's output (h-space)
    temb: Tensor  # [n, D], the time embedding
    skips: tuple[Tensor, ...]  # skip connections, each [n, ...]

    def __len__(self) -> int:
        return len(self.x_t)

    def take(self, rows: Tensor) -> EncoderState:
        """The states of these rows [m] int64, repeats allowed."""
        return EncoderState(
            self.x_t[rows],
            self.t,
            self.h[rows],
            self.temb[rows],
            tuple(s[rows] for s in self.skips),
        )


@dataclass
class CallCounter:
    """Passes through the two halves of the U-Net, in images (padding is not counted)."""

    encoder: int = 0
    decoder: int = 0

    @property
    def unet_calls(self) -> float:
        """Whole passes: a half counts 0.5."""
        return 0.5 * (self.encoder + self.decoder)


class Backbone:
    """A U-Net with its noise schedule, frozen.

    Attributes:
        h_shape: (C, h, w) of h-space.
        temb_dim: D of the time embedding.
        weights_hash: identity of config and weights: another one whenever eps may differ.
        calls: passes made since the backbone was built.
    """

    def __init__(self, config: BackboneConfig, unet: UNet2DModel) -> None:
        self.config = config
        self.unet = unet.eval().requires_grad_(False)
        self.name = config.name
        self.image_size = config.image_size
        self.patch_size = config.patch_size
        self._codec = BandCodec(config.patch_size, config.bands) if config.bands else None
        self.prediction = config.prediction
        self.learned_sigma = config.learned_sigma
        self.family = config.family
        self.micro_batch = config.micro_batch
        self.schedule = config.schedule.build()
        channels = unet.config["block_out_channels"]
        side = config.image_size // config.patch_size // 2 ** (len(channels) - 1)
        self.h_shape = (channels[-1], side, side)
        self.temb_dim: int = unet.time_embedding.linear_2.out_features
        self.weights_hash = hash_json(
            {"config": config.model_dump(), "weights": hash_tensors(unet.state_dict())}
        )
        self.calls = CallCounter()
        self._encoder_half, self._decoder_half = encoder_half, decoder_half
        self._layouts: tuple[torch.memory_format, ...] = ()

    @classmethod
    def from_folder(cls, folder: Path) -> Backbone:
        """The backbone kept in a folder, of our own form or of diffusers'.

        Raises InvalidBenchmarkError if its files are absent, corrupt or do not fit each other.
        """
        if is_diffusers_folder(folder):
            return cls(*read_diffusers_folder(folder))
        return cls(*load_folder(folder))

    @property
    def device(self) -> torch.device:
        """Where the weights are; inputs are moved there."""
        return next(self.unet.parameters()).device

    def to(self, device: torch.device | str) -> Backbone:
        """Move the weights; returns self."""
        self.unet.to(device)  # type: ignore[arg-type]  # diffusers wraps it untyped
        return self

    def compile(self, backend: str = "inductor") -> Backbone:
        """Run either half as one compiled graph from now on, with last bits of its own.

        Halves and not blocks: graphs of blocks would each recycle the memory of skip connections
        that the decoder half is still to read. A `twin` and passes with gradients through the
        whole U-Net stay as they are. Returns self.
        """
        self._encoder_half = torch.compile(encoder_half, fullgraph=True, backend=backend)
        self._decoder_half = torch.compile(decoder_half, fullgraph=True, backend=backend)
        self.weights_hash = hash_json([self.weights_hash, "compiled", backend])
        return self

    def twin(self) -> Backbone:
        """A backbone whose weights are a copy, to be fine-tuned or shifted; this one stays frozen.

        Its passes are counted here too. It keeps this backbone's `weights_hash`, which no longer
        identifies the weights once the twin's are changed.
        """
        twin = copy.copy(self)
        twin.unet = copy.deepcopy(self.unet)
        twin._encoder_half, twin._decoder_half = encoder_half, decoder_half
        return twin

    def colour(self, white: Tensor) -> Tensor:
        """White noise [n, 3, H, W] as this model's x_T and as the noise of its x_t."""
        return white if self._codec is None else self._codec.colour(white)

    def whiten(self, noise: Tensor) -> Tensor:
        """The inverse of `colour`: what is near N(0, 1) a pixel for a good x_T."""
        return noise if self._codec is None else self._codec.whiten(noise)

    @contextmanager
    def count_calls(self) -> Iterator[CallCounter]:
        """A counter that holds, after the block, the passes made within it."""
        before = CallCounter(self.calls.encoder, self.calls.decoder)
        counter = CallCounter()
        try:
            yield counter
        finally:
            counter.encoder = self.calls.encoder - before.encoder
            counter.decoder = self.calls.decoder - before.decoder

    def time_embedding(self, t: int, count: int) -> Tensor:
        """[count, D]: what a delta-block gets beside h at timestep t."""
        with torch.no_grad():
            rows = time_embedding(self.unet, t, self.micro_batch)
        return rows[:1].to(self.unet.dtype).expand(count, -1)

    def eps_with_grad(self, x_t: Tensor, t: int) -> Tensor:
        """One whole pass that can be back-propagated, for fine-tuning a `twin`: eps like x_t.

        Gradients flow to x_t [n >= 1, 3, H, W] float32 and to whichever of the U-Net's parameters
        ask for them. The batch is run as it is, without micro-batches, so numbers may differ from
        `eps` in the last bits. Raises InputError for images of another size or t outside [0, T).
        """
        self._check(x_t, t)
        x_t = x_t.to(self.device)
        h, temb, skips = encoder_half(self.unet, self._input(x_t, t), t)
        self.calls.encoder += len(x_t)
        output = decoder_half(self.unet, h, temb, skips)
        self.calls.decoder += len(x_t)
        return self._eps_from_output(output, x_t, t)

    @torch.no_grad()
    def encode(self, x_t: Tensor, t: int) -> EncoderState:
        """The encoder half: conv_in, down blocks, mid block.

        Of x_t [n >= 1, 3, H, W] float32 at timestep t of all n. Raises InputError for images of
        another size or t outside [0, T).
        """
        self._check(x_t, t)
        x_t = x_t.to(self.device)

        def run(x: Tensor) -> tuple[Tensor, ...]:
            h, temb, skips = self._encoder_half(self.unet, self._input(x, t), t)
            self._layouts = tuple(_layout(x) for x in (h, *skips))
            return h.to(x), temb.to(x), *skips

        h, temb, *skips = run_in_micro_batches(run, self.micro_batch, x_t)
        self.calls.encoder += len(x_t)
        return EncoderState(x_t, t, h, temb, tuple(skips))

    def decode(self, state: EncoderState, delta_h: Tensor | None = None) -> Tensor:
        """The decoder half: up blocks and output, adapted to eps [n, 3, H, W] float32.

        delta_h [n, C, h, w] is added to h. Where it asks for gradients, that pass is run on the
        batch as it is, without micro-batches, so its numbers may differ in the last bits from
        inference.
        """
        h = state.h if delta_h is None else state.h + delta_h.to(state.h)
        self.calls.decoder += len(state)

        def run(x_t: Tensor, h: Tensor, temb: Tensor, *rest: Tensor) -> tuple[Tensor]:
            # As the encoder half left them: kernels, and so the last bits, depend on the layout.
            h, *skips = (
                x.contiguous(memory_format=layout)
                for x, layout in zip((h, *rest), self._layouts, strict=True)
            )
            output = self._decoder_half(self.unet, h, temb, tuple(skips))
            return (self._eps_from_output(output, x_t, state.t),)

        rows = (state.x_t, h, state.temb, *state.skips)
        if torch.is_grad_enabled() and h.requires_grad:
            return run(*rows)[0]
        with torch.no_grad():
            return run_in_micro_batches(run, self.micro_batch, *rows)[0]

    def eps(self, x_t: Tensor, t: int) -> Tensor:
        """Predicted noise of x_t [n, 3, H, W] at timestep t; same shape."""
        blocks = x_t.split(self.micro_batch)
        return torch.cat([self.decode(self.encode(block, t)) for block in blocks])

    def _check(self, x_t: Tensor, t: int) -> None:
        expected = (3, self.image_size, self.image_size)
        if x_t.ndim != 4 or tuple(x_t.shape[1:]) != expected or not len(x_t):
            raise InputError(
                f"images of shape {list(x_t.shape)} do not fit backbone '{self.name}', "
                f"which takes [n, {', '.join(map(str, expected))}]"
            )
        if not 0 <= t < self.schedule.num_timesteps:
            raise InputError(f"timestep {t} is outside [0, {self.schedule.num_timesteps})")

    def _input(self, x_t: Tensor, t: int) -> Tensor:
        if self._codec is None:
            return functional.pixel_unshuffle(x_t, self.patch_size)
        return self._codec.input(x_t, self.schedule.alpha_bar(t))

    def _eps_from_output(self, output: Tensor, x_t: Tensor, t: int) -> Tensor:
        output = output.to(x_t)
        if self._codec is not None:
            alpha_bar = self.schedule.alpha_bar(t)
            v = self._codec.v(output, self._codec.input(x_t, alpha_bar), alpha_bar)
            return self._codec.eps(v, x_t, alpha_bar)
        if self.learned_sigma:
            output = output[:, : output.shape[1] // 2]
        output = functional.pixel_shuffle(output, self.patch_size)
        alpha_bar = self.schedule.alpha_bar(t)
        if self.prediction == "v":
            output = alpha_bar**0.5 * output + (1 - alpha_bar) ** 0.5 * x_t
        elif self.prediction == "x0":
            output = (x_t - alpha_bar**0.5 * output) / (1 - alpha_bar) ** 0.5
        return output


def _layout(x: Tensor) -> torch.memory_format:
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


BACKBONES: Registry[Backbone] = Registry("backbone", entry_point_group="casl_bench.backbones")
"""Name → factory(folder of its files) of a Backbone."""
