"""The shipped domain: whole, within its size, and refused when a file of it is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_file
from casl_bench.domains.rendered import (
    ASSETS,
    CLASSIFIERS,
    RENDERED,
    rendered_domain,
)

WEIGHTS = sorted(p.relative_to(ASSETS) for p in ASSETS.rglob("*.safetensors"))


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ASSETS, tmp_path / "assets"))


@pytest.mark.parametrize("domain", RENDERED)
def test_the_models_of_a_domain_take_at_most_9_mib(domain: str) -> None:
    files = [p for p in (ASSETS / domain).rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 9 * 2**20
    assert not [p for p in files if p.suffix == ".png"], "no sheets of samples"


@pytest.mark.parametrize("name", RENDERED)
def test_guide_and_scorer_are_two_networks(name: str) -> None:
    domain = rendered_domain(name)
    assert domain.guide_clip.weights_hash != domain.score_clip.info.weights_hash
    assert len({c.info.weights_hash for c in domain.classifiers}) == len(CLASSIFIERS) == 3
    assert domain.dataset.card.domain_kind == "synth"


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda p: "/".join(p.parts[:2]))
def test_a_truncated_file_is_refused_by_name(assets: Path, weights: Path) -> None:
    path = assets / weights
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InvalidBenchmarkError) as refused:
        rendered_domain(weights.parts[0], assets=assets)
    assert weights.parent.name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_nan_weights_of_the_unet_are_refused(assets: Path) -> None:
    path = assets / "rendered_faces" / "unet" / "unet.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    save_file(tensors, path)
    with pytest.raises(InvalidBenchmarkError, match="NaN"):
        rendered_domain("rendered_faces", assets=assets)


def test_absent_models_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidBenchmarkError, match="absent"):
        rendered_domain("rendered_faces", assets=tmp_path)


def test_another_device_is_refused() -> None:
    with pytest.raises(UsageError, match="cuda"):
        rendered_domain("rendered_faces", "cuda:0")


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda p: "/".join(p.parts[:2]))
def test_every_card_names_the_weights_beside_it(weights: Path) -> None:
    card = json.loads((ASSETS / weights).with_name("card.json").read_text())
    assert card["sha256"] == hash_file(ASSETS / weights)
