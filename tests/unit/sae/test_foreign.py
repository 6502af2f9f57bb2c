"""Dictionaries of other packages, against what their own code makes of the same vectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.sae.dictionary import SAES, is_folder
from casl_bench.sae.foreign import content_hash, load_dictionary, load_folder

GOLDEN = Path(__file__).parents[2] / "support" / "foreign_dictionaries"
FOLDERS = sorted(path for path in GOLDEN.iterdir() if path.is_dir() and path.name[0] != "_")


def test_there_are_files_of_every_package() -> None:
    kinds = {path.name.rsplit("_", 1)[0] for path in FOLDERS}
    assert {"sae_lens", "sparsify", "dictionary_learning"} <= kinds
    assert len(FOLDERS) == 12


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_codes_and_reconstructions_are_those_of_the_package(folder: Path) -> None:
    expected = load_file(folder / "expected.safetensors")
    sae = load_dictionary(folder)
    z = sae.encode(expected["x"])
    assert torch.allclose(z, expected["z"], atol=1e-5)
    assert torch.equal(z > 0, expected["z"] > 0)
    assert torch.allclose(sae.decode(z), expected["x_hat"], atol=1e-4)
    assert 0 < float((z > 0).float().mean()) < 1


@pytest.mark.parametrize("fault", ["transposed", "threshold ignored", "bias not subtracted"])
def test_a_planted_fault_shows(fault: str) -> None:
    folder = GOLDEN / "sae_lens_jumprelu"
    expected = load_file(folder / "expected.safetensors")
    sae = load_dictionary(folder)
    with torch.no_grad():
        if fault == "transposed":
            sae.W_enc.copy_(sae.W_enc.clone().view(16, 6).T)
        elif fault == "threshold ignored":
            sae.threshold.zero_()
        else:
            sae.kind = sae.kind.model_copy(update={"subtract": False})
    assert not torch.allclose(sae.encode(expected["x"]), expected["z"], atol=1e-3)


def plain(**extra: torch.Tensor) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    weights = {
        "W_enc": torch.randn(4, 8, generator=rng),
        "b_enc": torch.randn(8, generator=rng),
        "W_dec": torch.randn(8, 4, generator=rng),
        "b_dec": torch.randn(4, generator=rng),
    }
    return weights | extra


def test_a_plain_file_is_the_formula(tmp_path: Path) -> None:
    weights, x = plain(), torch.randn(5, 4)
    save_file(weights, tmp_path / "mine.safetensors")
    pre = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    for path in (tmp_path, tmp_path / "mine.safetensors"):
        assert torch.allclose(load_dictionary(path).encode(x), pre.relu(), atol=1e-5)
    save_file(plain(k=torch.tensor(2)), tmp_path / "mine.safetensors")
    assert int((load_dictionary(tmp_path).encode(x) > 0).sum(1).max()) <= 2
    save_file(plain(threshold=torch.full((8,), 0.5)), tmp_path / "mine.safetensors")
    z = load_dictionary(tmp_path).encode(x)
    assert torch.allclose(z, torch.where(pre > 0.5, pre, 0.0), atol=1e-5)


def test_on_maps_it_takes_activations_as_they_are_or_normalised(tmp_path: Path) -> None:
    save_file(plain(), tmp_path / "mine.safetensors")
    h = torch.randn(2, 4, 3, 3)
    bare = load_folder(tmp_path, (0, 100))
    rows = h.flatten(2).transpose(1, 2).flatten(0, 1)
    codes = bare.encode(h, 100).flatten(2).transpose(1, 2).flatten(0, 1)
    assert torch.allclose(codes, bare.sae.encode(rows), atol=1e-5)
    statistics = {
        "timesteps": torch.tensor([0, 50, 100]),
        "mean": torch.randn(3, 4),
        "scale": torch.tensor([1.0, 2.0, 3.0]),
    }
    save_file(statistics, tmp_path / "normalisation.safetensors")
    own = load_folder(tmp_path, (0, 100))
    assert torch.equal(own.mean, statistics["mean"][[0, 2]])
    assert own.scale.tolist() == [1.0, 3.0]
    with pytest.raises(UsageError, match="lacks 99"):
        load_folder(tmp_path, (0, 99))


def test_the_hash_is_of_the_weights(tmp_path: Path) -> None:
    save_file(plain(), tmp_path / "mine.safetensors")
    before = content_hash(tmp_path)
    save_file(plain(b_enc=torch.zeros(8)), tmp_path / "mine.safetensors")
    assert content_hash(tmp_path) != before


def test_what_is_a_folder() -> None:
    assert is_folder("./mine") and is_folder("/a/b") and is_folder("mine.safetensors")
    assert not is_folder("top_k")


def test_an_installed_packages_kind_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SAES.entry_point_group == "casl_bench.saes"
    monkeypatch.setattr(SAES, "_factories", {**SAES._factories, "their_package/mine": object})
    assert not is_folder("their_package/mine") and is_folder("their_package/other")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architecture": "gated"}, "'gated' is not supported"),
        ({"normalize_activations": "layer_norm"}, "'layer_norm' is not supported"),
        ({"k": "many"}, "not the files of a dictionary"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    folder = tmp_path / "sae"
    shutil.copytree(GOLDEN / "sae_lens_topk", folder)
    settings = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(settings | change))
    with pytest.raises((UsageError, InvalidBenchmarkError), match=reason) as caught:
        load_dictionary(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "NaN", "lost"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "mine.safetensors"
    weights = plain()
    if damage == "NaN":
        weights["W_dec"][0, 0] = float("nan")
    if damage == "lost":
        del weights["b_enc"]
    save_file(weights, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InvalidBenchmarkError):
        load_dictionary(tmp_path)


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no dictionary"):
        load_dictionary(tmp_path)
