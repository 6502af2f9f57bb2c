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
from casl_bench.results.record import (
    CellRecord,
    FileRef,
    Level,
    Provenance,
    ReferenceScales,
    SuiteRef,
)
from casl_bench.results.run_folder import RecordStore
from casl_bench.results.score_table import ScoreTable

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
        shown: concepts that every image shows before the edit.
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
    shown: tuple[str, ...] = ()


def write_made_up_run(folder: Path, run: MadeUpRun) -> RecordStore:
    """Write records and scores of a run into a folder."""
    store = RecordStore(folder)
    spreads = {JUDGE: tuple(map(float, _SPREAD))}
    scorer = CellRecord(**_common(run), kind="scorer", scales=ReferenceScales(spreads=spreads))
    store.write(scorer.model_copy(update=dict(run.changes or {})))
    for concept in run.concepts:
        for k in range(run.draws):
            gain = run.unit * (-1) ** k
            table = _table(run, concept, MadeUpMethod(gain, 1.0), 1.0, f"draw {k}")
            _write(store, run, concept, "random_direction", table, k, control=True)
        for name, method in run.methods.items():
            for fit in range(run.fits):
                _write_edit(store, run, concept, name, method, fit)
    return store


def _write_edit(
    store: RecordStore, run: MadeUpRun, concept: str, name: str, method: MadeUpMethod, fit: int
) -> None:
    rng = _rng(method.luck, name, concept, fit)
    own = replace(method, damage=method.damage * math.exp(method.fit_sd * rng.standard_normal()))
    needed = GOAL / abs(own.gain) if own.gain else math.inf
    status = "not_reached" if needed > LARGEST else "reached" if own.gain > 0 else "wrong_way"
    strength = min(needed, LARGEST)
    levels = tuple(
        Level(
            name=f"effect_{share}",
            goal=GOAL * share / 50,
            unit="sd",
            status=status,  # type: ignore[arg-type]  # one of the three
            strength=None if status == "not_reached" else strength,
            largest=LARGEST * abs(own.gain),
        )
        for share in (25, 50, 75)
    )
    table = _table(run, concept, own, strength, "edit")
    fields = {"supervision": "text", "levels": levels, "full_effect": 2 * GOAL}
    _write(store, run, concept, name, table, fit, **fields)


def _write(
    store: RecordStore,
    run: MadeUpRun,
    concept: str,
    method: str,
    table: ScoreTable,
    fit_seed: int,
    **fields: Any,
) -> None:
    scores = table.to_npz()
    ref = FileRef(file="scores.npz", sha256=hash_bytes(scores))
    record = CellRecord(
        **_common(run),
        kind="edit",
        method=method,
        method_version=1,
        concept=concept,
        attribute=concept,
        strength=table.strengths[0],
        strength_chosen_on="validation",
        strengths=table.strengths,
        fit_seed=fit_seed,
        scores=ref,
        **fields,
    )
    store.write(record.model_copy(update=dict(run.changes or {})), {ref.file: scores})


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
    for shown in map(ATTRIBUTES.index, run.shown):
        source[:, shown] = np.abs(source[:, shown]) + 1
    base = source + 0.01 * _SPREAD * pictures.standard_normal((n, a))
    own = _rng(0, what, concept)
    varied = np.exp(_PICTURE_NOISE * own.standard_normal((n, a)) - _PICTURE_NOISE**2 / 2)
    signs = own.choice([-1.0, 1.0], size=(n, a))
    varied *= np.exp(method.picture_sd * _rng(method.luck, concept).standard_normal((n, a)))
    change = method.damage * varied * signs
    change[:, target] = method.gain * varied[:, target]
    edit = base + strength * change * _SPREAD
    ids = tuple(f"test-{i:06d}" for i in range(n))
    background = np.abs(method.damage * strength * own.standard_normal((1, n))) / 10
    return ScoreTable(
        ids, (strength,), ATTRIBUTES, (JUDGE,), source[None], base[None], edit[None, None],
        background=background,
    )  # fmt: skip


def _rng(*keys: int | str) -> np.random.Generator:
    return np.random.default_rng(int(hash_json(keys)[:15], 16))
