"""A run folder of made-up scores: what gates and reports read, without a model or a picture.

Every image has its own gain and damage, the same whichever method, side or fit it is in, so two
runs are paired as real ones are. What a method is told to be is what its EPR+ says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from casl_bench.core.files import hash_bytes, hash_json
from casl_bench.metrics.epr_plus import EPR_SIGNED, epr_plus, gain_column
from casl_bench.results.record import (
    FileRef,
    LevelResult,
    Measurement,
    Provenance,
    RunRecord,
    SuiteRef,
)
from casl_bench.results.run_folder import RecordStore
from casl_bench.results.score_table import EditScores, ScoreTable

ATTRIBUTES = ("hat", "beard", "blond", "smiling")
JUDGE = "made_up_classifier"
GOAL = 1.0
"""Target change in sd at which methods are compared."""

LARGEST = 3.0
"""Strength beyond which nothing is tried."""

_SPREAD = np.array([2.0, 1.0, 3.0, 1.5])
_PICTURE_NOISE = 0.3


@dataclass(frozen=True)
class MadeUpMethod:
    """How a method edits.

    Attributes:
        gain: target change in sd a unit of strength; negative is the wrong way.
        damage: mean change of every other attribute in sd a unit of strength.
        fit_sd: standard deviation between fits of the log of the damage.
        picture_sd: standard deviation between images of the log of what is only this method's.
        luck: seed of both; another one draws other fits and pictures.
    """

    gain: float = 2.0
    damage: float = 0.2
    fit_sd: float = 0.0
    picture_sd: float = 0.0
    luck: int = 0


@dataclass(frozen=True)
class MadeUpRun:
    """A run.

    Attributes:
        methods: name → how it edits.
        concepts: of `ATTRIBUTES`.
        fits: of every method.
        images: test images.
        draws: random draws of the control.
        dataset: its name.
        unit: EPR of the random draws.
        changes: fields that all records have otherwise, e.g. {"seed": 1}.
        commit: of the code that is said to have run.
    """

    methods: Mapping[str, MadeUpMethod]
    concepts: tuple[str, ...] = ("hat", "beard")
    fits: int = 1
    images: int = 32
    draws: int = 2
    dataset: str = "made_up"
    unit: float = 1.0
    changes: Mapping[str, Any] | None = None
    commit: str | None = None


def write_made_up_run(folder: Path, run: MadeUpRun) -> RecordStore:
    """Write records and scores of a run into a folder."""
    store = RecordStore(folder)
    store.write(_scorer_record(run))
    for concept in run.concepts:
        draws = []
        for k in range(run.draws):
            gain = run.unit * (-1) ** k
            table = _table(run, concept, MadeUpMethod(gain, 1.0), 1.0, f"draw {k}")
            draws.append(_scores(table, concept))
            _write_draw(store, run, concept, k, table, draws[-1])
        for name, method in run.methods.items():
            for fit in range(run.fits):
                _write_edit(store, run, concept, name, method, fit, draws)
    return store


def _write_edit(
    store: RecordStore,
    run: MadeUpRun,
    concept: str,
    name: str,
    method: MadeUpMethod,
    fit: int,
    draws: list[EditScores],
) -> None:
    rng = _rng(method.luck, name, concept, fit)
    own = replace(method, damage=method.damage * math.exp(method.fit_sd * rng.standard_normal()))
    needed = GOAL / abs(own.gain) if own.gain else math.inf
    status = "not_reached" if needed > LARGEST else "reached" if own.gain > 0 else "wrong_way"
    strength = min(needed, LARGEST)
    table = _table(run, concept, own, strength, "edit")
    scores = _scores(table, concept)
    change = float(gain_column(scores).mean())
    found = {"signed_target_change": Measurement.of(change, len(scores), "sd")}
    value = epr_plus(scores, draws)
    if value is not None:
        found["epr_plus"] = Measurement.of(value, len(scores), "ratio")
    levels = [
        LevelResult(
            name=f"effect_{share}",
            goal=GOAL * share / 50,
            unit="sd",
            status=status,  # type: ignore[arg-type]  # one of the three
            strength=None if status == "not_reached" else strength,
            measurements={} if status == "not_reached" else found,
        )
        for share in (25, 50, 75)
    ]
    record = RunRecord(
        **_common(run),
        kind="edit",
        method=name,
        method_version=1,
        concept=concept,
        supervision="text",
        strength=strength,
        strength_chosen_on="validation",
        strengths=(strength,),
        measurements=found,
        levels=tuple(levels),
        fit_seed=fit,
    )
    _write(store, run, record, table)


def _write_draw(
    store: RecordStore,
    run: MadeUpRun,
    concept: str,
    draw: int,
    table: ScoreTable,
    scores: EditScores,
) -> None:
    epr = abs(EPR_SIGNED.value(scores) or 0.0)
    record = RunRecord(
        **_common(run),
        kind="edit",
        method="random_direction",
        method_version=1,
        control=True,
        concept=concept,
        strength=1.0,
        strength_chosen_on="validation",
        strengths=(1.0,),
        measurements={"epr_std": Measurement.of(epr, len(scores))},
        fit_seed=draw,
    )
    _write(store, run, record, table)


def _write(store: RecordStore, run: MadeUpRun, record: RunRecord, table: ScoreTable) -> None:
    scores = table.to_csv().encode()
    ref = FileRef(file="scores.csv", sha256=hash_bytes(scores))
    changed = record.model_copy(update={"scores": ref, **(run.changes or {})})
    store.write(changed, {ref.file: scores})


def _scorer_record(run: MadeUpRun) -> RunRecord:
    spreads = {
        f"{JUDGE}.spread/{name}": Measurement.of(float(value), run.images, "logit")
        for name, value in zip(ATTRIBUTES, _SPREAD, strict=True)
    }
    record = RunRecord(**_common(run), kind="scorer", measurements=spreads)
    return record.model_copy(update=dict(run.changes or {}))


def _common(run: MadeUpRun) -> dict[str, Any]:
    return {
        "world": "made up",
        "dataset": run.dataset,
        "dataset_revision": "1",
        "suite": SuiteRef(name="made_up", version=1),
        "seed": 0,
        "attributes": ATTRIBUTES,
        "scorers": {JUDGE: hash_json(JUDGE)},
        "judges": (JUDGE,),
        "metric_versions": {"epr_plus": 1},
        "metric_identities": {"epr_plus": "1"},
        "provenance": Provenance(
            package_version="0",
            git_commit=run.commit,
            git_dirty=None if run.commit is None else False,
            packages={},
            device="cpu",
            platform="x",
            started_at="2000-01-01T00:00:00+00:00",
        ),
    }


def _table(
    run: MadeUpRun, concept: str, method: MadeUpMethod, strength: float, what: str
) -> ScoreTable:
    """Scores of every image at one strength; images differ alike in all runs."""
    n, a, target = run.images, len(ATTRIBUTES), ATTRIBUTES.index(concept)
    pictures = _rng(0, "pictures", run.dataset)
    source = pictures.standard_normal((n, a)) * _SPREAD
    base = source + 0.01 * _SPREAD * pictures.standard_normal((n, a))
    own = _rng(0, what, concept)
    varied = np.exp(_PICTURE_NOISE * own.standard_normal((n, a)) - _PICTURE_NOISE**2 / 2)
    signs = own.choice([-1.0, 1.0], size=(n, a))
    varied *= np.exp(method.picture_sd * _rng(method.luck, concept).standard_normal((n, a)))
    change = method.damage * varied * signs
    change[:, target] = method.gain * varied[:, target]
    edit = base + strength * change * _SPREAD
    ids = tuple(f"test-{i:06d}" for i in range(n))
    return ScoreTable(
        ids, (strength,), ATTRIBUTES, (JUDGE,), source[None], base[None], edit[None, None]
    )


def _scores(table: ScoreTable, concept: str) -> EditScores:
    return table.at(table.strengths[0], concept, _SPREAD)


def _rng(*keys: int | str) -> np.random.Generator:
    return np.random.default_rng(int(hash_json(keys)[:15], 16))
