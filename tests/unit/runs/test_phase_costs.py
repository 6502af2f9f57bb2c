from __future__ import annotations

import copy
import io

import torch

from casl_bench.conformance.toy_domain import toy_domain
from casl_bench.runs.progress import OTHER, LineProgress, PhaseCost, PhaseCosts, Stopwatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_innermost_phase_pays() -> None:
    clock = Clock()
    costs = PhaseCosts(clock)
    clock.now = 1
    with costs.phase("score"):
        clock.now = 3
        with costs.phase("inversion"):
            clock.now = 7
        with costs.phase(None):
            clock.now = 100
        clock.now = 101
    clock.now = 101.5
    seconds = {name: cost.seconds for name, cost in costs.by_phase().items()}
    assert seconds == {OTHER: 1.5, "score": 3, "inversion": 4}


def test_passes_are_counted_by_hooks_in_copies_too_and_half_by_half() -> None:
    backbone, costs = toy_domain().backbone, PhaseCosts()
    x_t, full = torch.zeros(3, 3, 16, 16), backbone.micro_batch
    with costs.count(backbone.unet):
        backbone.eps(x_t, 500)
        with costs.phase("edit"):
            backbone.encode(x_t, 500)
        with costs.phase("fit"):
            copy.deepcopy(backbone).eps_with_grad(x_t, 500)
    assert dict(costs.passes) == {OTHER: full, "edit": full / 2, "fit": 3}
    backbone.eps(x_t, 500)
    assert costs.total == 1.5 * full + 3
    assert not backbone.unet.conv_in._forward_hooks and not backbone.unet.conv_out._forward_hooks


def test_a_stopwatch_has_the_run_pay_and_keeps_its_own_part() -> None:
    backbone, costs = toy_domain().backbone, PhaseCosts()
    x_t = torch.zeros(4, 3, 16, 16)
    with costs.count(backbone.unet):
        for images in (1, 2):
            watch = Stopwatch(costs)
            with watch.phase("edit"), costs.phase("inversion"):
                backbone.eps(x_t, 500)
            with watch.phase("edit"):
                for _ in range(images):
                    backbone.eps(x_t, 500)
            with watch.phase("score"):
                pass
            assert watch.passes == {"edit": 4 * images}
            assert set(watch.seconds) == {"edit", "score"}
    assert dict(costs.passes) | {"score": 0} == {"inversion": 8, "edit": 12, "score": 0}


def test_the_line_adds_up_and_other_processes_are_in_it() -> None:
    clock, out = Clock(), io.StringIO()
    progress = LineProgress(out, clock)
    assert progress.costs.text() == "no U-Net pass was made"
    progress.costs.add({"fit": PhaseCost(1500.0, 90.0)})
    progress.costs.add({"fit": PhaseCost(1500.0, 10.0), "edit": PhaseCost(1000.0, 20.0)})
    progress.note(progress.costs.text())
    assert out.getvalue() == (
        "4,000 U-Net passes (images) in 120 s of all processes: fit 83%, edit 17%, other 0%\n"
    )
