from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from casl_bench.core.errors import InputError
from casl_bench.diffusion.ddim import (
    ddim_generation,
    ddim_inversion,
    ddim_step,
    ddim_walk,
    generation_steps,
    predict_x_0,
)
from casl_bench.diffusion.inversion import invert
from casl_bench.models.backbone import Backbone, EncoderState
from casl_bench.models.noise_schedule import linspace_timesteps

Make = Callable[..., Backbone]
WALK = (0, 90, 400, 999)


def images(count: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def silent(backbone: Backbone) -> Backbone:
    """The same backbone with eps = 0 everywhere."""
    for parameter in backbone.unet.conv_out.parameters():
        torch.nn.init.zeros_(parameter)
    return backbone


def test_a_step_with_the_true_noise_stays_on_its_line() -> None:
    x_0, noise = images(2), torch.randn(2, 3, 16, 16)

    def at(ab: float) -> torch.Tensor:
        return ab**0.5 * x_0 + (1 - ab) ** 0.5 * noise

    torch.testing.assert_close(predict_x_0(at(0.3), noise, 0.3), x_0)
    for ab_next in (0.1, 0.8, 1.0):
        torch.testing.assert_close(ddim_step(at(0.3), noise, noise, 0.3, ab_next), at(ab_next))


def test_an_asymmetric_step_takes_each_noise_where_it_belongs() -> None:
    x_t, one, other = images(1), images(1, seed=2), images(1, seed=3)
    expected = 0.8**0.5 * predict_x_0(x_t, one, 0.3) + 0.2**0.5 * other
    torch.testing.assert_close(ddim_step(x_t, one, other, 0.3, 0.8), expected)


def test_a_stochastic_step_keeps_the_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.zeros(1, 3, 300, 300)
    eps, noise = (torch.randn(x_0.shape, generator=generator) for _ in range(2))
    ab, ab_next = 0.4, 0.7
    x_next = ddim_step((1 - ab) ** 0.5 * eps, eps, eps, ab, ab_next, noise)
    assert float(x_next.var()) == pytest.approx(1 - ab_next, rel=0.01)
    assert not torch.allclose(x_next, ddim_step((1 - ab) ** 0.5 * eps, eps, eps, ab, ab_next))
    # The last step is clean whatever the noise.
    clean = ddim_step((1 - ab) ** 0.5 * eps, eps, eps, ab, 1.0, noise)
    torch.testing.assert_close(clean, x_0, atol=1e-6, rtol=0)


def test_generation_makes_one_step_more_than_inversion() -> None:
    assert list(generation_steps(WALK)) == [(999, 400), (400, 90), (90, 0), (0, -1)]


def test_without_noise_the_round_trip_is_exact(make_backbone: Make) -> None:
    backbone = silent(make_backbone())
    x_0 = images(3)
    x_T = ddim_inversion(backbone, x_0, WALK)
    schedule = backbone.schedule
    shrink = (schedule.alpha_bar(999) / schedule.alpha_bar(0)) ** 0.5
    torch.testing.assert_close(x_T, shrink * x_0)
    # The image enters as x at t = 0 and leaves at t = -1, where alpha_bar is 1.
    back = ddim_generation(backbone, x_T, WALK) * schedule.alpha_bar(0) ** 0.5
    torch.testing.assert_close(back, x_0, rtol=1e-6, atol=1e-6)


def test_clipping_would_be_noticed(make_backbone: Make) -> None:
    # x_0 predictions beyond [-1, 1] must survive: clipping them loses what inversion needs.
    backbone = silent(make_backbone())
    x_0 = 3 * images(1)
    back = ddim_generation(backbone, ddim_inversion(backbone, x_0, WALK), WALK)
    torch.testing.assert_close(back * backbone.schedule.alpha_bar(0) ** 0.5, x_0)


def test_many_steps_reconstruct_better(make_backbone: Make) -> None:
    backbone = make_backbone(micro_batch=2)
    x_0 = images(2)
    errors = []
    for steps in (4, 40):
        walk = linspace_timesteps(steps, 600)
        back = ddim_generation(backbone, ddim_inversion(backbone, x_0, walk), walk)
        errors.append(float((back - x_0).pow(2).mean()))
    assert errors[1] < errors[0] / 3


def test_extrapolation_brings_the_round_trip_nearer_for_no_pass_more(make_backbone: Make) -> None:
    backbone, x_0, walk = make_backbone(), images(2), linspace_timesteps(40, 600)
    errors = []
    for extrapolate in (False, True):
        with backbone.count_calls() as calls:
            x_T = ddim_inversion(backbone, x_0, walk, extrapolate=extrapolate)
        assert calls.unet_calls == 2 * (len(walk) - 1)
        # As the image enters at t = 0, so it must come back there: the last step is left out.
        steps = tuple(generation_steps(walk))[:-1]
        errors.append(float((ddim_walk(backbone, x_T, steps) - x_0).abs().max()))
    assert errors[1] < errors[0] / 1.5


def test_a_foretold_step_is_the_line_through_the_last_two(make_backbone: Make) -> None:
    backbone, x_0, (t_0, t_1, t_2) = make_backbone(), images(2), (0, 100, 350)
    a = [backbone.schedule.alpha_bar(t) ** 0.5 for t in (t_0, t_1, t_2)]
    s = [(1 - backbone.schedule.alpha_bar(t)) ** 0.5 for t in (t_0, t_1, t_2)]
    eps = backbone.eps(x_0, t_0)
    first = (x_0 - s[0] * eps) / a[0]
    x_1 = a[1] * first + s[1] * eps
    second = (x_1 - s[1] * backbone.eps(x_1, t_1)) / a[1]
    foretold = second + 2.5 * (second - first)
    expected = a[2] * foretold + s[2] * (x_1 - a[1] * foretold) / s[1]
    found = ddim_inversion(backbone, x_0, (t_0, t_1, t_2), extrapolate=True)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_eps_is_taken_at_the_step_it_leaves(make_backbone: Make) -> None:
    backbone = make_backbone()
    x_t = images(4)
    for t, t_next in ((0, 90), (90, 400), (400, 999)):
        eps = backbone.eps(x_t, t)
        ab, ab_next = backbone.schedule.alpha_bar(t), backbone.schedule.alpha_bar(t_next)
        x_0 = (x_t - (1 - ab) ** 0.5 * eps) / ab**0.5
        x_t = ab_next**0.5 * x_0 + (1 - ab_next) ** 0.5 * eps
    torch.testing.assert_close(ddim_inversion(backbone, images(4), WALK), x_t)


def test_every_visited_timestep_is_seen(make_backbone: Make) -> None:
    backbone = make_backbone()
    seen: list[tuple[int, EncoderState]] = []
    with backbone.count_calls() as calls:
        x_T = ddim_inversion(
            backbone, images(4), WALK, on_step=lambda step, state: seen.append((step, state))
        )
    assert [(step, state.t) for step, state in seen] == list(enumerate(WALK))
    assert torch.equal(seen[0][1].x_t, images(4))
    assert torch.equal(seen[-1][1].x_t, x_T)
    assert torch.equal(seen[2][1].h, backbone.encode(seen[2][1].x_t, 400).h)
    assert (calls.encoder, calls.decoder) == (16, 12)


def test_h_can_be_replaced(make_backbone: Make) -> None:
    backbone = make_backbone()
    x_T = images(5)
    plain = ddim_generation(backbone, x_T, WALK)
    assert torch.equal(ddim_generation(backbone, x_T, WALK, lambda h, t: h), plain)
    seen = []

    def halve(h: torch.Tensor, t: int) -> torch.Tensor:
        seen.append((t, len(h)))
        return h / 2

    assert not torch.allclose(ddim_generation(backbone, x_T, WALK, halve), plain, atol=1e-4)
    assert seen == [(t, 4) for t in reversed(WALK)] * 2


@pytest.mark.parametrize("walk", [(0,), (1, 5), (0, 5, 5), (0, 9, 3), (0, 1000), ()])
def test_bad_walks_are_refused(make_backbone: Make, walk: tuple[int, ...]) -> None:
    for function in (ddim_inversion, ddim_generation):
        with pytest.raises(InputError, match="timestep"):
            function(make_backbone(), images(1), walk)


def test_inverter_returns_what_belongs_together(make_backbone: Make) -> None:
    backbone = make_backbone()
    x_0, ids = images(6), tuple("abcdef")
    done: list[int] = []
    rows_seen: list[tuple[int, slice, int]] = []
    inversions = invert(
        backbone,
        ids,
        x_0,
        WALK,
        advance=done.append,
        collect=lambda step, rows, state: rows_seen.append((step, rows, len(state))),
    )
    assert inversions.image_ids == ids
    assert inversions.timesteps == WALK
    assert torch.equal(inversions.x_0, x_0)
    assert torch.equal(inversions.x_T, ddim_inversion(backbone, x_0, WALK))
    assert torch.equal(inversions.reconstruction, ddim_generation(backbone, inversions.x_T, WALK))
    assert done == [4, 2]
    assert [(s, r.start, r.stop, n) for s, r, n in rows_seen] == [
        *((s, 0, 4, 4) for s in range(4)),
        *((s, 4, 6, 2) for s in range(4)),
    ]


def test_an_inversion_does_not_feel_its_batch(make_backbone: Make) -> None:
    backbone = make_backbone()
    x_0, ids = images(6), tuple("abcdef")
    inversions = invert(backbone, ids, x_0, WALK)
    for i in range(6):
        alone = invert(backbone, ids[i], x_0[i : i + 1], WALK)
        assert torch.equal(alone.x_T[0], inversions.x_T[i])
        assert torch.equal(alone.reconstruction[0], inversions.reconstruction[i])


@pytest.mark.parametrize(
    ("ids", "pixels", "told"),
    [
        ("ab", images(3), "2 ids for 3 images"),
        ("aa", images(2), "one distinct id"),
        ("", images(0), "0 ids for 0 images"),
        ("a", 127.5 * images(1), "pixels must lie in"),
        ("a", images(1) * torch.nan, "pixels must lie in"),
        ("a", torch.zeros(1, 3, 8, 8), "takes"),
    ],
    ids=["too few ids", "twice", "none", "8 bit", "nan", "size"],
)
def test_inverter_refuses_bad_images(make_backbone: Make, ids: str, pixels: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        invert(make_backbone(), tuple(ids), pixels, WALK)
