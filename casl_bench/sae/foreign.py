"""Dictionaries that were trained elsewhere, read from the files that other packages write.

| made by | files of the folder |
|---|---|
| SAELens | `cfg.json` with an `architecture`, `sae_weights.safetensors` |
| sparsify | `cfg.json`, `sae.safetensors` |
| dictionary_learning | `config.json`, `ae.pt` |
| anything else | one `.safetensors` of W_enc, b_enc, W_dec, b_dec, perhaps `threshold` or `k` |

They are applied to activations as they are. A file `normalisation.safetensors` beside them, with
`timesteps` [steps], `mean` [steps, C] and `scale` [steps], has activations normalised first, as
those of this package are. No code in a file is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_file, read_json
from casl_bench.models.weights import fitted_state, read_checkpoint
from casl_bench.sae.dictionaries.top_k import keep_top_k
from casl_bench.sae.dictionary import Activations, Dictionary, SaeConfig, SaeInfo
from casl_bench.sae.sae import HSpaceSae

NORMALISATION = "normalisation.safetensors"
_SAVE_AGAIN = "save it again"

Activation = Literal["relu", "top_k", "threshold", "group_max"]


class ForeignConfig(SaeConfig):
    """How codes are made. `k` counts for `top_k` and `group_max` only."""

    activation: Activation
    subtract: bool = True  # whether b_dec is subtracted before encoding


class ForeignDictionary(Dictionary):
    """Weights of another package, with its formula of a code."""

    info: ClassVar[SaeInfo] = SaeInfo(
        name="foreign", title="trained elsewhere", source="a folder", version=1, seeded=False
    )
    config_class = ForeignConfig

    def __init__(self, config: ForeignConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config, generator)
        self.kind = config
        self.threshold = nn.Parameter(torch.zeros(config.d_sae))

    def fit(self, activations: Activations) -> None:
        """Refused: it is trained."""
        raise UsageError("a dictionary of a folder is not fitted")

    def encode(self, h: Tensor) -> Tensor:
        """[m, d_in] → z [m, d_sae] >= 0."""
        kind = self.kind
        rows = h if kind.subtract else h + self.b_dec
        pre = self.pre_activations(rows)
        z = torch.relu(pre)
        if kind.activation == "threshold":
            return z * (pre > self.threshold)
        if kind.activation == "top_k":
            return keep_top_k(z, kind.k)
        if kind.activation == "group_max":
            groups = z.unflatten(1, (kind.k, -1))
            best = groups.max(2, keepdim=True)
            return torch.zeros_like(groups).scatter(2, best.indices, best.values).flatten(1)
        return z


def weights_file(path: Path) -> Path:
    """The file of weights that is read of a folder, or the file itself.

    Raises UsageError where nothing known lies there.
    """
    if path.is_file():
        return path
    for name in ("sae_weights.safetensors", "sae.safetensors", "ae.pt"):
        if (path / name).is_file():
            return path / name
    found = sorted(p for p in path.glob("*.safetensors") if p.name != NORMALISATION)
    if len(found) != 1:
        raise UsageError(
            "no dictionary that can be read" if path.is_dir() else "no such folder or file",
            where=str(path),
            hint="give a folder of SAELens, sparsify or dictionary_learning, or one file of "
            "W_enc, b_enc, W_dec, b_dec",
        )
    return found[0]


def content_hash(path: Path) -> str:
    """SHA-256 of the weights that are read of a place."""
    return hash_file(weights_file(path))


def load_dictionary(path: Path) -> ForeignDictionary:
    """Read a dictionary of vectors.

    Raises UsageError where there is none or its kind is unknown, InvalidBenchmarkError where its
    files are damaged.
    """
    file = weights_file(path)
    tensors = read_checkpoint(file, _SAVE_AGAIN).weights
    config_file = file.parent / ("config.json" if file.name == "ae.pt" else "cfg.json")
    settings: dict[str, Any] = {}
    if path.is_dir() and config_file.is_file():
        try:
            settings = read_json(config_file)
        except (OSError, ValueError) as error:
            raise InvalidBenchmarkError(
                f"unreadable settings of a dictionary: {error}", where=str(config_file)
            ) from error
    try:
        reader = _reader(file.name, settings)
        state, config = reader(tensors, settings)
        sae = ForeignDictionary(ForeignConfig.model_validate(config))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, UsageError | InvalidBenchmarkError):
            raise
        line = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise InvalidBenchmarkError(
            f"not the files of a dictionary: {line}", where=str(path), hint=_SAVE_AGAIN
        ) from error
    state.setdefault("threshold", torch.zeros(sae.d_sae))
    # One threshold for all latents is kept as one each.
    state["threshold"] = state["threshold"].flatten().expand(sae.d_sae)
    sae.load_state_dict(fitted_state(sae.state_dict(), state, str(file), hint=_SAVE_AGAIN))
    return sae.eval()


def load_folder(path: Path, timesteps: Sequence[int]) -> HSpaceSae:
    """A dictionary of maps, for a walk of these timesteps; see the module.

    Raises as `load_dictionary`, and UsageError where its normalisation lacks one of the timesteps.
    """
    sae = load_dictionary(path)
    file = (path if path.is_dir() else path.parent) / NORMALISATION
    steps = len(timesteps)
    if not file.is_file():
        return HSpaceSae(sae, timesteps, torch.zeros(steps, sae.d_in), torch.ones(steps))
    tensors = read_checkpoint(file, _SAVE_AGAIN).weights
    try:
        known = {int(t): i for i, t in enumerate(tensors["timesteps"])}
        places = [known[t] for t in timesteps]
        return HSpaceSae(sae, timesteps, tensors["mean"][places], tensors["scale"][places])
    except (KeyError, IndexError) as error:
        raise UsageError(
            f"the dictionary's normalisation lacks {error}", where=str(file),
            hint="it must hold mean and scale at every timestep that is visited",
        ) from error  # fmt: skip


Read = tuple[dict[str, Tensor], dict[str, Any]]
Reader = Callable[[Mapping[str, Tensor], Mapping[str, Any]], Read]


def _reader(file: str, settings: Mapping[str, Any]) -> Reader:
    if file == "ae.pt":
        return _dictionary_learning
    if "architecture" in settings:
        return _sae_lens
    if file == "sae.safetensors" and "d_in" in settings:
        return _sparsify
    return _plain


def _refused(what: str, hint: str) -> UsageError:
    return UsageError(f"a dictionary of {what} is not supported", hint=hint)


def _sizes(W_dec: Tensor) -> dict[str, Any]:
    return {"d_sae": W_dec.shape[0], "d_in": W_dec.shape[1], "k": min(32, W_dec.shape[0])}


def _plain(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Read:
    """W_enc [d_in, d_sae], b_enc, W_dec [d_sae, d_in], b_dec; perhaps `threshold`, or `k`."""
    state = dict(tensors)
    config = _sizes(state["W_dec"])
    k = state.pop("k", None)
    if k is not None:
        config |= {"activation": "top_k", "k": int(k)}
    else:
        config["activation"] = "threshold" if "threshold" in state else "relu"
    return state, config


def _sae_lens(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Read:
    architecture = settings["architecture"]
    kinds = {"standard": "relu", "topk": "top_k", "jumprelu": "threshold"}
    if architecture not in kinds:
        raise _refused(
            f"SAELens's architecture '{architecture}'",
            f"supported: {', '.join(kinds)}; BatchTopK and Matryoshka are saved as jumprelu by "
            "save_inference_model",
        )
    normalised = settings.get("normalize_activations", "none")
    if normalised != "none":
        raise _refused(
            f"normalize_activations '{normalised}'", "fold the normalisation into its weights"
        )
    state = dict(tensors)
    config = _sizes(state["W_dec"]) | {
        "activation": kinds[architecture],
        "subtract": bool(settings.get("apply_b_dec_to_input", True)),
    }
    if architecture == "topk":
        config["k"] = int(settings["k"])
    return (_unit_norm(state) if settings.get("rescale_acts_by_decoder_norm") else state), config


def _unit_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Latents rescaled so that every direction has unit norm; reconstructions stay the same."""
    norms = state["W_dec"].norm(dim=1)
    return {
        **state,
        "W_enc": state["W_enc"] * norms,
        "b_enc": state["b_enc"] * norms,
        "W_dec": state["W_dec"] / norms[:, None],
    }


def _sparsify(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Read:
    if settings.get("transcode") or "W_skip" in tensors:
        raise _refused("a transcoder", "take an autoencoder")
    kinds = {"topk": "top_k", "groupmax": "group_max"}
    state = {
        "W_enc": tensors["encoder.weight"].T,
        "b_enc": tensors["encoder.bias"],
        "W_dec": tensors["W_dec"],
        "b_dec": tensors["b_dec"],
    }
    kind = kinds[settings.get("activation", "topk")]
    return state, _sizes(state["W_dec"]) | {"activation": kind, "k": int(settings["k"])}


def _dictionary_learning(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Read:
    kind = settings["trainer"]["dict_class"]
    own = dict(tensors)
    if kind in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        state = {n: own[n] for n in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
        config = _sizes(state["W_dec"]) | {"activation": "threshold"}
        config["subtract"] = kind != "JumpReluAutoEncoder"
        return state, config
    if kind not in ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE"):
        raise _refused(
            f"dictionary_learning's class '{kind}'",
            "supported: AutoEncoder, AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE, "
            "JumpReluAutoEncoder",
        )
    state = {
        "W_enc": own["encoder.weight"].T,
        "b_enc": own["encoder.bias"],
        "W_dec": own["decoder.weight"].T,
        "b_dec": own["bias"] if kind == "AutoEncoder" else own["b_dec"],
    }
    config = _sizes(state["W_dec"])
    if kind == "AutoEncoder":
        return _unit_norm(state), config | {"activation": "relu"}  # as its loader does
    if kind == "AutoEncoderTopK":
        return state, config | {"activation": "top_k", "k": int(own["k"])}
    state["threshold"] = own["threshold"]
    return state, config | {"activation": "threshold"}
