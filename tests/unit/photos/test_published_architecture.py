"""A network's form is told by names and shapes; what they do not tell is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.models.unet import build_unet
from casl_bench.photos.checkpoints.convert import CheckpointConfig, config_names, read_config
from casl_bench.photos.checkpoints.formats import Architecture, architecture_of

FACES = Architecture("ddpm", 3, 3, 128, (1, 1, 2, 2, 4, 4), 2, (4,))
DOGS = Architecture("adm", 3, 6, 128, (1, 1, 2, 2, 4, 4), 1, (4,))
SMALL_DDPM = Architecture("ddpm", 3, 3, 32, (1, 2), 1, (1,))
SMALL_ADM = Architecture("adm", 3, 6, 32, (1, 2), 1, (1,))
PUBLISHED = {
    "celeba_hq_256_ddpm": FACES,
    "lsun_church_256_ddpm": FACES,
    "afhq_dog_256_adm": DOGS,
    "ffhq_256_adm": DOGS,
}
Published = Callable[..., dict[str, Tensor]]


def weights_of(as_published: Published, form: Architecture, image_size: int) -> dict[str, Tensor]:
    """A network of this form in its authors' names: shapes without numbers."""
    heads = 32 if form.family == "adm" else None
    with torch.device("meta"):
        own = build_unet(form.unet_config(image_size, heads)).state_dict()
    return as_published(form.family, own, heads)


@pytest.mark.parametrize(
    ("form", "image_size"),
    [
        (FACES, 256),
        (DOGS, 256),
        (SMALL_DDPM, 16),
        (SMALL_ADM, 16),
        (replace(FACES, multipliers=(1, 2, 2, 2), attention_levels=(1,)), 32),
        (replace(DOGS, res_blocks=2, attention_levels=(3, 4, 5), base_channels=256), 256),
        (replace(DOGS, multipliers=(1,), attention_levels=()), 32),
        (replace(SMALL_DDPM, out_channels=6, attention_levels=(0, 1)), 16),
    ],
)
def test_shapes_tell_the_form(as_published: Published, form: Architecture, image_size: int) -> None:
    assert architecture_of(weights_of(as_published, form, image_size), "net.pt") == form


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_configs_are_the_published_networks(name: str) -> None:
    config = read_config(name)
    config.check(PUBLISHED[name], name, "net.pt")
    schedule = config.schedule
    assert (schedule.kind, schedule.num_timesteps) == ("linear", 1000)
    assert (schedule.beta_start, schedule.beta_end) == (1e-4, 0.02)
    assert config.image_size == 256
    assert config.head_channels == (64 if name.endswith("adm") else None)
    assert all(value is not None for k, value in config if k != "head_channels")


def test_every_config_that_ships_is_known() -> None:
    assert set(config_names()) == set(PUBLISHED)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"family": "adm"}, "family is ddpm in the file, adm in the config"),
        ({"res_blocks": 1}, "res_blocks is 2 in the file, 1 in the config"),
        ({"multipliers": (1, 2)}, "multipliers is 1, 1, 2, 2, 4, 4 in the file, 1, 2 in the"),
        ({"attention_resolutions": (32, 16)}, "attention_resolutions is 16 in the file, 32, 16"),
        ({"image_size": 512}, "attention_resolutions is 32 in the file, 16 in the config"),
        ({"learned_sigma": True}, "learned_sigma is false in the file, true in the config"),
        ({"base_channels": 64}, "base_channels is 128 in the file, 64 in the config"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_of_another_network_names_what_differs(change: dict[str, Any], told: str) -> None:
    config = read_config("celeba_hq_256_ddpm").model_copy(update=change)
    with pytest.raises(InvalidBenchmarkError, match="not of config 'mine'") as raised:
        config.check(FACES, "mine", "net.pt")
    assert told in str(raised.value)


def test_a_config_may_leave_things_to_the_file() -> None:
    CheckpointConfig().check(FACES, "mine", "net.pt")
    CheckpointConfig().check(DOGS, "mine", "net.pt")


def test_head_width_follows_the_narrowest_attention() -> None:
    assert DOGS.default_head_channels() == 64
    assert SMALL_ADM.default_head_channels() == 64
    assert replace(SMALL_ADM, attention_levels=(0, 1)).default_head_channels() == 32


@pytest.mark.parametrize(
    ("form", "settings", "told"),
    [
        (FACES, (250, None), "an image size of 250 cannot be halved 5 times"),
        (FACES, (16, None), "give a multiple of 32"),
        (FACES, (256, 64), "the ddpm family has one attention head"),
        (DOGS, (256, None), "needs the channels of an attention head"),
        (DOGS, (256, 48), "heads of 48 channels do not divide attention over 512"),
    ],
)
def test_what_cannot_be_told_or_be_so_is_an_error(
    form: Architecture, settings: tuple[int, int | None], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        form.unet_config(*settings)


def _with(**extra: tuple[int, ...]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: (
        weights
        | {
            name.replace("__", "."): torch.zeros(shape, device="meta")
            for name, shape in extra.items()
        }
    )


def _without(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {k: v for k, v in weights.items() if k not in names}


@pytest.mark.parametrize(
    ("form", "change", "told"),
    [
        (SMALL_ADM, _with(label_emb__weight=(10, 128)), "takes a class"),
        (SMALL_ADM, _with(input_blocks__2__0__op__weight=(32, 32, 3, 3)), "resblock_updown off"),
        (
            SMALL_ADM,
            _with(input_blocks__1__0__emb_layers__1__weight=(32, 128)),
            "use_scale_shift_norm off",
        ),
        (
            SMALL_ADM,
            _with(output_blocks__2__1__in_layers__0__weight=(32,)),
            "no 3 equal levels",
        ),
        (
            SMALL_ADM,
            _without("input_blocks.3.0.out_layers.3.weight"),
            "it lacks input_blocks.3.0.out_layers.3.weight",
        ),
        (
            SMALL_DDPM,
            _without("down.1.block.0.conv1.weight"),
            "it lacks down.1.block.0.conv1.weight",
        ),
        (
            SMALL_DDPM,
            _with(down__0__block__0__conv1__weight=(16, 32, 3, 3)),
            "levels of [16, 64] ch",
        ),
        (
            SMALL_ADM,
            _with(input_blocks__3__0__out_layers__3__weight=(48, 32)),
            "levels of [32, 48]",
        ),
        (
            SMALL_DDPM,
            lambda w: {k: v for k, v in w.items() if "down." not in k},
            "it lacks down.0.block.0.",
        ),
        (
            SMALL_ADM,
            lambda w: {k: v for k, v in w.items() if "output_blocks." not in k},
            "it lacks output_blocks.0.0.",
        ),
        (SMALL_DDPM, _with(conv_in__weight=(32,)), "a tensor has an impossible shape"),
        (SMALL_DDPM, _with(conv_in__weight=(0, 3, 3, 3)), "after a convolution of 0"),
        (SMALL_DDPM, _without("temb.dense.0.weight"), "neither of the ddpm nor of the adm family"),
        (SMALL_DDPM, lambda w: {"a": w["conv_in.weight"]}, "1 tensors, first a"),
    ],
)
def test_other_networks_are_refused(
    as_published: Published,
    form: Architecture,
    change: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    told: str,
) -> None:
    with pytest.raises(InvalidBenchmarkError) as raised:
        architecture_of(change(weights_of(as_published, form, 16)), "net.pt")
    assert told in str(raised.value) and "net.pt" in str(raised.value)


def test_diffusers_own_names_are_recognised() -> None:
    with torch.device("meta"):
        own = build_unet(SMALL_DDPM.unet_config(16)).state_dict()
    with pytest.raises(InvalidBenchmarkError, match=r"diffusers' names.*folder with its config"):
        architecture_of(own, "net.pt")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("celeba_hq_ddpm", "", "unknown config 'celeba_hq_ddpm'; did you mean 'celeba_hq_256_dd"),
        ("mine.json", None, "unreadable config: No such file"),
        ("mine.json", "{", "invalid config: Expecting"),
        ("mine.json", "[]", "invalid config: Input should be"),
        ("mine.json", '{"colour": 1}', "invalid config: colour: "),
        ("mine.json", '{"schedule": {"kind": "exp"}}', "invalid config: schedule.kind: "),
    ],
)
def test_configs_that_cannot_be_read(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, name: str, content: str | None, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(BenchError) as raised:
        read_config(name)
    assert told in str(raised.value)
    assert isinstance(raised.value, UsageError) and "\n" not in str(raised.value)
