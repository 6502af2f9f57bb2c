from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from torch import nn

from casl_bench.models import backbone as kernels_module
from casl_bench.models.backbone import Backbone, Kernels
from casl_bench.models.kernel_probe import TOLERANCE, Probed, probe, recommended

Make = Callable[..., Backbone]
LAST, BF16, COMPILED = (Kernels(**{name: True}) for name in Kernels.model_fields)


def test_each_setting_is_timed_and_compared_and_the_backbone_left_alone(
    make_backbone: Make,
) -> None:
    backbone = make_backbone()
    before = (backbone.weights_hash, backbone.kernels)
    weights = backbone.unet.conv_in.weight
    found = probe(backbone, [LAST, BF16])
    assert [p.kernels for p in found] == [Kernels(), LAST, BF16]
    assert all(p.ms > 0 and not p.refusal for p in found)
    assert found[0].deviation == 0 and found[1].deviation < 1e-5 < found[2].deviation < 0.05
    assert (backbone.weights_hash, backbone.kernels) == before
    assert backbone.unet.conv_in.weight is weights and weights.is_contiguous()


def test_when_time_is_up_nothing_is_passed_again(make_backbone: Make) -> None:
    ticks = iter(range(10_000))
    backbone = make_backbone()
    with backbone.count_calls() as calls:
        found = probe(backbone, [LAST], seconds=0.0, clock=lambda: float(next(ticks)))
    # Copies count for themselves: this one is the pass that all are compared with.
    assert calls.unet_calls == backbone.micro_batch
    # A pass lies between two looks at the clock.
    assert [p.ms for p in found] == [1000.0, 1000.0]


def test_what_cannot_be_done_is_told_in_its_row(
    make_backbone: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(block: nn.Module, **options: object) -> None:
        raise RuntimeError("\nthe compiler crashed\nin many lines")

    monkeypatch.setattr(nn.Module, "compile", fail)
    monkeypatch.setattr(kernels_module, "has_cpp_compiler", lambda: False)
    assert "C++ compiler" in probe(make_backbone(), [COMPILED])[1].refusal
    monkeypatch.setattr(kernels_module, "has_cpp_compiler", lambda: True)
    found = probe(make_backbone(), [COMPILED, LAST])
    assert found[1].refusal == "RuntimeError: the compiler crashed" and math.isnan(found[1].ms)
    assert found[2].ms > 0
    assert recommended(found[:2]) == Kernels()


@pytest.mark.parametrize(
    ("ms", "deviation", "pays"),
    [(89.0, 1e-4, True), (91.0, 1e-4, False), (50.0, 2 * TOLERANCE, False)],
)
def test_what_saves_time_and_keeps_eps_is_recommended(
    ms: float, deviation: float, pays: bool
) -> None:
    found = [Probed(Kernels(), 100.0, 0.0), Probed(LAST, ms, deviation), Probed(BF16, 95.0, 0.0)]
    assert found[1].pays(found[0]) == pays
    assert recommended(found) == (LAST if pays else Kernels())
    assert recommended([*found, Probed(COMPILED, 40.0, 0.0)]) == COMPILED
