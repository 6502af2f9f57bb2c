"""Which number should rank methods: candidates on synthetic editors and on the red team.

An editor's precision is known from factors; a candidate is good where it orders editors as their
precision does, and where no attack ranks high. No method takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import TypeAdapter

from casl_bench.domains.rendered import RENDERED, rendered_domain
from casl_bench.domains.rendering.renderer import to_pixels
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.epr import EPR_RAW
from casl_bench.metrics.epr_plus import EPR_SIGNED, signed_exp, signed_log
from casl_bench.metrics.precise_edits import TOLERANCE, image_outcomes
from casl_bench.models.micro_batch import one_thread
from casl_bench.results.provenance import package_versions
from casl_bench.results.record import Finite, Frozen
from casl_bench.runs.names import load_registries
from casl_bench.studies import Name, parse_study, to_lines
from casl_bench.studies.fresh_scorers import fresh_domain
from casl_bench.studies.headline.attacks import ATTACKS, red_team
from casl_bench.studies.headline.editors import (
    EDITORS,
    described,
    known_precise,
    known_purity,
    plan,
    settings_of,
)
from casl_bench.studies.headline.subjects import StudyScorers, Subject, subject_of

HEADLINE_VERSION = 3
"""Raise it whenever an editor, an attack or a candidate changes."""

Panel = Sequence[EditScores]


def _credit(tolerances: Sequence[float] | None) -> Callable[[Panel], float]:
    def value(panel: Panel) -> float:
        outcomes = image_outcomes(panel)
        own = outcomes.credit(tolerances) if tolerances is not None else outcomes.credit()
        return float(own.sum() / max(outcomes.eligible.sum(), 1))

    return value


def _reach(panel: Panel) -> float:
    outcomes = image_outcomes(panel)
    return float((outcomes.flipped & outcomes.eligible).sum() / max(outcomes.eligible.sum(), 1))


def _two_parts(panel: Panel) -> float:
    """Reach, then the log of the precision where both are known: reach * mean log(1 + T / N)."""
    outcomes = image_outcomes(panel)
    reached = outcomes.flipped & outcomes.eligible
    if not reached.any():
        return 0.0
    logs = []
    for scores in panel:
        change = np.abs(scores.edit - scores.base)[reached] / scores.spread
        others = np.maximum(change[:, scores.others].mean(1), 1e-3)
        logs.append(np.log1p(change[:, scores.target] / others).mean())
    return float(reached.sum() / max(outcomes.eligible.sum(), 1) * np.mean(logs))


def _of_primary(value: Callable[[EditScores], float | None]) -> Callable[[Panel], float]:
    return lambda panel: signed_log(value(panel[0]) or 0.0)


CANDIDATES: dict[str, tuple[str, Callable[[Panel], float]]] = {
    "precise_edits": ("precise edits, mean over tolerances", _credit(None)),
    "precise_edit_rate": (f"precise edits at {TOLERANCE}", _credit((TOLERANCE,))),
    "precise_all": (
        "precise edits, mean over all tolerances to 1",
        _credit(tuple(i / 20 for i in range(1, 21))),
    ),
    "two_parts": ("reach × log precision where reached", _two_parts),
    "reach": ("flipped, by every classifier", _reach),
    "epr_signed": ("EPR+ before its divisor", _of_primary(EPR_SIGNED.value)),
    "epr_raw": ("EPR (eq. 14)", _of_primary(EPR_RAW.value)),
}
"""Name → title, and a concept's value; a domain's is the mean over its concepts."""

LOGARITHMIC = ("epr_signed", "epr_raw")
"""Candidates whose means are turned back from the signed log for tables."""

Judge = Literal["shipped", "fresh"]
JUDGES: tuple[Judge, Judge] = ("shipped", "fresh")
Values = dict[str, Finite]


class HeadlineHeader(Frozen):
    """How the records were made."""

    kind: Literal["headline"] = "headline"
    version: int
    command: str
    images: int
    seed: int
    datasets: dict[Name, Name]
    scorers: dict[Name, dict[Name, Name]]
    packages: dict[str, str]


class EditorRow(Frozen):
    """One synthetic editor: what it does wrong, how precise it is, and what candidates say."""

    kind: Literal["editor"] = "editor"
    dataset: Name
    number: int
    settings: Name
    precise: Finite
    purity: Finite
    values: Values


class AttackRow(Frozen):
    """One row of the red team, by shipped or by fresh scorers."""

    kind: Literal["attack"] = "attack"
    dataset: Name
    attack: Name
    judge: Judge
    values: Values


Rows = TypeAdapter[EditorRow | AttackRow]
ROWS: Rows = TypeAdapter(EditorRow | AttackRow)


class HeadlineRecords:
    """All of the study."""

    def __init__(self, header: HeadlineHeader, rows: Sequence[EditorRow | AttackRow]) -> None:
        self.header = header
        self.editors = [r for r in rows if isinstance(r, EditorRow)]
        self.attacks = [r for r in rows if isinstance(r, AttackRow)]

    def to_jsonl(self) -> str:
        """One JSON object a line."""
        return to_lines([self.header, *self.editors, *self.attacks])

    @classmethod
    def from_jsonl(cls, text: str, where: str = "") -> HeadlineRecords:
        """What `to_jsonl` gave."""
        return cls(*parse_study(text, HeadlineHeader, ROWS, where))


@one_thread()
def make_headline_study(
    images: int,
    seed: int,
    command: str,
    say: Callable[[str], None],
    domains: Sequence[str] = tuple(RENDERED),
    cache: Path | None = None,
    editors: int = EDITORS,
) -> HeadlineRecords:
    """Editors and red team on every concept of the rendered domains.

    Args:
        images: n of each concept to choose strengths on, and as many others to measure.
        seed: of the fresh scorers.
        command: that asks for it.
        say: takes lines of progress.
        domains: names.
        cache: folder of rendered pictures.
        editors: synthetic editors of each domain.
    """
    load_registries()
    rows: list[EditorRow | AttackRow] = []
    revisions, hashes = {}, {}
    for name in domains:
        shipped = rendered_domain(name)
        fresh = fresh_domain(name, seed, cache, say=say)
        scorers: dict[Judge, StudyScorers] = {
            "shipped": StudyScorers(shipped), "fresh": StudyScorers(fresh, seed)
        }  # fmt: skip
        card = shipped.dataset.card
        revisions[name] = card.revision
        hashes[name] = {**fresh.scorer_hashes, **shipped.scorer_hashes}
        subjects = [subject_of(RENDERED[name].drawing, c, 2 * images) for c in card.concepts]
        rows += _editor_rows(name, scorers["shipped"], subjects, images, editors, say)
        rows += _attack_rows(name, scorers, subjects, images, say)
    header = HeadlineHeader(
        version=HEADLINE_VERSION, command=command, images=images, seed=seed, datasets=revisions,
        scorers=hashes, packages=package_versions(),
    )  # fmt: skip
    return HeadlineRecords(header, rows)


def _values(panel: Panel) -> dict[str, float]:
    return {name: of(panel) for name, (_, of) in CANDIDATES.items()}


def _mean(found: Sequence[Mapping[str, float]]) -> Values:
    """Over concepts, of each candidate; ratios are turned back."""
    means = {name: float(np.mean([f[name] for f in found])) for name in CANDIDATES}
    return {n: round(signed_exp(v) if n in LOGARITHMIC else v, 5) for n, v in means.items()}


def _editor_rows(
    dataset: str,
    scorers: StudyScorers,
    subjects: Sequence[Subject],
    images: int,
    count: int,
    say: Callable[[str], None],
) -> list[EditorRow]:
    truths: list[list[tuple[float, float]]] = [[] for _ in range(count)]
    values: list[list[dict[str, float]]] = [[] for _ in range(count)]
    for whole in subjects:
        say(f"{dataset}: {whole.concept.name}, {count} editors")
        subject = replace(whole, lacking=whole.lacking[images:], having=whole.having[images:])
        before = to_pixels(subject.drawing.render(subject.lacking))
        plans = [plan(subject, number) for number in range(count)]
        edits = []
        for own in plans:
            end = to_pixels(subject.drawing.render(own.end))
            share = torch.from_numpy(own.share).float()[:, None, None, None]
            edits.append(torch.lerp(before, end, share))
        scores = scorers.scores(subject.concept, subject.lacking, before, edits)
        for number, (own, by_classifier) in enumerate(zip(plans, scores, strict=True)):
            target = subject.target
            truths[number].append(
                (float(known_precise(own, target).mean()), float(known_purity(own, target).mean()))
            )
            values[number].append(_values([*by_classifier.values()]))
    return [
        EditorRow(
            dataset=dataset,
            number=number,
            settings=described(settings_of(dataset, number)),
            precise=round(float(np.mean([t[0] for t in truths[number]])), 5),
            purity=round(float(np.mean([t[1] for t in truths[number]])), 5),
            values=_mean(values[number]),
        )
        for number in range(count)
    ]


def _attack_rows(
    dataset: str,
    scorers: Mapping[Judge, StudyScorers],
    subjects: Sequence[Subject],
    images: int,
    say: Callable[[str], None],
) -> list[AttackRow]:
    shipped = scorers["shipped"]
    team = red_team(shipped.scorers.domain, shipped.spreads, subjects[0])
    values: dict[tuple[str, Judge], list[dict[str, float]]] = {}
    for whole in subjects:
        say(f"{dataset}: {whole.concept.name}, red team")
        halves = [
            replace(whole, lacking=whole.lacking[part], having=whole.having[part])
            for part in (slice(None, images), slice(images, None))
        ]
        pictures = [to_pixels(h.drawing.render(h.lacking)) for h in halves]
        edits = []
        for attack in ATTACKS.values():
            strength = attack.strengths[0]
            if len(attack.strengths) > 1:
                tried = attack.make(team, halves[0])
                found = shipped.scores(
                    whole.concept, halves[0].lacking, pictures[0],
                    [tried(pictures[0], s) for s in attack.strengths],
                )  # fmt: skip
                marks = [CANDIDATES["precise_edits"][1]([*by.values()]) for by in found]
                strength = attack.strengths[int(np.argmax(marks))]
            edits.append(attack.make(team, halves[1])(pictures[1], strength).clamp(-1, 1))
        for judge, own in scorers.items():
            scores = own.scores(whole.concept, halves[1].lacking, pictures[1], edits)
            for attack_name, by_classifier in zip(ATTACKS, scores, strict=True):
                found_values = _values([*by_classifier.values()])
                values.setdefault((attack_name, judge), []).append(found_values)
    return [
        AttackRow(dataset=dataset, attack=attack_name, judge=judge, values=_mean(found))
        for (attack_name, judge), found in values.items()
    ]
