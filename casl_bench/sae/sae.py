"""The sparse autoencoder: on plain vectors, and on h maps normalised by their timestep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import save
from torch import Tensor, nn

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import hash_json, read_checked, write_bytes, write_json
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.weights import fitted_state, read_checkpoint

_CONFIG_FILE, _WEIGHTS_FILE = "cfg.json", "sae.safetensors"
_AGAIN = "delete its folder to train again"


class SaeConfig(BaseModel):
    """What kind of SAE. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    d_in: int = Field(gt=0, le=65_536)  # length of an input vector
    d_sae: int = Field(default=1024, gt=0, le=1 << 22)  # number of latents
    # "topk" keeps the k largest positive pre-activations of a vector, "relu" all positive ones
    # (sparsity then comes from the L1 term of the loss)
    activation: Literal["topk", "relu"] = "topk"
    k: int = Field(default=32, gt=0)  # active latents a vector at most; used by "topk" only

    @model_validator(mode="after")
    def _k_fits(self) -> SaeConfig:
        if self.activation == "topk" and self.k > self.d_sae:
            raise ValueError(f"k = {self.k} is larger than d_sae = {self.d_sae}")
        return self


class _Stored(BaseModel):
    """What lies beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sae: SaeConfig
    timesteps: tuple[int, ...] = Field(min_length=1)
    content_hash: str


class SparseAutoencoder(nn.Module):
    """z = act((h - b_pre) W_enc + b_enc);  h_hat = z W_dec + b_pre.

    act is TopK(ReLU(.)) or ReLU(.). Rows of W_dec have unit norm (kept so by the trainer), and the
    encoder starts as the decoder's transpose.

    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.
    """

    def __init__(self, config: SaeConfig, generator: torch.Generator | None = None) -> None:
        """Draw the decoder's directions; None leaves all weights zero, to be loaded."""
        super().__init__()
        self.config = config
        d_in, d_sae = config.d_in, config.d_sae
        directions = torch.zeros(d_sae, d_in)
        if generator is not None:
            directions = torch.randn(d_sae, d_in, generator=generator)
            directions /= directions.norm(dim=1, keepdim=True)
        self.W_enc = nn.Parameter(directions.T.clone().contiguous())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(directions)
        self.b_pre = nn.Parameter(torch.zeros(d_in))

    def pre_activations(self, h: Tensor) -> Tensor:
        """[m, d_in] → [m, d_sae], before the activation function."""
        if h.ndim != 2 or h.shape[1] != self.config.d_in:
            raise InputError(f"expected vectors [m, {self.config.d_in}], got {list(h.shape)}")
        return torch.addmm(self.b_enc, h - self.b_pre, self.W_enc)

    def activate(self, pre: Tensor) -> Tensor:
        """[m, d_sae] → [m, d_sae], >= 0, at most k positive a row with TopK."""
        z = torch.relu(pre)
        if self.config.activation == "relu":
            return z
        values, index = z.topk(self.config.k, dim=1)
        return torch.zeros_like(z).scatter(1, index, values)

    def encode(self, h: Tensor) -> Tensor:
        """[m, d_in] → z [m, d_sae], >= 0."""
        return self.activate(self.pre_activations(h))

    def decode(self, z: Tensor) -> Tensor:
        """Decode z [m, d_sae] → h_hat [m, d_in]."""
        return torch.addmm(self.b_pre, z, self.W_dec)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[m, d_in] → z [m, d_sae] >= 0, h_hat [m, d_in] and pre-activations [m, d_sae]."""
        pre = self.pre_activations(h)
        z = self.activate(pre)
        return z, self.decode(z), pre

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale every row of W_dec to norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Take from W_dec's gradient the part along each row, which normalising would undo."""
        gradient = self.W_dec.grad
        if gradient is not None:
            gradient -= (gradient * self.W_dec).sum(1, keepdim=True) * self.W_dec


class HSpaceSae:
    """A frozen SAE with its per-timestep normalisation: h_norm = (h - mean[t]) / scale[t].

    Maps are cut into one vector a position, image by image: every matrix product has the same
    shape whatever the batch, so an image's code does not depend, bit for bit, on its batch. Maps
    and codes are float32 and lie where the SAE does.

    Attributes:
        sae: the autoencoder on normalised vectors, weights frozen.
        timesteps: those it was trained on; others are refused.
        mean: [steps, C], mean of h over images and positions.
        scale: [steps], root mean square of h - mean over images, positions and channels.
    """

    def __init__(
        self, sae: SparseAutoencoder, timesteps: Sequence[int], mean: Tensor, scale: Tensor
    ) -> None:
        """Freeze the weights. Raises InvalidBenchmarkError on wrong shapes, NaN or infinity."""
        self.sae = sae.requires_grad_(False).eval()
        self.timesteps = tuple(int(t) for t in timesteps)
        self.mean, self.scale = mean.detach().float(), scale.detach().float()
        steps, channels = len(self.timesteps), sae.config.d_in
        if tuple(self.mean.shape) != (steps, channels) or tuple(self.scale.shape) != (steps,):
            raise InvalidBenchmarkError(
                f"SAE statistics have shapes {list(mean.shape)} and {list(scale.shape)}, "
                f"expected [{steps}, {channels}] and [{steps}]"
            )
        for name, tensor in self._tensors().items():
            if not bool(torch.isfinite(tensor).all()):
                raise InvalidBenchmarkError(f"SAE tensor '{name}' holds NaN or infinity")
        if not bool((self.scale > 0).all()):
            raise InvalidBenchmarkError("SAE scales must be positive")
        self._step = {t: i for i, t in enumerate(self.timesteps)}
        self.content_hash = self._content_hash()

    def to(self, device: torch.device | str) -> HSpaceSae:
        """Move the weights and statistics; returns self. What it is given must be there, too."""
        self.sae.to(device)
        self.mean, self.scale = self.mean.to(device), self.scale.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sae.W_enc.device

    @property
    def config(self) -> SaeConfig:
        """Kind and sizes."""
        return self.sae.config

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.sae.config.d_sae

    @property
    def channels(self) -> int:
        """C of h."""
        return self.sae.config.d_in

    def encode(self, h: Tensor, t: int) -> Tensor:
        """Encode h [n, C, h, w] at timestep t → z [n, d_sae, h, w], >= 0.

        Raises InputError on a timestep not trained on or a wrong shape.
        """
        step = self._step_of(t)
        self._check_maps(h, self.channels)
        mean, scale = self.mean[step], self.scale[step]
        return _map_positions(h, lambda rows: self.sae.encode((rows - mean) / scale), self.d_sae)

    def decode(self, z: Tensor, t: int) -> Tensor:
        """Decode z [n, d_sae, h, w] at timestep t → h_hat [n, C, h, w], in the units of h."""
        step = self._step_of(t)
        self._check_maps(z, self.d_sae)
        mean, scale = self.mean[step], self.scale[step]
        return _map_positions(z, lambda rows: self.sae.decode(rows) * scale + mean, self.channels)

    def reconstruct(self, h: Tensor, t: int) -> Tensor:
        """h_hat = decode(encode(h)), [n, C, h, w] at timestep t."""
        return self.decode(self.encode(h, t), t)

    def decode_delta(self, dz: Tensor, t: int) -> Tensor:
        """A shift of the code, dz [n, d_sae, h, w] → delta_h [n, C, h, w]: linear, no bias."""
        scale = self.scale[self._step_of(t)]
        self._check_maps(dz, self.d_sae)
        return _map_positions(dz, lambda rows: rows @ self.sae.W_dec * scale, self.channels)

    def normalise(self, h: Tensor, t: int) -> Tensor:
        """Cut h [n, C, h, w] at timestep t into normalised vectors [n * h * w, C], image by image.

        For statistics: unlike `encode`, products of these rows may depend on the batch.
        """
        step = self._step_of(t)
        self._check_maps(h, self.channels)
        rows = h.flatten(2).transpose(1, 2).flatten(0, 1)
        return (rows - self.mean[step]) / self.scale[step]

    def save(self, folder: Path) -> None:
        """Write `cfg.json` and `sae.safetensors`, each whole or not at all.

        Raises UsageError where the folder cannot be written.
        """
        tensors = {name: t.cpu().contiguous() for name, t in self._tensors().items()}
        write_bytes(folder / _WEIGHTS_FILE, save(tensors))
        # The configuration comes last: a folder without it is not a stored SAE.
        write_json(
            folder / _CONFIG_FILE,
            {
                "sae": self.config.model_dump(mode="json"),
                "timesteps": list(self.timesteps),
                "content_hash": self.content_hash,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> HSpaceSae:
        """Read what `save` wrote.

        Raises InvalidBenchmarkError if a file is absent, truncated, of other shapes, holds NaN or
        differs from the stored content hash.
        """
        path = folder / _WEIGHTS_FILE
        stored = read_checked(_Stored, folder / _CONFIG_FILE, "settings of a stored SAE", _AGAIN)
        steps, config = len(stored.timesteps), stored.sae
        with torch.device("meta"):  # whatever size the settings speak of, it takes no memory
            own = SparseAutoencoder(config).state_dict()
            own |= {"mean": torch.empty(steps, config.d_in), "scale": torch.empty(steps)}
        state = fitted_state(own, read_checkpoint(path, _AGAIN).weights, str(path), hint=_AGAIN)
        mean, scale = state.pop("mean"), state.pop("scale")
        sae = SparseAutoencoder(config)
        sae.load_state_dict(state)
        try:
            loaded = cls(sae, stored.timesteps, mean, scale)
        except InvalidBenchmarkError as error:
            raise InvalidBenchmarkError(error.what, where=str(path), hint=_AGAIN) from error
        if loaded.content_hash != stored.content_hash:
            raise InvalidBenchmarkError(
                "the SAE's weights are not those that were written", where=str(path), hint=_AGAIN
            )
        return loaded

    def _tensors(self) -> dict[str, Tensor]:
        weights = {name: p.detach() for name, p in self.sae.named_parameters()}
        return {**weights, "mean": self.mean, "scale": self.scale}

    def _content_hash(self) -> str:
        settings = self.config.model_dump(mode="json")
        return hash_json([settings, list(self.timesteps), hash_tensors(self._tensors())])

    def _step_of(self, t: int) -> int:
        if t not in self._step:
            raise InputError(
                f"the SAE was not trained at timestep {t}", hint=f"it knows {self.timesteps}"
            )
        return self._step[t]

    @staticmethod
    def _check_maps(maps: Tensor, channels: int) -> None:
        if maps.ndim != 4 or maps.shape[1] != channels:
            raise InputError(f"expected maps [n, {channels}, h, w], got {list(maps.shape)}")


def _map_positions(maps: Tensor, of_rows: Callable[[Tensor], Tensor], channels: int) -> Tensor:
    """Apply a function of vectors [h*w, C] to maps [n, C, h, w], one image at a time."""
    n, _, height, width = maps.shape
    if n == 0:
        return maps.new_zeros(0, channels, height, width)
    # Contiguous: strides, too, may decide which matrix kernel runs.
    rows = (m.flatten(1).T.contiguous() for m in maps)
    return torch.stack([of_rows(r).T.reshape(channels, height, width) for r in rows])


@runtime_checkable
class SaeProvider(Protocol):
    """Trains or loads the one SAE of a (backbone, data set, settings), by content key."""

    def get(self) -> HSpaceSae:
        """The SAE. The first call may train it (a minute); later ones return the same object."""
