"""The protocol of equal effect from end to end, on the toy domain with methods that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from casl_bench.analysis.analyse import analyse
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import METHODS, EditTask, FitCost, MethodConfig, MethodInfo
from casl_bench.models.backbone import Backbone
from casl_bench.report.tables import render_tables
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.runs.executor import run
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.rescoring import rescore
from casl_bench.runs.run_lock import claim_run_folder
from casl_bench.runs.suites import RunConfig
from tests.support.by_pixels import toy_change
from tests.support.tiny_suite import as_measured, tiny_suite

pytestmark = pytest.mark.slow

SUITE = tiny_suite(strengths=(0.5, 1.0, 2.0), random_draws=2, test_images_per_concept=3)


class Paint:
    """Knows the perfect edit, and lets another attribute slip in by its setting."""

    def __init__(self, attribute: str, slip: float, gain: float) -> None:
        self.cost, self._attribute, self._slip, self._gain = FitCost(), attribute, slip, gain

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        names = [a for a in ("bright", "red", "striped") if a != self._attribute]
        own = toy_change(inversions, self._attribute)
        other = toy_change(inversions, names[0])
        change = self._gain * (own + self._slip * other)
        return torch.stack([inversions.reconstruction + s * change for s in strengths])

    def state(self) -> dict[str, Tensor]:
        return {"a": torch.tensor([self._slip, self._gain])}


class Noise:
    """Moves all attributes by chance: what a random direction of a working U-Net does."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="random_direction", title="noise", source="a test", version=1, control=True,
        matched=True, draws=True,
    )  # fmt: skip

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = config or MethodConfig()

    def fit(self, task: EditTask) -> NoiseEditor:
        return NoiseEditor(torch.randn(3, generator=task.generator))

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> NoiseEditor:
        return NoiseEditor(state["shares"])


class NoiseEditor:
    def __init__(self, shares: Tensor) -> None:
        self.cost, self._shares = FitCost(), shares

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        change = sum(
            share * toy_change(inversions, name)
            for name, share in zip(("bright", "red", "striped"), self._shares, strict=True)
        )
        return torch.stack([inversions.reconstruction + s * change for s in strengths])

    def state(self) -> dict[str, Tensor]:
        return {"shares": self._shares}


def painter(title: str, slip: float, gain: float, **info: Any) -> type:
    declared = MethodInfo(name=title, title=title, source="a test", version=1, **info)

    class Painter:
        info: ClassVar[MethodInfo] = declared

        def __init__(self, config: MethodConfig | None = None) -> None:
            self.config = config or MethodConfig()

        def fit(self, task: EditTask) -> Paint:
            return Paint(task.concept.attribute, slip, gain)

        def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Paint:
            return self.fit(task)

    return Painter


ENTRANTS = {
    "clean": (0.0, 0.5),
    "sloppy": (0.5, 0.5),
    "backwards": (0.0, -0.5),
    "weak": (0.0, 0.05),
}


@pytest.fixture()
def toy(toy_registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy domain with the known entrants; forgotten after the test."""
    monkeypatch.setattr(METHODS, "_factories", dict(METHODS._factories))
    METHODS._factories.pop("random_direction")
    METHODS.register("random_direction", Noise)
    for name, (slip, gain) in ENTRANTS.items():
        METHODS.register(name, painter(name, slip, gain))


def config(out: Path, *methods: str, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "methods": methods, "datasets": ("toy_shapes",), "concepts": ("red",), "suite": SUITE,
        "seed": 0, "device": "cpu", "out": out,
    }  # fmt: skip
    return RunConfig(**(fields | changes))


def edits(out: Path) -> dict[str, RunRecord]:
    return {r.method or "": r for r in analyse([out])
            if r.kind == "edit" and r.fit_seed == 0 and r.beside is None}  # fmt: skip


def test_methods_are_compared_at_equal_effect(toy: None, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(config(out, *ENTRANTS, concepts=("red", "bright")), SilentProgress()) == 0
    found = edits(out)
    # Strength 1 of these methods is half of the perfect edit: its effect is reached at 2 x share.
    levels = {level.name: level for level in found["clean"].levels}
    assert levels["effect_25"].strength == pytest.approx(0.5, abs=0.05)
    assert levels["effect_50"].strength == pytest.approx(1.0, abs=0.05)
    assert levels["effect_50"].strength == found["clean"].strength
    half = found["oracle"].full_effect
    assert half is not None
    change = found["clean"].measurements["signed_target_change"].value
    assert change == pytest.approx(half / 2, rel=0.1)
    assert found["sloppy"].strength == pytest.approx(found["clean"].strength, abs=0.05)
    # What goes the wrong way or not far enough says so, and is not extrapolated.
    assert {level.status for level in found["weak"].levels} == {"still_rising"}
    assert found["weak"].measurements["epr_plus"].status == "undefined"
    assert "still rising" in found["weak"].flags and "wrong way" in found["backwards"].flags
    headline = next(x for x in found["backwards"].levels if x.name == "effect_50")
    assert headline.largest is not None and headline.largest <= 0

    (comparison,) = (r.comparison for r in analyse([out]) if r.kind == "comparison")
    assert comparison is not None
    by_name = {s.method: s for s in comparison.standings}
    shares = {name: s.headline.value or 0.0 for name, s in by_name.items() if s.headline}
    assert list(by_name) == sorted(shares, key=lambda name: (-shares[name], name))
    epr_plus = {name: s.epr_plus.value or 0.0 for name, s in by_name.items()}
    assert epr_plus["clean"] > epr_plus["sloppy"] > 0
    assert max(epr_plus["backwards"], epr_plus["weak"]) <= 0
    assert by_name["weak"].epr_plus.value == 0
    assert (by_name["weak"].reached, by_name["clean"].reached) == (0, 2)
    assert len(comparison.pairs) == 6
    assert sum(s.p_first or 0 for s in comparison.standings) == pytest.approx(1)
    assert [a.scorer for a in comparison.agreements] == ["toy_reader", "toy_second_reader"]
    text = render_tables(as_measured(analyse([out])))
    assert "### Methods compared" in text and "precise edits" in text
    assert "### Strengths at equal effect" in text and "still rising (" in text


def test_a_resumed_comparison_is_the_same(toy: None, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(config(out, "clean", "sloppy"), SilentProgress())
    first = {r.record_id for r in analyse([out])}
    run(config(out, "clean", "sloppy"), SilentProgress())
    assert {r.record_id for r in analyse([out])} == first


def test_several_fits_are_told_apart_from_images(toy: None, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(config(out, "clean", "h_linear", fit_seeds=2), SilentProgress()) == 0
    records = [r for r in analyse([out]) if r.method == "clean"]
    assert sorted(r.fit_seed for r in records) == [0, 1]
    (comparison,) = (r.comparison for r in analyse([out]) if r.kind == "comparison")
    assert comparison is not None
    (clean,) = (s for s in comparison.standings if s.method == "clean")
    assert (clean.fit_sd.value, clean.fit_sd.n) == (0.0, 2)  # it draws nothing at random
    # More fits may be added to the folder later, and those that are there stay.
    kept = {r.record_id for r in records}
    run(config(out, "clean", fit_seeds=3), SilentProgress())
    again = [r for r in analyse([out]) if r.method == "clean"]
    assert len(again) == 3 and kept <= {r.record_id for r in again}


def test_a_method_guided_by_the_first_judge_is_decided_by_the_next(
    toy: None, tmp_path: Path
) -> None:
    METHODS.register("guided", painter("guided", 0.0, 0.5, guided_by=("primary",)))
    out = tmp_path / "run"
    assert run(config(out, "guided"), SilentProgress()) == 0
    record = edits(out)["guided"]
    assert record.judges == ("toy_second_reader", "toy_reader")
    assert record.guided_by == ("toy_reader",) and "guided by a scorer" in record.flags


def test_stored_pictures_scored_again_are_what_they_were(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with claim_run_folder(config(out, "clean")):
        assert run(config(out, "clean"), SilentProgress()) == 0
    before = {CellKey.of(r): r.record_id for r in RecordStore(out)}

    def fail(*args: Any) -> None:
        raise AssertionError("a U-Net pass")

    monkeypatch.setattr(Backbone, "encode", fail)
    monkeypatch.setattr(Backbone, "decode", fail)
    with_pictures = [r for r in RecordStore(out) if r.kind in ("edit", "null") and r.images]
    assert rescore(out) == len(with_pictures) > 2
    assert {CellKey.of(r): r.record_id for r in RecordStore(out)} == before


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    # control → what stands in its place: slip and gain of a painter, and how it declares itself
    "identity": ("'identity'", {"slip": 0.0, "gain": 0.1}),
    "oracle": ("the oracle flips", {"slip": 0.0, "gain": 0.0, "matched": True}),
    "shuffled": ("'shuffled'", {"slip": 0.0, "gain": 1.0}),
    "inverted": ("'inverted'", {"slip": 0.0, "gain": -1.0, "on_present": True}),
    "destroy": ("'destroy'", {"slip": 0.0, "gain": 0.0}),
    "pixel_attack": ("'pixel_attack'|second_reader", {"slip": 0.5, "gain": 1.0}),
}


@pytest.mark.parametrize("control", FAULTS)
def test_a_run_with_a_broken_control_is_invalid(control: str, toy: None, tmp_path: Path) -> None:
    said, fault = FAULTS[control]
    METHODS._factories.pop(control)
    METHODS.register(control, painter(control, control=True, **fault))
    with pytest.raises(InvalidBenchmarkError, match=said):
        run(config(tmp_path / "run", "clean"), SilentProgress())
    assert not (tmp_path / "run" / "table.md").exists()
