"""A dictionary on maps: normalised by their timestep, applied at every position, kept in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors.torch import save
from torch import Tensor

from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError, first_fault
from casl_bench.core.files import hash_json, read_checked, write_bytes, write_json
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.weights import fitted_state, read_checkpoint
from casl_bench.sae.dictionary import Dictionary, SaeConfig, dictionary_class

_CONFIG_FILE, _WEIGHTS_FILE = "cfg.json", "sae.safetensors"
_AGAIN = "delete its folder to train again"


class ActivationMaps(Protocol):
    """Activations of n images at every visited timestep, such as a `TrajectoryStore` of h."""

    timesteps: tuple[int, ...]  # increasing

    def __len__(self) -> int: ...

    def h(self, step: int, rows: Any = None) -> Tensor:
        """[m, C, h, w] at place `step` of the timesteps, of rows in this order."""
        ...


class _Stored(BaseModel):
    """What lies beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dictionary: str
    sae: dict[str, JsonValue]
    timesteps: tuple[int, ...] = Field(min_length=1)
    content_hash: str


class HSpaceSae:
    """A frozen dictionary with its per-timestep normalisation: h_norm = (h - mean[t]) / scale[t].

    Maps are cut into one vector a position, image by image: every matrix product has the same
    shape whatever the batch, so an image's code does not depend, bit for bit, on its batch. Maps
    and codes are float32 and lie where the SAE does.

    Attributes:
        sae: the dictionary of normalised vectors, weights frozen.
        timesteps: those it was trained on; others are refused.
        mean: [steps, C], mean of h over images and positions.
        scale: [steps], root mean square of h - mean over images, positions and channels.
    """

    def __init__(
        self, sae: Dictionary, timesteps: Sequence[int], mean: Tensor, scale: Tensor
    ) -> None:
        """Freeze the weights. Raises InvalidBenchmarkError on wrong shapes, NaN or infinity."""
        self.sae = sae.requires_grad_(False).eval()
        self.timesteps = tuple(int(t) for t in timesteps)
        self.mean, self.scale = mean.detach().float(), scale.detach().float()
        steps, channels = len(self.timesteps), sae.d_in
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
        return self.sae.W_dec.device

    @property
    def config(self) -> SaeConfig:
        """Kind and sizes."""
        return self.sae.config

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.sae.d_sae

    @property
    def channels(self) -> int:
        """C of h."""
        return self.sae.d_in

    def encode(self, h: Tensor, t: int) -> Tensor:
        """Encode h [n, C, h, w] at timestep t → z [n, d_sae, h, w], >= 0 unless signed.

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
                "dictionary": self.sae.info.name,
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
        try:
            kind = dictionary_class(stored.dictionary)
            config = kind.config_class.model_validate(stored.sae)
        except ValidationError as error:
            raise InvalidBenchmarkError(
                f"invalid settings of a stored SAE: {first_fault(error)}",
                where=str(folder / _CONFIG_FILE),
                hint=_AGAIN,
            ) from error
        except UsageError as error:
            raise InvalidBenchmarkError(
                f"a stored SAE is of an {error.what}",
                where=str(folder / _CONFIG_FILE),
                hint=f"name its --plugin, or {_AGAIN}",
            ) from error
        steps = len(stored.timesteps)
        with torch.device("meta"):  # whatever size the settings speak of, it takes no memory
            own = kind(config).state_dict()
            own |= {"mean": torch.empty(steps, config.d_in), "scale": torch.empty(steps)}
        state = fitted_state(own, read_checkpoint(path, _AGAIN).weights, str(path), hint=_AGAIN)
        mean, scale = state.pop("mean"), state.pop("scale")
        sae = kind(config)
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
        weights = {name: t.detach() for name, t in self.sae.state_dict().items()}
        return {**weights, "mean": self.mean, "scale": self.scale}

    def _content_hash(self) -> str:
        settings = [self.sae.info.name, self.config.model_dump(mode="json")]
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
