"""Inputs broken on purpose, each from its own seed: one line, exit code 2 or 5, and nothing run.

Weights, configs and photographs as a user may hand them over: cut short, swapped, of other kinds
and shapes, packed to burst, links, folders, pipes that nobody writes to, and pickles with code.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from casl_bench.cli.main import main
from casl_bench.core.errors import BenchError
from casl_bench.domains.rendered import ASSETS, CLASSIFIERS
from casl_bench.methods.delta_block import build_delta_block, load_delta_block
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import Backbone
from casl_bench.models.clip import ClipModel
from casl_bench.models.embedder import RenderEmbedder
from casl_bench.models.factor_regressor import FactorRegressor
from casl_bench.models.weights import read_checkpoint
from casl_bench.photos.checkpoints.convert import open_backbone
from casl_bench.photos.domains import load_clip
from casl_bench.photos.photo_file import MAX_PIXELS, read_photo
from casl_bench.photos.scorers.classifier import PhotoClassifier, build_network
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import SaeConfig
from casl_bench.sae.sae import HSpaceSae
from tests.support.real_files import register_tiny_clip, tiny_unet, write_backbone, write_clip

ATTEMPTS = 10
"""Seeds of each kind of input."""

State = dict[str, Tensor]
Damage = Callable[[Path, random.Random, Path], object]


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, left: Path) -> None:
        self.left = left

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.left,)


# --- What is done to any file ---------------------------------------------------------------------


def cut(path: Path, rng: random.Random, left: Path) -> None:
    whole = path.read_bytes()
    lengths = [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1, rng.randrange(len(whole))]
    path.write_bytes(whole[: rng.choice(lengths)])


def flip(path: Path, rng: random.Random, left: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 9)):
        content[rng.randrange(min(len(content), rng.choice([64, 2000, len(content)])))] ^= 0x5A
    path.write_bytes(content)


def replace(path: Path, rng: random.Random, left: Path) -> None:
    texts = ["<!DOCTYPE html><p>sign in", "version https://git-lfs.github.com/spec/v1\noid x",
             "{}", "[]", "null", "\ufeff{", "[" * 9000, '{"a":' * 9000, "9" * 5000, "NaN", "\0",
             "PK\x03\x04" + "\0" * 99, "\x80\x02.", "{" + " " * 9]  # fmt: skip
    path.write_bytes(rng.choice([*(t.encode() for t in texts), rng.randbytes(3000)]))


def other_thing(path: Path, rng: random.Random, left: Path) -> None:
    path.unlink()
    kind = rng.choice(["nothing", "folder", "pipe", "loop", "broken link", "linked pipe", "device"])
    beside = path.with_name("beside")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "broken link":
        path.symlink_to(beside)
    elif kind == "linked pipe":
        os.mkfifo(beside)
        path.symlink_to(beside)
    elif kind == "device":
        path.symlink_to("/dev/zero")


def code(path: Path, rng: random.Random, left: Path) -> None:
    trap = Trap(left)
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt") and rng.random() < 0.7:
        torch.save(
            rng.choice([trap, {"state_dict": {"a": trap}}, [trap], {"0": trap}]), path,
            _use_new_zipfile_serialization=rng.random() < 0.5,
        )  # fmt: skip
    else:
        path.write_bytes(pickle.dumps(trap, protocol=rng.randrange(2, 6)))


ANY: list[Damage] = [cut, cut, flip, replace, other_thing, code]


# --- What is done to weights ----------------------------------------------------------------------


def state_of(path: Path) -> State:
    content = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
    state: State = content.get("0", content)
    return {name: tensor.clone() for name, tensor in state.items()}


def write(path: Path, state: State) -> None:
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        torch.save({"0": state} if path.suffix == ".pth" else state, path)


def tensors(path: Path, rng: random.Random, left: Path) -> None:
    state = state_of(path)
    name = rng.choice([n for n, t in state.items() if t.is_floating_point()])
    tensor = state[name]
    swapped = rng.choice([n for n in state if state[n].shape != tensor.shape])
    dtype = rng.choice([torch.int64, torch.complex64, torch.bool, torch.uint8])
    changes: dict[str, Callable[[], Any]] = {
        "lost": lambda: state.pop(name),
        "extra": lambda: state.update(extra=torch.zeros(2)),
        "swapped": lambda: state.update({name: state[swapped], swapped: tensor}),
        "kind": lambda: state.update({name: tensor.to(dtype)}),
        "NaN": lambda: tensor.view(-1).__setitem__(0, rng.choice([torch.nan, torch.inf])),
        "too large for single precision": lambda: state.update({name: tensor.double() + 1e300}),
        "longer": lambda: state.update({name: torch.cat([tensor.reshape(-1)] * 2)}),
        "empty": lambda: state.update({name: torch.zeros(0)}),
        "a number": lambda: state.update({name: torch.tensor(1.0)}),
        "more dimensions": lambda: state.update({name: tensor.reshape(1, 1, 1, *tensor.shape)}),
        "nothing": state.clear,
    }
    if path.suffix != ".safetensors":
        changes |= {
            "expanded": lambda: state.update({name: torch.zeros(1).expand(10**12)}),
            "without numbers": lambda: state.update({name: torch.empty(9, device="meta")}),
            "sparse": lambda: state.update({name: tensor.reshape(-1).to_sparse()}),
        }
    rng.choice([*changes.values()])()
    write(path, state)


def header(path: Path, rng: random.Random, left: Path) -> None:
    """A header of safetensors that promises what is not there."""
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    head = json.loads(whole[8 : 8 + length])
    name = rng.choice([n for n in head if n != "__metadata__"])
    entry, huge = head[name], rng.choice([10**6, 10**12, 2**62, 2**64, -1])
    change = rng.choice(["shape", "offsets", "dtype", "length", "twice", "deep"])
    if change == "shape":
        entry["shape"] = [huge, *entry["shape"][1:]]
    elif change == "offsets":
        entry["data_offsets"] = [0, huge]
    elif change == "dtype":
        entry["dtype"] = rng.choice(["F8_E4M3", "I64", "BOOL", "X9", "F4", None, 3])
    elif change == "deep":
        head[name] = [[[entry]]]
    text = json.dumps(head).encode()
    if change == "twice":
        text = text[:-1] + f', "{name}": {json.dumps(entry)}}}'.encode()
    size = huge % 2**64 if change == "length" else len(text)
    path.write_bytes(struct.pack("<Q", size) + text + whole[8 + length :])


def archive(path: Path, rng: random.Random, left: Path) -> None:
    """An archive of torch's form that bursts, or whose parts are not those of its index."""
    names = {"data.pkl": pickle.dumps({"a": 1}), "version": b"3\n", "byteorder": b"little"}
    kind = rng.choice(["bomb", "no index", "program", "lies", "names"])
    if kind == "bomb":
        names["data/0"] = bytes(1 << 26)
    elif kind == "no index":
        del names["data.pkl"]
    elif kind == "program":
        names["constants.pkl"] = b"\x80\x02)."
    elif kind == "lies":
        saved = io.BytesIO()
        torch.save({"a": torch.zeros(4)}, saved)
        with zipfile.ZipFile(saved) as packed:
            names = {n.partition("/")[2]: packed.read(n) for n in packed.namelist()}
        names["data/0"] = b"\0"
    with zipfile.ZipFile(path, "w", rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])) as z:
        for name, content in names.items():
            z.writestr(f"../{name}" if kind == "names" else f"net/{name}", content)


def renamed(path: Path, rng: random.Random, left: Path) -> None:
    state = state_of(path)
    if path.suffix == ".safetensors":
        torch.save(state, path, _use_new_zipfile_serialization=rng.random() < 0.5)
    else:
        save_file(state, path)


def of_weights(path: Path, rng: random.Random, left: Path) -> None:
    kinds = [*ANY, tensors, tensors, tensors, renamed]
    rng.choice([*kinds, header, header] if path.suffix == ".safetensors" else [*kinds, archive])(
        path, rng, left
    )


# --- What is done to a config ---------------------------------------------------------------------


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else range(len(value))
    return [p for key in keys for p in ((value, key), *places(value[key]))]


def of_config(path: Path, rng: random.Random, left: Path) -> None:
    if rng.random() < 0.4:
        return rng.choice(ANY)(path, rng, left)
    content = json.loads(path.read_text())
    for _ in range(rng.randrange(1, 3)):
        holder, key = rng.choice(places(content) or [({}, "")])
        holder[key] = rng.choice(
            [10**12, 3000, -1, 0, 1e-300, float("nan"), float("inf"), -0.5, None, True, "", "x",
             [], {}, [10**9] * 3, ["x"] * 200, {"a": {"b": 1}}, 2**70, [[1]], "\ud800"]
        )  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8", errors="surrogateescape")
    return None


# --- The inputs -----------------------------------------------------------------------------------


def sae_folder(folder: Path) -> Path:
    sae = TopK(SaeConfig(d_in=6, d_sae=12, k=3), torch.Generator().manual_seed(0))
    HSpaceSae(sae, (0, 300), torch.zeros(2, 6), torch.ones(2)).save(folder)
    return folder


def delta_block(folder: Path) -> Path:
    block = build_delta_block("ddpm", 8, 12, torch.Generator().manual_seed(0))
    folder.mkdir(parents=True)
    torch.save({"0": block.state_dict(), "optimizer": {}}, folder / "happy.pth")
    return folder


def user_classifier(folder: Path) -> Path:
    folder.mkdir(parents=True)
    torch.save(build_network("timm:test_resnet", 2).state_dict(), folder / "mine.pt")
    described = {"architecture": "timm:test_resnet", "attributes": ["hat", "pale"],
                 "image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3,
                 "calibration": {"scale": [1.0, 1.0], "bias": [0.0, 0.0]}}  # fmt: skip
    (folder / "mine.json").write_text(json.dumps(described))
    return folder


def published_clip(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_clip(folder / "clip.safetensors", register_tiny_clip(folder), "guide")
    torch.save(load_file(folder / "clip.safetensors"), folder / "clip.pt")
    return folder


def backbone(folder: Path) -> Path:
    return write_backbone(folder, tiny_unet(16))


def shipped(name: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copytree(ASSETS / "rendered_faces" / name, folder))


def small_unet(folder: Path) -> Path:
    return shipped("unet")(folder)


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    torch.save({"conv.weight": torch.ones(3, 2), "conv.bias": torch.ones(3)}, folder / "net.ckpt")
    return folder


Input = tuple[Callable[[Path], Path], str, Damage, Callable[[Path], object]]

INPUTS: dict[str, Input] = {
    "checkpoint": (checkpoint, "net.ckpt", of_weights, lambda f: read_checkpoint(f / "net.ckpt")),
    "diffusers weights": (
        backbone, "diffusion_pytorch_model.safetensors", of_weights, Backbone.from_folder
    ),
    "diffusers config": (backbone, "config.json", of_config, Backbone.from_folder),
    "diffusers scheduler": (
        backbone, "scheduler_config.json", of_config,
        lambda f: ((f / "casl_bench.json").unlink(), Backbone.from_folder(f)),
    ),
    "backbone of ours": (backbone, "casl_bench.json", of_config, Backbone.from_folder),
    "shipped U-Net's config": (small_unet, "config.json", of_config, Backbone.from_folder),
    "Δ-block": (delta_block, "happy.pth", of_weights, lambda f: load_delta_block(f / "happy.pth")),
    "SAE": (sae_folder, "sae.safetensors", of_weights, HSpaceSae.load),
    "SAE's settings": (sae_folder, "cfg.json", of_config, HSpaceSae.load),
    "published CLIP": (
        published_clip, "clip.safetensors", of_weights,
        lambda f: load_clip(f"tiny-test-clip:{f / 'clip.safetensors'}", f, False),
    ),
    "published CLIP of torch": (
        published_clip, "clip.pt", of_weights,
        lambda f: load_clip(f"tiny-test-clip:{f / 'clip.pt'}", f, False),
    ),
    "classifier": (
        user_classifier, "mine.pt", of_weights,
        lambda f: PhotoClassifier.load(f / "mine.pt", ("hat", "pale")),
    ),
    "classifier's description": (
        user_classifier, "mine.json", of_config,
        lambda f: PhotoClassifier.load(f / "mine.pt", ("hat", "pale")),
    ),
    "shipped classifier": (
        shipped(CLASSIFIERS[0]), "card.json", of_config, AttributeClassifier.load
    ),
    "shipped regressor": (
        shipped("factor_regressor"), "card.json", of_config, FactorRegressor.load
    ),
    "shipped CLIP": (shipped("guide_clip"), "card.json", of_config, ClipModel.load),
    "shipped embedder": (shipped("render_embedder"), "card.json", of_config, RenderEmbedder.load),
    "shipped embedder's weights": (
        shipped("render_embedder"), "model.safetensors", of_weights, RenderEmbedder.load
    ),
    "opened from anywhere": (
        backbone, "diffusion_pytorch_model.safetensors", of_weights,
        lambda f: open_backbone(f, name="net", micro_batch=1),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An input that is sound, made once."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = INPUTS[kind][0](tmp_path_factory.mktemp("whole") / "input")
        return made[kind]

    return folder


def in_time(read: Callable[[], object]) -> BaseException | None:
    """What reading raised; a pipe that nobody writes to must not stop it."""
    raised: list[BaseException | None] = []

    def attempt() -> None:
        try:
            read()
            raised.append(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            raised.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert raised, "it never ends"
    return raised[0]


@pytest.mark.parametrize("kind", INPUTS)
def test_what_is_broken_is_sound_before(kind: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(whole(kind), tmp_path / "input"))
    INPUTS[kind][3](folder)


@pytest.mark.parametrize("seed", range(ATTEMPTS))
@pytest.mark.parametrize("kind", INPUTS)
def test_a_broken_input_is_one_line(
    kind: str, seed: int, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    _, name, damage, read = INPUTS[kind]
    folder = Path(shutil.copytree(whole(kind), tmp_path / "input"))
    left = tmp_path / "left"
    damage(folder / name, random.Random(f"more {kind} {seed}"), left)
    error = in_time(lambda: read(folder))
    assert not left.exists(), "code was run"
    if error is None:  # a change that means nothing, such as a flipped bit of a number
        return
    assert isinstance(error, BenchError), repr(error)
    line = str(error)
    assert error.exit_code in (2, 5) and "\n" not in line and len(line) < 1500
    assert str(folder) in line, "no file is named"
    assert error.hint, "no cure is named"
    assert "weights_only" not in line


def picture(rng: random.Random) -> bytes:
    noise = np.random.default_rng(rng.randrange(99)).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, rng.choice(["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"]))
    return file.getvalue()


def png_bomb(path: Path, rng: random.Random, left: Path) -> None:
    """A few bytes whose header promises more pixels than memory holds, or that unpack to them."""
    side = rng.choice([int(MAX_PIXELS**0.5) + 1, 10**6, 2**31 - 1, 0])
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
             (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26))),
             (b"IDAT", zlib.compress(bytes(1 << 20))), (b"IEND", b"")]  # fmt: skip
    chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d))
              for n, d in parts]  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize("seed", range(3 * ATTEMPTS))
def test_a_broken_photograph_is_one_line(seed: int, tmp_path: Path) -> None:
    rng, path = random.Random(seed), tmp_path / "photo.jpg"
    path.write_bytes(picture(rng))
    rng.choice([*ANY, png_bomb])(path, rng, tmp_path / "left")
    error = in_time(lambda: read_photo(path, 16))
    assert not (tmp_path / "left").exists()
    if error is not None:
        assert isinstance(error, BenchError) and error.exit_code == 5, repr(error)
        assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("seed", range(ATTEMPTS))
def test_a_broken_checkpoint_converts_to_one_line_and_nothing_else(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = checkpoint(tmp_path / "in") / "net.ckpt", tmp_path / "out"
    of_weights(path, random.Random(seed), tmp_path / "left")
    assert main(["convert", str(path), "--out", str(out)]) in (2, 5)
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "unforeseen" not in said.err
    assert not out.exists() and not (tmp_path / "left").exists()
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())
