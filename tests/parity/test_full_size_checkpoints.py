"""At their published size both families go the whole way, and the authors' delta-blocks fit them.

The weights are random: it is names, shapes and the way through files that are shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from casl_bench.methods.delta_block import load_delta_block
from casl_bench.models.diffusers_folder import write_diffusers_folder
from casl_bench.models.unet import build_unet
from casl_bench.photos.checkpoints.convert import convert, open_backbone
from casl_bench.photos.checkpoints.formats import Architecture

FORMS = {
    "celeba_hq_256_ddpm": Architecture("ddpm", 3, 3, 128, (1, 1, 2, 2, 4, 4), 2, (4,)),
    "afhq_dog_256_adm": Architecture("adm", 3, 6, 128, (1, 1, 2, 2, 4, 4), 1, (4,)),
}
PARAMETERS = {"celeba_hq_256_ddpm": 113_673_219, "afhq_dog_256_adm": 93_563_910}
BLOCKS = {
    "celeba_hq_256_ddpm": (
        "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth",
        "church_gothic_LC_church_outdoor_t999_ninv40_ngen40_0.pth",
    ),
    "afhq_dog_256_adm": ("dog_happy_LC_dog_t999_ninv40_ngen40_0.pth",),
}


def random_weights(shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Half precision numbers that keep a signal's size: norms are the identity."""
    draw = torch.Generator().manual_seed(0)
    weights = {}
    for name, tensor in shapes.items():
        found = torch.empty(tensor.shape, dtype=torch.float16)
        if tensor.ndim > 1:
            spread = (3 / tensor[0].numel()) ** 0.5
            found.uniform_(-spread, spread, generator=draw)
        else:
            found.fill_(float(name.endswith("weight")))
        weights[name] = found
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("config", FORMS)
def test_published_sizes(
    config: str,
    as_published: Callable[..., dict[str, Tensor]],
    golden_path: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    paths = [golden_path(f"asyrp_checkpoints/{name}") for name in BLOCKS[config]]
    form = FORMS[config]
    heads = 64 if form.family == "adm" else None
    with torch.device("meta"):
        own = build_unet(form.unet_config(256, heads)).state_dict()
    file = tmp_path / "net.pt"
    torch.save(random_weights(as_published(form.family, own, heads)), file)

    made = convert(file, name=config, config=config)
    assert made.architecture == form and made.assumed == ()
    assert sum(p.numel() for p in made.unet.parameters()) == PARAMETERS[config]
    file.unlink()
    write_diffusers_folder(tmp_path / "out", made.config, made.unet, dtype=torch.float16)
    del made

    backbone = open_backbone(tmp_path / "out", name=config, micro_batch=1)
    shutil.rmtree(tmp_path / "out")  # pytest would keep it
    assert (backbone.h_shape, backbone.temb_dim) == ((512, 8, 8), 512)
    x_t = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        state = backbone.encode(x_t, 500)
        changes = [load_delta_block(path)(state.h, state.temb) for path in paths]
        eps = backbone.decode(state, changes[0])
    for delta_h in changes:
        assert delta_h.shape == state.h.shape
        assert bool(torch.isfinite(delta_h).all()) and float(delta_h.std()) > 0
    assert eps.shape == x_t.shape
    assert bool(torch.isfinite(eps).all()) and float(eps.std()) > 0
