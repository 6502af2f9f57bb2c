"""A run of made-up numbers that is whole: every cell, every control, a comparison that follows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import pytest

from casl_bench.analysis.measure import flags_of
from casl_bench.analysis.significance import holm, rank_intervals
from casl_bench.core.registry import discover
from casl_bench.metrics.epr_plus import signed_exp, signed_log
from casl_bench.metrics.metric import METRICS, metric_infos
from casl_bench.report.submission import Expected
from casl_bench.results.record import (
    ALL,
    Comparison,
    Cost,
    FileRef,
    LevelResult,
    Measurement,
    Pair,
    Provenance,
    RunRecord,
    Standing,
    SuiteRef,
)

CONCEPTS = ("brick", "dome", "snow")
CONTROLS = {
    "random_direction": True,
    "identity": False,
    "oracle": False,
    "shuffled": False,
    "inverted": False,
    "destroy": False,
    "pixel_attack": False,
}
CLEAN = Provenance(
    package_version="0",
    git_commit="c" * 40,
    git_dirty=False,
    packages={},
    device="cpu",
    platform="Linux x86_64",
    started_at="2026-01-01T00:00:00+00:00",
    seconds={"edit": 19.2},
    argv=("benchmark.py", "--methods", "all"),
    threads=2,
)
OF_CONTROL = {
    "random_direction": {"epr_std": 0.5, "flip_rate": 0.0, "signed_target_change": 0.1},
    "identity": {"signed_target_change": 0.0, "epr_plus": 0.0, "epr_raw": None},
    "oracle": {"flip_rate": 1.0, "epr_plus": 50.0, "epr_raw": 40.0, "signed_target_change": 2.0},
    "shuffled": {"signed_target_change": 0.0, "epr_plus": 0.1},
    "inverted": {"signed_target_change": -2.0, "epr_plus": -50.0, "epr_raw": 40.0},
    "destroy": {"perceptual_guard": 1.0, "identity_guard": 1.0, "epr_plus": 0.5},
    "pixel_attack": {"epr_raw": 60.0, "signed_target_change": 2.0, "epr_plus": 3.0},
}
discover("casl_bench.metrics", METRICS)
UNITS = {info.name: info.unit for info in metric_infos()}


def ok(value: float | None, unit: str = "", n: int = 32) -> Measurement:
    if value is None:
        return Measurement.undefined("below the noise floor", n, unit)
    return Measurement.of(value, n, unit)


class MadeUpRun:
    """Records of one run.

    Args:
        scores: method → concept → EPR+, None where the effect is not reached.
        datasets: each with the same concepts and scores.
        p: of every pair of methods.
        draws: of the random direction.
        common: fields of every record.
    """

    def __init__(
        self,
        scores: Mapping[str, Mapping[str, float | None]],
        datasets: tuple[str, ...] = ("rendered_churches",),
        p: float = 0.001,
        draws: int = 2,
        controls: Mapping[str, bool] = CONTROLS,
        beside: Mapping[str, str] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ) -> None:
        self.scores, self.p = scores, p
        self.concepts = tuple(next(iter(scores.values())))
        self.settings = settings or {}
        self.common = {
            "world": "synth",
            "suite": SuiteRef(name="standard", version=3),
            "seed": 0,
            "attributes": self.concepts,
            "scorers": {"classifier": "a" * 64, "other": "b" * 64},
            "backbone": "d" * 64,
            "provenance": CLEAN,
        } | common
        self.records: list[RunRecord] = []
        for dataset in datasets:
            for concept in self.concepts:
                self.records += [self.edit(dataset, m, concept) for m in scores]
                for control, drawn in controls.items():
                    for draw in range(draws if drawn else 1):
                        self.records.append(self.control(dataset, control, concept, draw))
                for method, control in (beside or {}).items():
                    own = self.control(dataset, control, concept, 0)
                    flips = {"flip_rate": ok(0.0, "share")}
                    update = {"beside": method, "measurements": flips}
                    self.records.append(own.model_copy(update=update))
            self.records += self.once(dataset)
            self.records.append(self.compared(dataset, (dataset,)))
        if len(datasets) > 1:
            self.records.append(self.compared(ALL, datasets))

    def record(self, dataset: str, kind: Any, **fields: Any) -> RunRecord:
        revision = "" if dataset == ALL else "r1"
        return RunRecord(
            **self.common
            | {"dataset": dataset, "dataset_revision": revision, "kind": kind}
            | fields
        )

    def cell(self, dataset: str, method: str, concept: str, **fields: Any) -> RunRecord:
        settings = {"method_version": 1, "method_config": {"gain": 1.0}}
        found = self.record(
            dataset,
            "edit",
            **settings | dict(self.settings.get(method, {})),
            **{"method": method, "concept": concept, "strength": 1.0, "strengths": (1.0,),
               "strength_chosen_on": "validation", "judges": ("classifier", "other"),
               "full_effect": 2.0} | fields,
        )  # fmt: skip
        return found.model_copy(update={"flags": flags_of(found)})

    def edit(self, dataset: str, method: str, concept: str, **fields: Any) -> RunRecord:
        value = self.scores[method][concept]
        reached = value is not None
        headline = {"epr_plus": ok(value, "ratio"), "mean_collateral": ok(0.2, "sd")}
        if not reached:
            headline = {}
        level = LevelResult(
            name="effect_50", goal=1.0, unit="sd", status="reached" if reached else "not_reached",
            strength=1.0 if reached else None, largest=1.2, measurements=headline,
        )  # fmt: skip
        values = {"epr_raw": 3.0, "epr_over_random": 2.0, "flip_rate": 0.5, "perceptual": 0.1,
                  "identity": 0.9, "signed_target_change": 1.0}  # fmt: skip
        numbers = {name: ok(v, UNITS.get(name, "")) for name, v in values.items()}
        place = hashlib.sha256(f"{dataset}/{method}/{concept}".encode()).hexdigest()
        return self.cell(
            dataset,
            method,
            concept,
            **{"supervision": "text", "levels": (level,),
               "measurements": {"epr_plus": ok(value, "ratio"), **numbers},
               "cost": Cost(parameters=100, unet_calls=10, edit_unet_calls=5),
               "scores": FileRef(file="scores.csv", sha256=place)} | fields,
        )  # fmt: skip

    def control(self, dataset: str, name: str, concept: str, draw: int) -> RunRecord:
        numbers = {k: ok(v, UNITS.get(k, "")) for k, v in OF_CONTROL.get(name, {}).items()}
        return self.cell(dataset, name, concept, control=True, fit_seed=draw, measurements=numbers)

    def once(self, dataset: str) -> list[RunRecord]:
        psnr = {"psnr": ok(50.0, "dB")}
        return [
            self.record(dataset, "reconstruction", measurements=psnr),
            self.record(dataset, "scorer"),
        ]

    def compared(self, where: str, datasets: tuple[str, ...]) -> RunRecord:
        logs = {
            m: sum(0.0 if v is None else signed_log(v) for v in by.values()) / len(by)
            for m, by in self.scores.items()
        }
        order = sorted(logs, key=lambda m: (-logs[m], m))
        pairs = [*combinations(order, 2)]
        adjusted = holm([self.p] * len(pairs))
        gaps = {pair: logs[pair[0]] - logs[pair[1]] for pair in pairs}
        found_pairs = tuple(
            Pair(a=a, b=b, difference=ok(gaps[a, b], "log ratio", 96), p=self.p, p_holm=q)
            for (a, b), q in zip(pairs, adjusted, strict=True)
        )
        standings = []
        for rank in rank_intervals(logs, found_pairs):
            value = float(signed_exp(logs[rank.method]))
            found = Measurement(status="ok", value=value, low=value - 1, high=value + 1, n=96)
            cells = len(self.concepts) * len(datasets)
            reached = sum(v is not None for v in self.scores[rank.method].values())
            standings.append(
                Standing(
                    method=rank.method, epr_plus=found, epr_plus_here=found, rank_low=rank.low,
                    rank_high=rank.high, group=rank.letters, reached=reached * len(datasets),
                    wrong_way=0, cells=cells,
                    fit_sd=Measurement.undefined("a single fit", 1, "log ratio"),
                )
            )  # fmt: skip
        comparison = Comparison(
            level="effect_50",
            datasets=datasets,
            concepts=tuple(f"{d}/{c}" for d in datasets for c in self.concepts),
            standings=tuple(standings),
            pairs=found_pairs,
            agreements=(),
            sensitivity=(),
        )
        return self.record(where, "comparison", comparison=comparison)


@pytest.fixture
def made_up_run() -> type[MadeUpRun]:
    return MadeUpRun


@pytest.fixture
def scores() -> dict[str, dict[str, float | None]]:
    """Two methods: one is better everywhere, the other does not reach one concept."""
    return {
        "casl": {"brick": 9.0, "dome": 7.0, "snow": 8.0},
        "asyrp": {"brick": 3.0, "dome": 2.0, "snow": None},
    }


@pytest.fixture
def whole(made_up_run: type[MadeUpRun], scores: Any) -> list[RunRecord]:
    return made_up_run(scores).records


KNOWN = {"method_version": 1, "method_config": {"gain": 1.0}, "supervision": "text"}


@pytest.fixture
def expected() -> Expected:
    """What `whole` should hold."""
    return Expected(
        suite_version=3,
        suite_hash="",
        images=32,
        draws=2,
        concepts={"rendered_churches": CONCEPTS},
        every_dataset=("rendered_churches", "rendered_faces"),
        alone=CONTROLS,
        beside={},
        matched_concepts=3,
        fields_of=lambda r: dict(KNOWN) if r.method == "casl" else {},
    )


@pytest.fixture
def replaced() -> Callable[..., list[RunRecord]]:
    """Records with some fields of those that fit changed."""

    def make(
        records: list[RunRecord], fits: Callable[[RunRecord], bool], **changes: Any
    ) -> list[RunRecord]:
        assert any(map(fits, records))
        return [r.model_copy(update=changes) if fits(r) else r for r in records]

    return make
