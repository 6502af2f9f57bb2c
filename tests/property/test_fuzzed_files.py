"""Whatever a file holds that a user hands over, its fault is one line: a hundred tries of each."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casl_bench.cache.store import Cache, CacheKey
from casl_bench.cli.main import main
from casl_bench.core.errors import BenchError
from casl_bench.models.diffusers_folder import read_diffusers_folder, scheduler_settings
from casl_bench.models.model_files import read_model
from casl_bench.photos.checkpoints.convert import read_config
from casl_bench.photos.photo_dataset import read_concepts
from casl_bench.photos.scorers.classifier import read_sidecar
from casl_bench.runs.run_lock import check_run_folder, claim_run_folder, config_of_run
from casl_bench.runs.suites import TUNED, RunConfig, read_settings, suite
from casl_bench.runs.tuning import TrialResult, TrialStore
from tests.support.real_files import tiny_unet

PACKAGE = Path(read_concepts.__code__.co_filename).parents[1]
RECORDS = gzip.decompress(
    (
        Path(__file__).parents[2] / "leaderboards" / "archive" / "all-standard-seed0.jsonl.gz"
    ).read_bytes()
).decode()

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
ODD = ("NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud800"', '"\\u0000"', "[" * 5_000, "{}", "[]",
       '{"a":' * 4_000, "", "\ufeff{}", "\u2028", "null")  # fmt: skip
"""What parsers trip over."""


def command(*arguments: str) -> None:
    """A command that may refuse the file, in one line."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(list(arguments))
    assert code in (0, 2, 5), said.getvalue()
    assert "unforeseen" not in said.getvalue() and said.getvalue().count("\n") <= 1


def config(out: Path) -> RunConfig:
    return RunConfig(
        methods=("casl",), datasets=("rendered_faces",), concepts=None, suite=suite("quick"),
        seed=0, device="cpu", out=out,
    )  # fmt: skip


def manifest(folder: Path) -> str:
    with claim_run_folder(config(folder)):
        (folder / "kept").touch()
        return (folder / "manifest.json").read_text(encoding="utf-8")


KEY = CacheKey("fits", {"seed": 0, "about": ["a data set", "a method"]})


def sidecar(folder: Path) -> str:
    entry = Cache(folder / "other").get_or_make(KEY, lambda f: (f / "x").write_bytes(b"x"))
    return (entry.folder / "meta.json").read_text(encoding="utf-8")


def of_a_network(folder: Path) -> str:
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler), encoding="utf-8")
    return json.dumps({"_class_name": "UNet2DModel", **tiny_unet()})


def a_trial(folder: Path) -> str:
    return TrialResult(
        key="k" * 64, dataset="a", method="b", method_version=1, concept="c", settings={},
        method_config={"gain": 1.0},
    ).model_dump_json()  # fmt: skip


def text(content: Any) -> Callable[[Path], str]:
    return lambda folder: content if isinstance(content, str) else json.dumps(content)


FILES: dict[str, tuple[str, Callable[[Path], str], Callable[[Path], object]]] = {
    "method settings": ("chosen.json", text(TUNED.read_text("utf-8")), read_settings),
    "concepts": (
        "mine.toml",
        text((PACKAGE / "photos" / "concepts" / "afhq_dog.toml").read_text("utf-8")),
        read_concepts,
    ),
    "classifier": (
        "net.json",
        text({
            "attributes": ["hat", "pale"], "image_size": 64, "mean": [0.5] * 3, "std": [0.5] * 3,
            "calibration": {"scale": [1.0, 1.0], "bias": [0.0, 0.0]},
        }),
        read_sidecar,
    ),
    "checkpoint config": (
        "mine.json",
        text((PACKAGE / "photos/checkpoints/configs/afhq_dog_256_adm.json").read_text("utf-8")),
        read_config,
    ),
    "scheduler": (
        "scheduler_config.json",
        text({"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}),
        lambda path: scheduler_settings(path.parent),
    ),
    "network": ("config.json", of_a_network, lambda path: read_diffusers_folder(path.parent)),
    "model card": (
        "card.json", text({"sha256": "0" * 64, "config": {}}),
        lambda path: read_model(path.parent),
    ),
    "manifest": ("manifest.json", manifest, lambda path: check_run_folder(config(path.parent))),
    "manifest of a study": (
        "manifest.json", manifest,
        lambda path: config_of_run(path.parent, ("rendered_faces",), ("casl",)),
    ),
    "cache entry": (
        f"cache/fits/{KEY.hash}/meta.json", sidecar, lambda path: Cache(path.parents[2]).find(KEY)
    ),
    "cache listed": (
        f"cache/fits/{KEY.hash}/meta.json", sidecar,
        lambda path: command("cache", "ls", "--cache", str(path.parents[2])),
    ),
    "trial": (
        f"{'k' * 32}.json", a_trial, lambda path: TrialStore(path.parent).find("k" * 64)
    ),
    "records": (
        "records.jsonl",
        text("\n".join(RECORDS.splitlines()[:2])),
        lambda path: command("table", str(path)),
    ),
    "submission": (
        "records.jsonl",
        text("\n".join(RECORDS.splitlines()[:2])),
        lambda path: command("leaderboard", "--records", str(path.parent), "--out",
                             str(path.parent)),
    ),
    "study": (
        "headline.jsonl", text({"kind": "editor"}),
        lambda path: command("study", "headline", "--render-only", "--out",
                             str(path.parent)),
    ),
}  # fmt: skip


@st.composite
def broken(draw: st.DrawFn, valid: str) -> bytes:
    """A valid file's content with something about it changed, or anything else."""
    whole = valid.encode()
    how = draw(st.sampled_from(["value", "value", "key", "cut", "byte", "odd", "insert", "bytes"]))
    place = draw(st.integers(0, len(whole) - 1))
    if how == "bytes":
        return draw(st.binary(max_size=200))
    if how == "cut":
        return whole[:place]
    if how == "byte":
        return whole[:place] + bytes([draw(st.integers(0, 255))]) + whole[place + 1 :]
    if how == "odd":
        return draw(st.sampled_from(ODD)).encode()
    if how == "insert":
        return whole[:place] + draw(st.sampled_from(ODD)).encode() + whole[place:]
    try:
        lines = [json.loads(line) for line in valid.splitlines()]
    except ValueError:
        try:
            lines = [json.loads(valid)]
        except ValueError:
            return draw(st.binary(max_size=200))
    holder, key = draw(st.sampled_from(list(places(lines))))
    if how == "value":
        holder[key] = draw(JSON)
    elif isinstance(holder, dict):
        holder[draw(st.text(max_size=5))] = holder.pop(key)
    else:
        del holder[key]
    return "\n".join(map(json.dumps, lines)).encode()


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@pytest.mark.parametrize("kind", FILES)
def test_a_broken_file_is_one_line(kind: str, tmp_path: Path) -> None:
    name, content, read = FILES[kind]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    valid = content(tmp_path)

    @settings(max_examples=100)
    @given(broken(valid))
    def fault_of(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read(path)
        except BenchError as error:
            assert str(error) and "\n" not in str(error)

    fault_of()


MORE_THAN_THE_FILE = {"network", "model card", "cache entry", "study", "submission"}


@pytest.mark.parametrize("kind", sorted(FILES.keys() - MORE_THAN_THE_FILE))
def test_a_sound_file_is_read(kind: str, tmp_path: Path) -> None:
    """What the tries begin with is what these readers take."""
    name, content, read = FILES[kind]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content(tmp_path), encoding="utf-8")
    read(path)
