"""A training killed and started again goes on; another configuration is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from casl_bench.core.errors import UsageError
from casl_bench.domains.rendering.faces import ATTRIBUTES
from casl_bench.models.model_files import write_model
from casl_bench.models.random_numbers import generator
from casl_bench.training import trainer as train_common
from casl_bench.training.trainer import TrainingRun, card_text, rounded_to_half, start_from


class _Killed(Exception):
    pass


def _train(out: Path, steps: int, kill_at: int | None = None, seed: int = 0) -> TrainingRun:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
    run = TrainingRun(
        out, model, learning_rate=0.1, config={"seed": seed}, steps=steps, minutes=None
    )
    for step in run.steps(log_every=2):
        if step == kill_at:
            raise _Killed
        x = torch.randn(8, 3, generator=generator(seed, "test", step))
        run.update((model(x) - x.sum(1, keepdim=True)).pow(2).mean())
    return run


def test_killed_and_resumed_equals_unbroken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(tmp_path / "a", 12)
    monkeypatch.setattr(train_common, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(_Killed):
        _train(tmp_path / "b", 12, kill_at=7)
    resumed = _train(tmp_path / "b", 12)
    for a, b in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(a, b)
    curves = [(tmp_path / k / "curve.csv").read_text().splitlines() for k in "ab"]
    assert [line.split(",")[0] for line in curves[0]] == [line.split(",")[0] for line in curves[1]]
    assert [line.split(",")[2] for line in curves[0]] == [line.split(",")[2] for line in curves[1]]


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    first = _train(tmp_path, 4)
    again = _train(tmp_path, 4)
    assert again.step == first.step == 4


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    _train(tmp_path, 2)
    with pytest.raises(UsageError, match="another configuration"):
        _train(tmp_path, 2, seed=1)


def test_a_length_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--steps or --minutes"):
        TrainingRun(
            tmp_path, nn.Linear(1, 1), learning_rate=1.0, config={}, steps=None, minutes=None
        )


def test_rounded_to_half_is_what_ships() -> None:
    model = nn.Linear(3, 3)
    twin = rounded_to_half(model)
    assert torch.equal(twin.weight, model.weight.half().float())
    assert not twin.weight.requires_grad and model.weight.requires_grad


def test_card_text_tells_the_measured() -> None:
    training = {
        "date": "2026-01-01", "steps": 3, "seconds": 4, "device": "CPU", "torch": "2",
        "command": "python -m x", "note": "cut short", "config": {"attributes": ATTRIBUTES},
    }  # fmt: skip
    accuracy = dict.fromkeys(ATTRIBUTES, 1.0) | {"smiling": 0.5}
    card = {
        "title": "T", "description": "D", "training": training, "data": "d", "held_out": "h",
        "parameters": 1234, "measured": {"acc": accuracy, "scale": 2.0},
    }  # fmt: skip
    text = card_text(card)
    assert "| acc | 0.500 | 1.000 |" in text and "1,234 parameters" in text
    assert "- scale: 2.0" in text and "- note: cut short" in text


def test_started_from_another_model_takes_what_fits(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shipped = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 3))
        model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 2))
        other = nn.Sequential(nn.Linear(9, 16), nn.Linear(16, 2))
    tensors = {f"network.{k}": v for k, v in shipped.state_dict().items()}
    write_model(tmp_path, tensors, {"name": "shipped"})
    head = model[1].weight.clone()
    assert start_from(model, None) is None
    assert start_from(model, tmp_path) is not None
    assert torch.equal(model[0].weight, shipped[0].weight.half().float())
    assert torch.equal(model[1].weight, head)
    with pytest.raises(UsageError, match="another architecture"):
        start_from(other, tmp_path)


@pytest.mark.parametrize("schedule", [train_common.cosine, train_common.plateau])
def test_schedules_warm_up_stay_within_one_and_end_at_zero(
    schedule: Callable[[float], float],
) -> None:
    factors = [schedule(p / 100) for p in range(101)]
    assert factors[0] < 0.1 and max(factors) <= 1 and min(factors) >= 0
    assert factors[10] > 0.9 and factors[100] == pytest.approx(0, abs=1e-9)
    late = factors[50:]
    assert all(a >= b for a, b in pairwise(late))
