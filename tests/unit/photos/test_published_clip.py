"""Published CLIPs: pixels and GELU as the tag says, files that are none, and nobody asked."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED
from safetensors.torch import load_file, save_file
from torch import Tensor

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.photos import published_clip
from casl_bench.photos.domains import load_clip
from tests.support.real_files import TINY_CLIP, register_tiny_clip, write_clip

OPENAI = open_clip.OPENAI_DATASET_MEAN
HALF = (0.5, 0.5, 0.5)
WORDS = ["a", "photo", "of", "dog", "hat", "face", "<pad>", "<eos>", "<unk>"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    return write_clip(folder / "tiny.safetensors", register_tiny_clip(folder), "guide")


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Published weights of the tiny architecture, as open_clip lists them."""
    made: dict[str, Any] = {}
    monkeypatch.setitem(_PRETRAINED, TINY_CLIP, made)
    return made


def tag(mean: tuple[float, ...] = OPENAI, **more: Any) -> dict[str, Any]:
    usual = {"std": open_clip.OPENAI_DATASET_STD, "interpolation": "bicubic", "hf_hub": "me/tiny/"}
    return {**usual, "mean": mean, **more}


def placed(weights: Path, root: Path, name: str) -> Path:
    place = root / "clip" / f"{TINY_CLIP}.{name}.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    os.link(weights, place)
    return place


def mean_of(clip: Any) -> list[float]:
    return [round((float(x) + 1) / 2, 6) for x in clip._mean.flatten()]


def gelus(clip: Any) -> set[str]:
    return {type(m).__name__ for m in clip._network.modules() if "GELU" in type(m).__name__}


def test_the_tag_says_how_pixels_are_seen_and_which_gelu_is_meant(
    weights: Path, tags: dict[str, Any], tmp_path: Path
) -> None:
    tags["plain"] = tag()
    tags["other"] = tag(HALF, quick_gelu=True, interpolation="bilinear")
    for name in tags:
        placed(weights, tmp_path, name)
    plain, other = (load_clip(f"{TINY_CLIP}:{name}", tmp_path, False) for name in tags)
    assert mean_of(plain) == pytest.approx(OPENAI, abs=1e-5) and gelus(plain) == {"GELU"}
    assert mean_of(other) == [*HALF] and gelus(other) == {"QuickGELU"}
    assert other._interpolation == "bilinear"
    assert plain.weights_hash != other.weights_hash


def test_the_name_of_a_file_is_a_tag_and_without_one_its_pixels_are_not_known(
    weights: Path, tags: dict[str, Any], tmp_path: Path
) -> None:
    tags["plain"], tags["other"] = tag(), tag(HALF)
    named = placed(weights, tmp_path, "other")
    assert mean_of(load_clip(f"{TINY_CLIP}:{named}", tmp_path, False)) == [*HALF]
    with pytest.raises(UsageError, match=f"name it {TINY_CLIP}.TAG.safetensors; tags: plain, oth"):
        load_clip(f"{TINY_CLIP}:{weights}", tmp_path, False)
    del tags["plain"]
    assert mean_of(load_clip(f"{TINY_CLIP}:{weights}", tmp_path, False)) == [*HALF]


def test_without_a_tag_the_gelu_is_not_known_where_published_weights_differ(
    weights: Path, tags: dict[str, Any], tmp_path: Path
) -> None:
    tags["plain"], tags["quick"] = tag(), tag(quick_gelu=True)
    with pytest.raises(UsageError, match=r"published with different GELUs.*name it .*\.TAG"):
        load_clip(f"{TINY_CLIP}:{weights}", tmp_path, False)
    for name, gelu in (("plain", "GELU"), ("quick", "QuickGELU")):
        named = placed(weights, tmp_path, name)
        assert gelus(load_clip(f"{TINY_CLIP}:{named}", tmp_path, False)) == {gelu}
    del tags["plain"]
    assert gelus(load_clip(f"{TINY_CLIP}:{weights}", tmp_path, False)) == {"QuickGELU"}


def test_a_tag_that_contradicts_its_architecture_is_refused(
    weights: Path, tags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags["plain"] = tag()
    quick = {**open_clip.get_model_config(TINY_CLIP), "quick_gelu": True}
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: quick)
    placed(weights, tmp_path, "plain")
    with pytest.raises(UsageError, match="built with QuickGELU, its tag 'plain' is without"):
        load_clip(f"{TINY_CLIP}:plain", tmp_path, False)
    assert gelus(load_clip(f"{TINY_CLIP}:{weights}", tmp_path, False)) == {"QuickGELU"}


def test_every_published_tag_has_its_own_pixels_and_gelu() -> None:
    found = 0
    for architecture, tags in _PRETRAINED.items():
        for name, says in tags.items():
            mean, std, kind = published_clip._pixels(architecture, name, Path("x.bin"))
            assert mean == tuple(says.get("mean") or OPENAI)
            assert kind == (says.get("interpolation") or "bicubic") and len(std) == 3
            found += mean != OPENAI
            own = bool(open_clip.get_model_config(architecture).get("quick_gelu"))
            quick = published_clip._quick_gelu(architecture, name, own, Path("x.bin"))
            assert quick == bool(says.get("quick_gelu"))
            repository, names = published_clip.clip_on_hub(architecture, name)
            assert repository.count("/") == 1 and names[0].endswith(".safetensors")
    assert found >= 50


def _cut(path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN: dict[str, tuple[str, Callable[[Path, dict[str, Tensor]], object], str]] = {
    "cut": ("x.safetensors", _cut, "cut short or damaged"),
    "renamed": ("x.safetensors", lambda p, s: torch.save(s, p), "rename it to end in .pt"),
    "renamed back": ("x.pt", lambda p, s: save_file(s, p), "rename it to end in .safetensors"),
    "page": ("x.pt", lambda p, s: p.write_text("<!DOCTYPE html>403"), "a web page"),
    "pointer": ("x.bin", lambda p, s: p.write_text("version https://git-lfs.x/spec"), "git lfs"),
    "empty": ("x.safetensors", lambda p, s: p.touch(), "an empty file"),
    "code": (
        "x.pt", lambda p, s: torch.save({"state_dict": s, "args": argparse.Namespace(a=1)}, p),
        "holds 'argparse.Namespace', which is code and is not run",
    ),
    "another layout": (
        "x.bin", lambda p, s: torch.save({"text_model.embeddings.x": torch.zeros(2, 2)}, p),
        "weights do not fit: missing positional_embedding",
    ),
    "another resolution": (
        "x.pt", lambda p, s: torch.save({**s, "positional_embedding": torch.zeros(9, 32)}, p),
        "positional_embedding is [9, 32], not [77, 32]",
    ),
    "NaN": (
        "x.pt", lambda p, s: torch.save({**s, "logit_scale": torch.tensor(torch.nan)}, p),
        "logit_scale holds NaN",
    ),
    "whole numbers": (
        "x.pt", lambda p, s: torch.save({**s, "logit_scale": torch.tensor(3)}, p),
        "logit_scale is int64, not float32",
    ),
    "folder": ("x.pt", lambda p, s: p.mkdir(), "no such weights file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_none_is_one_line_with_its_name_and_a_cure(
    kind: str, weights: Path, tmp_path: Path
) -> None:
    name, write, told = BROKEN[kind]
    write(tmp_path / name, load_file(weights))
    with pytest.raises(BenchError) as caught:
        load_clip(f"{TINY_CLIP}:{tmp_path / name}", tmp_path, False)
    line = str(caught.value)
    assert told in line and str(tmp_path / name) in line and "\n" not in line
    assert "weights_only" not in line and "\x1b" not in line and caught.value.hint
    assert caught.value.exit_code == (2 if kind == "folder" else 5)


def cached(root: Path, hub_id: str) -> Path:
    """An empty repository in a local cache of the Hub."""
    home, commit = root / f"models--{hub_id.replace('/', '--')}", "0" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    folder = home / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The local cache, on a machine that may ask the Hub for all that the environment says."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def register(folder: Path, name: str, **text: Any) -> str:
    config = json.loads(json.dumps(open_clip.get_model_config(TINY_CLIP)))
    config["text_cfg"] |= text
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def write_tokenizer(folder: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)


def test_a_tokenizer_of_the_hub_is_read_from_the_cache_and_nobody_is_asked(
    weights: Path, hub: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers", reason="tokenizers of the Hub need it")
    name = register(tmp_path, "tiny-hub-words", hf_tokenizer_name="me/words")
    with pytest.raises(UsageError, match=r"tokenizer of tiny-hub-words \('me/words'\) is not"):
        load_clip(f"{name}:{weights}", tmp_path, False)
    folder = cached(hub, "me/words")
    with pytest.raises(UsageError, match=r"cannot be read: .*--allow-download"):
        load_clip(f"{name}:{weights}", tmp_path, False)
    write_tokenizer(folder)
    clip = load_clip(f"{name}:{weights}", tmp_path, False)
    assert clip._tokenizer(["a photo of hat"]).tolist()[0][:5] == [0, 1, 2, 4, 6]
    assert clip.encode_text(["dog"]).shape == (1, 16)


def test_a_text_tower_of_the_hub_is_built_from_the_cache_and_nobody_is_asked(
    hub: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="text towers of the Hub need it")
    text = {"hf_tokenizer_name": "me/words", "hf_model_name": "me/tower", "context_length": 12}
    name = register(tmp_path, "tiny-hub-tower", **text, hf_pooler_type="mean_pooler")
    write_tokenizer(cached(hub, "me/words"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="config of the text tower of tiny-hub-tower"):
        load_clip(f"{name}:{tmp_path / 'x.pt'}", tmp_path, False)
    config = transformers.RobertaConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=20, pad_token_id=6,
    )  # fmt: skip
    config.save_pretrained(cached(hub, "me/tower"))
    with pytest.raises(InvalidBenchmarkError, match="missing visual"):
        load_clip(f"{name}:{tmp_path / 'x.pt'}", tmp_path, False)


def test_all_architectures_that_name_the_hub_are_refused_without_a_word_to_it(
    weights: Path, hub: Path, tmp_path: Path
) -> None:
    named = [a for a in open_clip.list_models()
             if open_clip.get_model_config(a)["text_cfg"].get("hf_tokenizer_name")]  # fmt: skip
    assert len([a for a in named if not a.startswith("tiny-")]) >= 49
    for architecture in named:
        tag = next(iter(open_clip.list_pretrained_tags_by_model(architecture)), "none")
        place = tmp_path / "clip" / f"{architecture}.{tag}.safetensors"
        place.parent.mkdir(exist_ok=True)
        os.link(weights, place)
        with pytest.raises(UsageError, match=r"local cache; --allow|contradicts itself"):
            load_clip(f"{architecture}:{tag}", tmp_path, False)


def test_weights_are_fetched_only_where_that_is_allowed(
    weights: Path, tags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags["plain"] = tag()
    asked: list[tuple[str, list[str]]] = []

    def fetch(hub_id: str, allow_patterns: list[str], local_files_only: bool) -> str:
        assert not local_files_only
        asked.append((hub_id, allow_patterns))
        os.link(weights, tmp_path / "open_clip_model.safetensors")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(UsageError, match=r"are missing.*--allow-download"):
        load_clip(f"{TINY_CLIP}:plain", tmp_path / "none", False)
    assert not asked
    load_clip(f"{TINY_CLIP}:plain", tmp_path / "none", True)
    assert asked == [("me/tiny", ["open_clip_model.safetensors"])]
    with pytest.raises(UsageError, match="unknown tag 'nope' of tiny-test-clip; known: plain"):
        load_clip(f"{TINY_CLIP}:nope", tmp_path / "none", True)
