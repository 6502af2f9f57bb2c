"""Published CLIPs: open_clip's networks with the weights and tokenizers that are here.

open_clip itself would ask the Hub for text towers and tokenizers, whether the weights are here or
not, and know what a tag says of its pixels only where it fetched the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor

from casl_bench.core.errors import InvalidBenchmarkError, UsageError, unknown_name
from casl_bench.core.files import hash_json
from casl_bench.models.clip import ClipModel
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.weights import CANNOT_BUILD, fitted_state, read_checkpoint
from casl_bench.photos import hub_folder

T = TypeVar("T")

TEMPLATES: tuple[str, ...] = tuple(t("{}") for t in open_clip.OPENAI_IMAGENET_TEMPLATES)
"""Sentences into which the prompts of a published CLIP are put."""

_OPENAI = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, "bicubic")
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TOKENIZER_FILES = ("*.json", "*.model", "*.txt")
# What older transformers counted, and what OpenAI's own networks say of themselves.
_NO_WEIGHTS = (
    "text.transformer.embeddings.position_ids", "input_resolution", "context_length", "vocab_size",
)  # fmt: skip


def clip_on_hub(architecture: str, tag: str) -> tuple[str, tuple[str, ...]]:
    """Where the Hub has the weights of a tag: repository and file names, best first.

    Both are empty where open_clip knows no such tag.
    """
    place = (open_clip.get_pretrained_cfg(architecture, tag) or {}).get("hf_hub", "")
    owner, _, rest = place.partition("/")
    repository, _, name = rest.partition("/")
    names = (str(Path(name).with_suffix(".safetensors")), name) if name else _FILES
    return (f"{owner}/{repository}", names) if place else ("", ())


def fetch_clip(architecture: str, tag: str) -> Path:
    """The weights file of a tag, from the Hub. Raises UsageError: no such tag, or no answer."""
    hub_id, names = clip_on_hub(architecture, tag)
    for name in names:
        path = hub_folder(hub_id, [name], True) / name
        if path.exists():
            return path
    known = ", ".join(open_clip.list_pretrained_tags_by_model(architecture))
    raise UsageError(f"unknown tag '{tag}' of {architecture}", hint=f"known: {known}")


def published_clip(
    architecture: str, weights: Path, tag: str = "", allow_download: bool = False
) -> ClipModel:
    """A published CLIP from its weights file; nothing else is fetched unless `allow_download`.

    `tag`, or the file's name ARCHITECTURE.TAG, is what open_clip calls these weights: it says how
    pixels are normalised and which GELU is meant. Other files are taken as what all published
    weights of the architecture share.

    Raises:
        UsageError: no such architecture, one of several normalisations or GELUs without a tag, or
            a tokenizer that is not here.
        InvalidBenchmarkError: the file is damaged, unsafe or of another architecture.
    """
    if architecture not in open_clip.list_models():
        raise unknown_name("CLIP architecture", architecture, open_clip.list_models())
    config: dict[str, Any] = open_clip.get_model_config(architecture)
    stem = weights.stem.removeprefix(f"{architecture}.")
    name = tag or stem
    if stem != weights.stem or tag:
        tag = name.lower().replace("-", "_")  # as open_clip reads it
    pixels, own_gelu = _pixels(architecture, tag, weights), bool(config.get("quick_gelu"))
    meant = _quick_gelu(architecture, tag, own_gelu, weights)
    if own_gelu and not meant:
        raise UsageError(
            f"{architecture} is built with QuickGELU, its tag '{tag}' is without",
            hint="open_clip contradicts itself; name a file, ARCHITECTURE:FILE, to take the "
            "architecture's word",
        )
    gelu = config["quick_gelu"] = meant
    tokenizer = _tokenizer(architecture, config["text_cfg"], allow_download)
    state = read_checkpoint(weights).weights
    network = _filled(architecture, config, state, weights)
    digest = hash_tensors(network.state_dict())
    if (pixels, gelu) != (_OPENAI, own_gelu):
        digest = hash_json([digest, pixels, gelu])
    size: Any = network.visual.image_size
    mean, std, interpolation = pixels
    return ClipModel(
        f"open_clip:{architecture}:{name}",
        network,
        tokenizer,
        digest,
        size if isinstance(size, int) else size[0],
        mean,
        std,
        TEMPLATES,
        interpolation,
    )


def _pixels(architecture: str, tag: str, weights: Path) -> tuple[Any, Any, str]:
    """Mean and deviation of each channel, and the filter of resizing."""
    of: dict[str, tuple[Any, Any, str]] = {}
    for name in open_clip.list_pretrained_tags_by_model(architecture):
        says = open_clip.get_pretrained_cfg(architecture, name)
        keys = ("mean", "std", "interpolation")
        mean, std, kind = (says.get(k) or usual for k, usual in zip(keys, _OPENAI, strict=True))
        of[name] = (tuple(mean), tuple(std), kind)
    return _of_tag(of, tag, _OPENAI, architecture, "pixels", weights)


def _quick_gelu(architecture: str, tag: str, own: bool, weights: Path) -> bool:
    """Whether the quick GELU is meant."""
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    of = {t: bool(open_clip.get_pretrained_cfg(architecture, t).get("quick_gelu")) for t in tags}
    # An architecture that is built with it is what a file without a tag was made for.
    return own if own and tag not in of else _of_tag(of, tag, own, architecture, "GELUs", weights)


def _of_tag(
    of: Mapping[str, T], tag: str, default: T, architecture: str, what: str, weights: Path
) -> T:
    """What the tag says; without one, what all tags say. UsageError where these differ."""
    if tag not in of and len(set(of.values())) > 1:
        raise UsageError(
            f"weights of {architecture} are published with different {what}, and the file does "
            "not say whose they are",
            where=str(weights),
            hint=f"name it {architecture}.TAG{weights.suffix}; tags: {', '.join(of)}",
        )
    return of[tag] if tag in of else next(iter(of.values()), default)


def _tokenizer(
    architecture: str, text: dict[str, Any], allow_download: bool
) -> Callable[[list[str]], Tensor]:
    """The tokenizer; a text tower of the Hub is named in `text` by where its config lies here."""
    name, length = text.get("hf_tokenizer_name"), text.get("context_length", 77)
    settings = text.get("tokenizer_kwargs") or {}
    tokenizer: Callable[[list[str]], Tensor]
    if not name:
        tokenizer = open_clip.SimpleTokenizer(context_length=length, **settings)
        return tokenizer
    missing = f"the tokenizer of {architecture} ('{name}') is not"
    folder = hub_folder(name, _TOKENIZER_FILES, allow_download, missing)
    if tower := text.get("hf_model_name"):
        missing = f"the config of the text tower of {architecture} ('{tower}') is not"
        text["hf_model_name"] = str(hub_folder(tower, ["config.json"], allow_download, missing))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = open_clip.tokenizer.HFTokenizer(
                str(folder), context_length=length, tokenizer_mode=text.get("tokenizer_mode"),
                local_files_only=True, **settings,
            )  # fmt: skip
            return tokenizer
    except (OSError, ImportError, *CANNOT_BUILD) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(
            f"the tokenizer of {architecture} ('{name}') cannot be read: {line}",
            where=str(folder),
            hint="--allow-download lets it be fetched; it needs the package transformers",
        ) from error


def _filled(
    architecture: str, config: dict[str, Any], state: dict[str, Tensor], weights: Path
) -> Any:
    """The network of a config with these weights."""
    config["text_cfg"]["hf_model_pretrained"] = False
    config["vision_cfg"]["timm_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    whole = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    hint = (
        f"take open_clip's own file of {architecture} (such as {_FILES[0]}), neither transformers' "
        "nor an archive of the authors"
    )
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = (whole if custom else open_clip.CLIP)(**config)
            state = convert_state_dict(network, state)
        if "positional_embedding" in state and not hasattr(network, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
    except (OSError, ImportError, *CANNOT_BUILD) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidBenchmarkError(
            f"no weights of {architecture}: {line}", where=str(weights), hint=hint
        ) from error
    own = network.state_dict()
    state = {k: v for k, v in state.items() if k in own or k not in _NO_WEIGHTS}
    # A scale may be a number or a vector of one.
    for name in {"logit_scale", "logit_bias"} & state.keys() & own.keys():
        if state[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    network.load_state_dict(fitted_state(own, state, str(weights), hint=hint))
    return network
