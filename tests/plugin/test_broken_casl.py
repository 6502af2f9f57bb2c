"""The faults that the gate's rates were measured with do what they say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.methods.casl import Casl, CaslEditor, ConceptAlignment
from casl_bench.methods.method import FitCost

BREAKER = Path(__file__).parent / "broken_casl.py"
Break = Callable[[str], CaslEditor]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Break:
    """CASL's editor of one and the same drawn map, as a fault leaves it; "whole" is none."""
    monkeypatch.setattr(CaslEditor, "__init__", CaslEditor.__init__)  # put back after the test
    spec = importlib.util.spec_from_file_location("broken_casl", BREAKER)
    assert spec is not None and spec.loader is not None
    plugin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plugin)
    plugin.FAULTS["whole"] = lambda editor: None
    method = Casl(Casl.toy_config())
    task = ToyTasks().task(method.info, tmp_path)
    assert task.saes is not None
    sae = task.saes.get()

    def make(fault: str) -> CaslEditor:
        monkeypatch.setenv("CASL_FAULT", fault)
        drawn = torch.Generator().manual_seed(0)
        ones = torch.ones(sae.d_sae, 1, 1)
        alignment = ConceptAlignment(sae, ones, ones)
        with torch.no_grad():
            alignment.W.normal_(generator=drawn)
        return CaslEditor(task, method.config, alignment.requires_grad_(False), FitCost())

    return make


def delta_h(editor: CaslEditor) -> Tensor:
    t = editor.alignment.sae.timesteps[-1]
    h = torch.randn(2, *editor.backbone.h_shape, generator=torch.Generator().manual_seed(1))
    return editor.unit_delta_h(h, t, editor.backbone.time_embedding(t, 2))


@pytest.mark.parametrize(("fault", "factor"), [("wrong_sign", -1.0), ("half_strength", 0.5)])
def test_the_edit_is_another_multiple(broken: Break, fault: str, factor: float) -> None:
    torch.testing.assert_close(delta_h(broken(fault)), factor * delta_h(broken("whole")))


def test_every_direction_is_there_and_at_another_latent(broken: Break) -> None:
    whole, shuffled = (broken(fault).alignment.W for fault in ("whole", "shuffled_decoder"))
    assert not torch.equal(whole, shuffled)
    torch.testing.assert_close(whole.sort(dim=1).values, shuffled.sort(dim=1).values)


def test_a_leak_adds_a_share_of_what_shuffling_gives(
    broken: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, shuffled = delta_h(broken("whole")), delta_h(broken("shuffled_decoder"))
    for share in (0.0, 0.25):
        monkeypatch.setenv("CASL_LEAK", str(share))
        torch.testing.assert_close(delta_h(broken("leak")), whole + share * shuffled)


def test_the_layer_is_put_back_after_an_edit(broken: Break) -> None:
    editor, sound = broken("one_layer_off"), broken("whole")
    inversions = ToyTasks().test.take(range(2))
    decode = editor.backbone.decode
    edits = [e.edit(inversions, (1.0,)) for e in (editor, sound)]
    assert editor.backbone.decode == decode
    assert not torch.allclose(*edits)
