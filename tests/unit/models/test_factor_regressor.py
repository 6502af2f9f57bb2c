"""The regressor of known factors: a row depends on its image alone; changes mean what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.models.factor_regressor import FactorRegressor, build_regressor
from casl_bench.models.model_files import write_model
from casl_bench.models.scorers import FactorReader, ScorerInfo

ATTRIBUTES = ("on", "lit")
COLUMNS = (*ATTRIBUTES, "place", "hue", "hue", "tone")
CONFIG = {
    "architecture": "lookout", "widths": [4, 8], "lookouts": 3, "seen": 2, "hidden": 8,
    "attributes": list(ATTRIBUTES), "columns": list(COLUMNS), "image_size": 64,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_regressor(CONFIG)
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors["calibration.scale"] = torch.full((6,), 2.0)
    tensors["calibration.bias"] = torch.full((6,), 0.5)
    write_model(tmp_path / "f", tensors, {"name": "f", "config": CONFIG})
    return tmp_path / "f"


@pytest.fixture
def images() -> Tensor:
    return torch.rand(21, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def first_pixels() -> FactorRegressor:
    """A column is the value of one pixel of the first row."""

    class Pick(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels[:, 0, 0, : len(COLUMNS)]

    ones, zeros = torch.ones(len(COLUMNS)), torch.zeros(len(COLUMNS))
    info = ScorerInfo("first_pixels", "factors", 1, "")
    return FactorRegressor(info, ATTRIBUTES, COLUMNS, Pick(), ones, zeros, 64)


def picture(*values: float) -> Tensor:
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[0, 0, 0, : len(values)] = torch.tensor(values)
    return pixels


def test_a_row_depends_on_its_image_alone(folder: Path, images: Tensor) -> None:
    regressor = FactorRegressor.load(folder)
    whole, other = regressor.factors(images), images.flip(3)
    assert whole.shape == (21, 6)
    target, others = regressor.factor_change(other, images, "lit")
    for n in (1, 3, 16, 17):
        assert torch.equal(regressor.factors(images[:n]), whole[:n])
        few = regressor.factor_change(other[:n], images[:n], "lit")
        assert torch.equal(few[0], target[:n]) and torch.equal(few[1], others[:n])
    order = torch.arange(20, -1, -1)
    assert torch.equal(regressor.factors(images[order]), whole[order])


def test_it_is_a_factor_reader_with_one_name_a_factor(folder: Path) -> None:
    regressor = FactorRegressor.load(folder)
    assert isinstance(regressor, FactorReader) and regressor.info.kind == "factors"
    assert regressor.columns == COLUMNS
    assert regressor.names == ("on", "lit", "place", "hue", "tone")


def test_calibration_is_applied_and_pixels_are_clamped(folder: Path, images: Tensor) -> None:
    regressor = FactorRegressor.load(folder)
    readings = regressor._network(images[:16]) * 2 + 0.5
    found = regressor.factors(images[:16])
    assert torch.allclose(found[:, 2:], readings[:, 2:], atol=1e-4)
    # A fair coin's share less its mean 1/2, over its deviation 1/2.
    shares = readings[:, :2].sigmoid()
    assert torch.allclose(found[:, :2], (shares - 0.5) / 0.5, atol=1e-4)
    assert torch.allclose(regressor.shares(images[:16]), shares, atol=1e-4)
    assert torch.equal(regressor.factors(images * 9), regressor.factors((images * 9).clamp(-1, 1)))


def test_changes_worked_by_hand(first_pixels: FactorRegressor) -> None:
    base = picture(-1.0, 0.0, 0.5, 0.6, -0.2, 0.0)
    edited = picture(1.0, 0.0, 0.25, 0.3, 0.2, 0.1)
    on = 2 * torch.tensor(0.5).tanh()
    # The hue's two columns moved by -0.3 and 0.4: root mean square sqrt(0.25 / 2).
    expected = torch.tensor([[float(on), 0.0, 0.25, 0.125**0.5, 0.1]])
    assert torch.allclose(first_pixels.changes(edited, base), expected, atol=1e-6)
    target, others = first_pixels.factor_change(edited, base, "on")
    assert torch.allclose(target, on)
    assert torch.allclose(others, torch.tensor([(0.25 + 0.125**0.5 + 0.1) / 4]), atol=1e-6)
    target, others = first_pixels.factor_change(base, edited, "on")
    assert torch.allclose(target, -on)
    target, others = first_pixels.factor_change(edited, base, "lit")
    assert float(target) == 0
    assert torch.allclose(others, (on + 0.25 + 0.125**0.5 + 0.1) / 4, atol=1e-6)


def test_an_unchanged_image_has_not_changed(folder: Path, images: Tensor) -> None:
    target, others = FactorRegressor.load(folder).factor_change(images, images, "on")
    assert not target.any() and not others.any()


def test_loading_leaves_the_global_random_state(folder: Path) -> None:
    before = torch.get_rng_state()
    FactorRegressor.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_does_not_fit_is_refused(folder: Path, images: Tensor) -> None:
    regressor = FactorRegressor.load(folder)
    with pytest.raises(InputError, match="32, 32"):
        regressor.factors(torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="20 edited images for 21"):
        regressor.factor_change(images[1:], images, "on")
    with pytest.raises(UsageError, match="attribute 'hue'"):
        regressor.factor_change(images, images, "hue")


def test_no_images_give_no_rows(folder: Path) -> None:
    regressor, none = FactorRegressor.load(folder), torch.zeros(0, 3, 64, 64)
    assert regressor.factors(none).shape == (0, 6)
    assert [len(x) for x in regressor.factor_change(none, none, "on")] == [0, 0]


def test_damaged_or_foreign_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "d", {"network.x": torch.zeros(2)}, {"name": "d", "config": CONFIG})
    with pytest.raises(InvalidBenchmarkError, match="do not fit"):
        FactorRegressor.load(tmp_path / "d")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InvalidBenchmarkError, match="truncated"):
        FactorRegressor.load(folder)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="'deep'"):
        build_regressor({**CONFIG, "architecture": "deep"})
