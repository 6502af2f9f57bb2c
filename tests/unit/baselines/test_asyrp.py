"""Asyrp's own parts; its Δ-block and step have parity tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from casl_bench_baselines.asyrp import Asyrp, distance_curve, first_above

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.core.errors import InputError, UsageError


def test_first_above_takes_the_first_crossing() -> None:
    timesteps = [0, 100, 200, 300]
    assert first_above(timesteps, [0.0, 0.1, 0.4, 0.3], 0.2) == 200
    assert first_above(timesteps, [0.0, 0.1, 0.1, 0.1], 0.2) == 300


def test_window_from_the_distance_curve(tmp_path: Path) -> None:
    toy = ToyTasks()
    task = toy.task(Asyrp.info, tmp_path)
    assert task.guide_clip is not None
    curve = distance_curve(task.trajectories, task.backbone, task.guide_clip)
    assert len(curve) == len(task.trajectories.timesteps)
    assert all(0 <= d <= 2 for d in curve)
    method = Asyrp(fit_steps=1, batch_size=2, t_edit=None, t_edit_threshold=-1.0)
    assert method.fit(task).window.t_edit == 0


def test_the_authors_file_of_a_concept_is_found_by_its_name(tmp_path: Path) -> None:
    concept, method = ToyTasks().domain.dataset.card.concepts[0], Asyrp()
    with pytest.raises(UsageError, match=f"no Δ-block files for concept '{concept.name}'"):
        method.pretrained_file(tmp_path, concept)
    theirs = tmp_path / f"dog_{concept.name}_LC_dog_t999_ninv40_ngen40_0.pth"
    theirs.touch()
    (tmp_path / "other_LC_dog_t999_ninv40_ngen40_0.pth").touch()
    assert method.pretrained_file(tmp_path, concept) == theirs
    (tmp_path / f"{concept.name}.pth").touch()
    with pytest.raises(UsageError, match="2 Δ-block files"):
        method.pretrained_file(tmp_path, concept)


def test_published_weights_need_a_window(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a t_edit"):
        Asyrp(t_edit=None).read_pretrained(tmp_path / "block.pth")
