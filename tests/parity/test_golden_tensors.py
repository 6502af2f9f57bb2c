"""Every golden tensor of both families is reproduced, and planted faults are noticed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from casl_bench.diffusion.ddim import ddim_step, predict_x_0
from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.methods.h_space_editor import DeltaH, EditWindow, generate_edits
from casl_bench.models.noise_schedule import linspace_timesteps

TOLERANCE = 1e-5
TRAJECTORY_TOLERANCE = 1e-3
# A fault must stand out of the tolerance by this factor, or the test could hardly fail.
MARGIN = 10
TIMES = (0, 47, 500, 999)
STEPS = ((0, -1), (25, 0), (512, 486), (999, 973))
STEP_T_EDIT = 400
TRAJECTORIES = ("x_T", "x0_reconstructed", "x0_edited_tedit500")


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module", params=["ddpm", "adm"])
def reference(request: pytest.FixtureRequest, load_reference: Any) -> Any:
    return load_reference(request.param)


@pytest.fixture(scope="module")
def backbone(reference: Any) -> Any:
    return reference.backbone()


@pytest.fixture(scope="module")
def inversions(reference: Any, backbone: Any) -> Inversions:
    return invert(
        backbone, ["a", "b"], reference.tensors["x0"], tuple(reference.config["sequence"])
    )


def delta_h_of(reference: Any, block: int = 0, sign: float = 1.0) -> DeltaH:
    return lambda h, t, temb: sign * reference.blocks[block](h, temb)


def at_timesteps(
    reference: Any, backbone: Any, shift: int = 0, sign: float = 1.0
) -> dict[str, Tensor]:
    """Everything the golden file holds at single timesteps."""
    found = {}
    first, second = delta_h_of(reference, 0, sign), delta_h_of(reference, 1, sign)
    for t in TIMES:
        at = t + shift if t < 999 else t - shift
        state = backbone.encode(reference.tensors[f"xt_{t}"], at)
        delta = first(state.h, at, state.temb)
        found[f"eps_{t}"] = backbone.decode(state)
        found[f"h_{t}"] = state.h
        found[f"delta_h_{t}"] = delta
        for c in (1.0, 1.7):
            found[f"eps_edit_{t}_c{c}"] = backbone.decode(state, c * delta)
        both = 0.6 * delta + 0.8 * second(state.h, at, state.temb)
        found[f"eps_edit2_{t}"] = backbone.decode(state, both)
    return found


def single_steps(
    reference: Any, backbone: Any, asymmetric: bool = True, sign: float = 1.0, shift: int = 0
) -> dict[str, Tensor]:
    """The golden file's asymmetric steps."""
    found = {}
    for t, t_next in STEPS:
        name = f"step_{t}_{t_next}"
        x_t = reference.tensors[f"{name}_xt"]
        state = backbone.encode(x_t, t)
        eps = eps_edited = backbone.decode(state)
        if t >= STEP_T_EDIT:
            delta = delta_h_of(reference, 0, sign)(state.h, t, state.temb)
            eps_edited = backbone.decode(state, delta)
        ab_t = backbone.schedule.alpha_bar(t)
        ab_next = backbone.schedule.alpha_bar(t_next + shift)
        found[f"{name}_x0"] = predict_x_0(x_t, eps_edited, ab_t)
        found[f"{name}_next"] = ddim_step(
            x_t, eps_edited, eps if asymmetric else eps_edited, ab_t, ab_next
        )
    return found


def edited(
    reference: Any,
    backbone: Any,
    inversions: Inversions,
    sign: float = 1.0,
    asymmetric: bool = True,
) -> Tensor:
    """The golden file's edit over the whole sequence."""
    window = EditWindow(reference.config["t_edit"], asymmetric=asymmetric)
    delta_h = delta_h_of(reference, 0, sign)
    return generate_edits(backbone, inversions, [1.0], delta_h, window, noise_seed=0)[0]


def test_schedule_and_sequence(reference: Any, backbone: Any) -> None:
    assert torch.equal(backbone.schedule.betas.float(), reference.tensors["betas"])
    assert list(linspace_timesteps(12, 999)) == reference.config["sequence"]


def test_every_tensor_of_one_step(reference: Any, backbone: Any) -> None:
    found = at_timesteps(reference, backbone) | single_steps(reference, backbone)
    inputs = {f"xt_{t}" for t in TIMES} | {f"step_{a}_{b}_xt" for a, b in STEPS}
    assert set(reference.tensors) == {*found, *inputs, *TRAJECTORIES, "x0", "betas"}
    errors = {k: relative_error(v, reference.tensors[k]) for k, v in found.items()}
    assert {k: e for k, e in errors.items() if not e <= TOLERANCE} == {}


def test_trajectories(reference: Any, backbone: Any, inversions: Inversions) -> None:
    images = (
        inversions.x_T,
        inversions.reconstruction,
        edited(reference, backbone, inversions),
    )
    found = dict(zip(TRAJECTORIES, images, strict=True))
    errors = {k: relative_error(v, reference.tensors[k]) for k, v in found.items()}
    assert {k: e for k, e in errors.items() if not e <= TRAJECTORY_TOLERANCE} == {}


def test_timestep_off_by_one_is_noticed(reference: Any, backbone: Any) -> None:
    found = at_timesteps(reference, backbone, shift=1)
    for name, value in found.items():
        assert relative_error(value, reference.tensors[name]) > MARGIN * TOLERANCE, name


def test_flipped_sign_of_delta_h_is_noticed(
    reference: Any, backbone: Any, inversions: Inversions
) -> None:
    found = at_timesteps(reference, backbone, sign=-1) | single_steps(reference, backbone, sign=-1)
    moved = [k for k in found if "edit" in k or k.startswith(("delta_h", "step_512", "step_999"))]
    assert len(moved) == 20
    for name in moved:
        error = relative_error(found[name], reference.tensors[name])
        assert error > MARGIN * TOLERANCE, name
    edit = edited(reference, backbone, inversions, sign=-1)
    error = relative_error(edit, reference.tensors["x0_edited_tedit500"])
    assert error > MARGIN * TRAJECTORY_TOLERANCE


def test_symmetric_step_is_noticed(reference: Any, backbone: Any, inversions: Inversions) -> None:
    found = single_steps(reference, backbone, asymmetric=False)
    for name in ("step_512_486_next", "step_999_973_next"):
        assert relative_error(found[name], reference.tensors[name]) > MARGIN * TOLERANCE
    edit = edited(reference, backbone, inversions, asymmetric=False)
    error = relative_error(edit, reference.tensors["x0_edited_tedit500"])
    assert error > MARGIN * TRAJECTORY_TOLERANCE


def test_next_timestep_off_by_one_is_noticed(reference: Any, backbone: Any) -> None:
    found = single_steps(reference, backbone, shift=1)
    for t, t_next in STEPS:
        name = f"step_{t}_{t_next}_next"
        assert relative_error(found[name], reference.tensors[name]) > MARGIN * TOLERANCE, name


def test_batch_company_changes_no_bit(
    reference: Any, backbone: Any, inversions: Inversions
) -> None:
    alone = invert(backbone, ["b"], reference.tensors["x0"][1:], inversions.timesteps)
    for field in dataclasses.fields(Inversions):
        both = getattr(inversions.take([1]), field.name)
        one = getattr(alone, field.name)
        assert torch.equal(both, one) if isinstance(both, Tensor) else both == one
