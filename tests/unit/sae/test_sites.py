"""Activations at a site are read as they are, and what is put in their place goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from casl_bench.core.errors import UsageError
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.models.backbone import Backbone
from casl_bench.sae.sites import SiteMaps, check_site, decode_at, site_shape

X = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def backbone(make_backbone: Callable[..., Backbone]) -> Backbone:
    return make_backbone()


@pytest.mark.parametrize("site", ["mid", "up_0", "up_1"])
def test_looking_changes_nothing_and_replacing_by_itself_neither(
    backbone: Backbone, site: str
) -> None:
    state = backbone.encode(X, 300)
    plain = backbone.decode(state)
    eps, seen = decode_at(backbone, state, site)
    assert torch.equal(eps, plain)
    assert tuple(seen.shape) == (6, *site_shape(backbone, site))
    same, _ = decode_at(backbone, state, site, lambda h: h)
    assert torch.allclose(same, plain, atol=1e-6)
    other, _ = decode_at(backbone, state, site, lambda h: h.flip(-1))
    assert float((other - plain).abs().max()) > 1e-3


@pytest.mark.parametrize("site", ["mid", "up_0"])
def test_every_row_gets_its_own_replacement(backbone: Backbone, site: str) -> None:
    """Six rows in micro-batches of four: the fifth row's change is the fifth row's."""
    state = backbone.encode(X, 300)
    plain = backbone.decode(state)
    shift = torch.zeros(6, 1, 1, 1)
    shift[4] = 2.0
    done = [0]

    def replace(h: torch.Tensor) -> torch.Tensor:
        start = done[0]
        done[0] += len(h)
        return h + shift[start : done[0]]

    eps, _ = decode_at(backbone, state, site, replace)
    moved = (eps - plain).flatten(1).abs().amax(1)
    assert float(moved[4]) > 1e-3
    assert float(moved[[0, 1, 2, 3, 5]].max()) < 1e-5


def test_h_is_the_mid_blocks_output(backbone: Backbone) -> None:
    state = backbone.encode(X, 300)
    assert torch.equal(decode_at(backbone, state)[1], state.h)


def test_maps_of_a_store_are_those_of_its_images(backbone: Backbone) -> None:
    store = TrajectoryStore.create(None, list("abcdef"), (0, 300), (3, 16, 16), backbone.h_shape)
    for step, t in enumerate(store.timesteps):
        store.record(step, slice(0, 6), backbone.encode(X * (1 + step), t))
    maps = SiteMaps(backbone, store, "up_0")
    expected = decode_at(backbone, backbone.encode(X * 2, 300), "up_0")[1]
    assert torch.allclose(maps.h(1), expected, atol=1e-6)
    assert torch.equal(maps.h(1, slice(2, 4)), maps.h(1)[2:4]) and len(maps) == 6


def test_an_unknown_site_is_refused(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="known: mid, up_0, up_1"):
        check_site(backbone, "up_7")
