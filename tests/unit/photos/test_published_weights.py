"""Published files are fetched whole and with the known hash, or not at all."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.photos.checkpoints.convert import read_config
from casl_bench.photos.domains import MOST_ROWS, rows_of_a_pass
from casl_bench.photos.published_weights import (
    WEIGHTS,
    Weight,
    fetch,
    found_at,
    refuse_other,
    state_of,
    weight_at,
)

CONTENT = b"weights" * 1000


@pytest.fixture
def published(tmp_path: Path) -> Weight:
    """A file that an address gives."""
    source = tmp_path / "published" / "net.pth"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return Weight("nets/net.pth", ("faces",), "a net", "here", "ours", sha256, source.as_uri())


def test_a_file_is_fetched_into_its_place(
    published: Weight, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "weights"
    assert state_of(published, root) == "missing"
    path = fetch(published, root)
    assert path == found_at(root, published.place) == root / "nets" / "net.pth"
    assert path.read_bytes() == CONTENT and state_of(published, root) == "as published"
    assert [p.name for p in path.parent.iterdir()] == ["net.pth"]
    assert f"fetching {published.url} to {path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"sha256": "0" * 64}, InvalidBenchmarkError, "not the published file"),
        ({"url": "file:///no/such/file"}, UsageError, "cannot be fetched: .*put the file at"),
    ],
)
def test_what_does_not_come_or_is_another_file_is_one_line_and_leaves_nothing(
    published: Weight, tmp_path: Path, change: dict[str, str], kind: type[BenchError], told: str
) -> None:
    root = tmp_path / "weights"
    with pytest.raises(kind, match=told) as raised:
        fetch(replace(published, **change), root)
    assert "\n" not in str(raised.value)
    assert not [*(root / "nets").iterdir()]


def test_a_file_of_the_hub_is_compared_with_what_is_known(
    published: Weight, tmp_path: Path
) -> None:
    path = fetch(published, tmp_path)
    refuse_other(path, published)
    refuse_other(path, None)
    path.write_bytes(b"another")
    with pytest.raises(InvalidBenchmarkError, match="not the published file"):
        refuse_other(path, published)


def test_an_address_is_known_with_its_hash_alone() -> None:
    for weight in WEIGHTS:
        assert len(weight.sha256) in (0, 64) and (not weight.url or weight.sha256)
    assert weight_at("lpips/alexnet-owt-7be5be79.pth").sha256.startswith("7be5be79")
    assert sum(bool(weight.url) for weight in WEIGHTS) >= 2


def test_rows_of_a_pass_follow_the_memory_of_the_gpu_and_the_size_of_the_network() -> None:
    from casl_bench.models.unet import BackboneConfig

    def config(channels: int, side: int) -> BackboneConfig:
        unet = {"block_out_channels": [channels, channels]}
        return BackboneConfig(name="a", image_size=side, unet=unet)

    assert read_config("celeba_hq_256_ddpm").base_channels == 128
    rows = [rows_of_a_pass(config(128, 256), gb * 10**9) for gb in (4, 8, 24, 80, 140)]
    assert rows == [2, 4, 8, 32, MOST_ROWS]
    assert rows_of_a_pass(config(256, 256), 24 * 10**9) == 4
    assert rows_of_a_pass(config(128, 64), 4 * 10**9) == MOST_ROWS
    assert rows_of_a_pass(config(128, 256), 10**8) == 1
