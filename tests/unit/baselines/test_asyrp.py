"""Asyrp's own parts; its Δ-block and step have parity tests."""

from __future__ import annotations

from pathlib import Path

from casl_bench_baselines.asyrp import Asyrp, distance_curve, first_above

from casl_bench.conformance.toy_domain import ToyTasks


def test_first_above_takes_the_first_crossing() -> None:
    timesteps = [0, 100, 200, 300]
    assert first_above(timesteps, [0.0, 0.1, 0.4, 0.3], 0.2) == 200
    assert first_above(timesteps, [0.0, 0.1, 0.1, 0.1], 0.2) == 300


def test_window_from_the_distance_curve(tmp_path: Path) -> None:
    toy = ToyTasks()
    task = toy.task(Asyrp.info, tmp_path)
    assert task.guide_clip is not None
    curve = distance_curve(task.trajectories, task.backbone, task.guide_clip, images=4)
    assert len(curve) == len(task.trajectories.timesteps) - 1
    assert all(0 <= d <= 2 for d in curve)
    method = Asyrp(fit_steps=1, batch_size=2, t_edit=None, t_edit_threshold=-1.0)
    assert method.fit(task).window.t_edit == 0
