"""Which latents take part in an edit, and which are as active as they."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.core.errors import InputError
from casl_bench.methods.casl import Casl, CaslEditor, ConceptAlignment
from casl_bench.methods.method import FitCost
from casl_bench.studies.paper_questions.study import PartOfMap, WithoutLatents, alike_latents


def mask(size: int, *places: int) -> Tensor:
    chosen = torch.zeros(size, dtype=torch.bool)
    chosen[list(places)] = True
    return chosen


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> CaslEditor:
    """A map of which every latent says something."""
    method = Casl(Casl.toy_config())
    task = ToyTasks().task(method.info, tmp_path_factory.mktemp("fit"))
    assert task.saes is not None
    sae = task.saes.get()
    generator = torch.Generator().manual_seed(0)
    mean, contrast = (torch.rand(sae.d_sae, 1, 1, generator=generator) for _ in range(2))
    alignment = ConceptAlignment(sae, mean, contrast)
    with torch.no_grad():
        alignment.W.copy_(torch.randn(alignment.W.shape, generator=generator))
        alignment.b.copy_(torch.randn(alignment.b.shape, generator=generator))
    return CaslEditor(task, method.config, alignment.requires_grad_(False), FitCost())


def visited(editor: CaslEditor) -> tuple[Tensor, int, Tensor]:
    t = editor.alignment.sae.timesteps[-1]
    h = torch.randn(2, *editor.backbone.h_shape, generator=torch.Generator().manual_seed(1))
    return h, t, editor.backbone.time_embedding(t, 2)


def test_parts_of_a_map_add_up_to_it(editor: CaslEditor) -> None:
    at = visited(editor)
    some = mask(editor.alignment.sae.d_sae, 0, 2, 3)
    with torch.no_grad():
        whole = editor.unit_delta_h(*at)
        kept, rest, bias = (
            PartOfMap(editor, part).unit_delta_h(*at) for part in (some, ~some, some & ~some)
        )
    torch.testing.assert_close(kept + rest - bias, whole)
    assert not torch.allclose(rest, whole)


def test_without_every_latent_what_the_sae_decodes_is_gone(editor: CaslEditor) -> None:
    h, t, temb = visited(editor)
    sae = editor.alignment.sae
    every = torch.ones(sae.d_sae, dtype=torch.bool)
    with torch.no_grad():
        left = h + WithoutLatents(editor, every).unit_delta_h(h, t, temb)
        unexplained = h - sae.reconstruct(h, t)
        nothing = torch.zeros(2, sae.d_sae, *h.shape[2:])
        bias = sae.decode(nothing, t)
    torch.testing.assert_close(left - bias, unexplained, atol=1e-4, rtol=1e-4)


def test_without_no_latent_nothing_changes(editor: CaslEditor) -> None:
    h, t, temb = visited(editor)
    none = WithoutLatents(editor, mask(editor.alignment.sae.d_sae))
    assert not none.unit_delta_h(h, t, temb).any()


def test_the_control_is_as_active_and_disjoint() -> None:
    activation = torch.tensor([9.0, 5.0, 8.5, 0.0, 5.2, 0.1])
    found = alike_latents(mask(6, 0, 1), activation)
    assert found.tolist() == mask(6, 2, 4).tolist()


def test_the_strongest_chooses_first() -> None:
    activation = torch.tensor([4.0, 10.0, 7.0, 1.0])
    assert alike_latents(mask(4, 0, 1), activation).tolist() == mask(4, 2, 3).tolist()


def test_more_than_half_leaves_no_control() -> None:
    with pytest.raises(InputError, match="3 of 5"):
        alike_latents(mask(5, 0, 1, 2), torch.ones(5))
