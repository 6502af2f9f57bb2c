"""The page of the headline's study, made of its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from casl_bench.report.markdown import fold, number, table
from casl_bench.results.rejudged import MOST_LOSS, loss_of
from casl_bench.studies import packages_text, read_records, section, write_page
from casl_bench.studies.headline.attacks import ATTACKS
from casl_bench.studies.headline.study import (
    CANDIDATES,
    JUDGES,
    AttackRow,
    EditorRow,
    HeadlineRecords,
    Judge,
)

RECORDS, PAGE = "headline.jsonl", "headline.md"

ENOUGH = 0.95
"""Rank correlation with the known precision that the headline must have in every domain."""

MOST_GAIN = 1.1
"""What an attack may add to the honest row that it begins with, by fresh scorers."""


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's; NaN where either does not vary."""
    from scipy.stats import spearmanr  # takes a second to import

    return float(spearmanr(a, b).statistic)


def read_headline_study(folder: Path) -> HeadlineRecords:
    """The records in a folder."""
    return read_records(
        folder / RECORDS, HeadlineRecords.from_jsonl, "casl-bench study headline makes them"
    )


def write_headline_study(folder: Path, records: HeadlineRecords) -> Path:
    """Write the page into a folder."""
    return write_page(folder / PAGE, page(records), {})


def correlations(records: HeadlineRecords, truth: str = "precise") -> dict[str, dict[str, float]]:
    """Data set → candidate → rank correlation over the synthetic editors."""
    found: dict[str, dict[str, float]] = {}
    for dataset in records.header.datasets:
        own = [e for e in records.editors if e.dataset == dataset]
        known = [getattr(e, truth) for e in own]
        found[dataset] = {
            name: rank_correlation(known, [e.values[name] for e in own]) for name in CANDIDATES
        }
    return found


def page(records: HeadlineRecords) -> str:
    """Markdown: the same records give the same bytes."""
    header = records.header
    fresh = "classifiers and regressors" if header.version > 1 else "classifiers (no regressors)"
    parts = [
        "# Which number should rank methods",
        f"Made by `{header.command}`: {header.images} images of each concept to choose strengths "
        f"on and as many to measure, fresh {fresh} of seed {header.seed}; "
        f"{packages_text(header.packages)}. No method takes part.",
        _order_section(records),
        _attack_section(records),
        _decision_section(records),
        fold("every synthetic editor", _editor_table(records.editors)),
    ]
    return "\n\n".join(parts) + "\n"


def _order_section(records: HeadlineRecords) -> str:
    by_truth = {t: correlations(records, t) for t in ("precise", "purity")}
    names = list(records.header.datasets)
    rows = [
        [title, *(number(by_truth["precise"][d][n], 3) for d in names),
         *(number(by_truth["purity"][d][n], 3) for d in names)]
        for n, (title, _) in CANDIDATES.items()
    ]  # fmt: skip
    count = len(records.editors) // max(len(names), 1)
    return section(
        "Does it order editors as their known precision does?",
        f"Spearman's rank correlation over {count} synthetic editors per domain. Known precision "
        "is the share of precise edits by the factors that the pictures are rendered from, mean "
        "over the same tolerances; *purity* is another notion of it, without a tolerance: the "
        "target's change over all change in units of the factors' standard deviations, 0 for an "
        "image whose target does not show.",
        table(["candidate", *names, *(f"{d}, purity" for d in names)], rows, 1),
    )


def _mean_rows(rows: Sequence[AttackRow], judge: Judge) -> dict[str, dict[str, float]]:
    """Attack → candidate → mean over data sets."""
    found: dict[str, dict[str, float]] = {}
    for attack in ATTACKS:
        own = [r.values for r in rows if r.attack == attack and r.judge == judge]
        if own:  # records of an older version have fewer
            found[attack] = {n: float(np.mean([v[n] for v in own])) for n in CANDIDATES}
    return found


def _attack_section(records: HeadlineRecords) -> str:
    shipped, fresh = (_mean_rows(records.attacks, judge) for judge in JUDGES)
    shown = ("precise_edits", "precise_edit_rate", "reach", "epr_signed", "epr_raw")
    heads = [f"{CANDIDATES[n][0]}{j}" for n in shown for j in ("", ", fresh")]
    rows = [
        [f"{name} ({attack.kind})", attack.what,
         *(number(by[name][n], 3) for n in shown for by in (shipped, fresh))]
        for name, attack in ATTACKS.items() if name in shipped
    ]  # fmt: skip
    by_dataset = []
    for dataset in records.header.datasets:
        own = [r for r in records.attacks if r.dataset == dataset]
        of = {judge: _mean_rows(own, judge) for judge in JUDGES}
        lines = [
            [name, *(number(of[judge][name]["precise_edits"], 3) for judge in JUDGES)]
            for name in of["shipped"]
        ]
        by_dataset.append(f"**{dataset}**\n\n" + table(["attack", "shipped", "fresh"], lines, 1))
    return section(
        "What attacks gain",
        "Means over the concepts of all domains, by the shipped scorers and by fresh ones, "
        "which no attack has seen, on purified pictures: noised and denoised by the diffusion "
        "model, which takes its share from every edit, the perfect one too. EPR+ is before its "
        "divisor, a constant of the concept. Nothing is matched in its effect.",
        table(["row", "what", *heads], rows, 2),
        fold("precise edits by domain", "\n\n".join(by_dataset)),
    )


def bounds(records: HeadlineRecords) -> dict[str, bool]:
    """What is asked of the headline → whether it holds."""
    own = correlations(records)
    found = {f"rank correlation ≥ {ENOUGH} in {d}": own[d]["precise_edits"] >= ENOUGH for d in own}
    shipped, fresh = (
        {n: v["precise_edits"] for n, v in _mean_rows(records.attacks, judge).items()}
        for judge in JUDGES
    )
    # As in re-judging: what purification takes from the perfect edit is no loss.
    kept = min(fresh["exact"] / max(shipped["exact"], 1e-9), 1.0)
    fresh = {name: value / max(kept, 1e-9) for name, value in fresh.items()}
    honest = [n for n in shipped if ATTACKS[n].kind == "honest"]
    middle = float(np.median([shipped[n] for n in honest]))
    for name in (n for n in shipped if ATTACKS[n].kind == "attack" or n == "untouched"):
        if base := ATTACKS[name].over:
            gain = fresh[name] / max(fresh[base], 1e-9)
            found[f"'{name}' gains {gain:.2f} times over {base} by fresh scorers, at most "
                  f"{MOST_GAIN}"] = gain <= MOST_GAIN  # fmt: skip
            gain = shipped[name] / max(shipped[base], 1e-9)
            found[
                f"'{name}' gains {gain:.2f} times by shipped scorers, at most {MOST_GAIN}, or is "
                "not ranked"
            ] = gain <= MOST_GAIN or _lost(shipped[name], fresh[name])
            continue
        found[f"'{name}' ranks below the pixel mean difference by fresh scorers"] = (
            fresh[name] < fresh["pixel_mean"]
        )
        found[
            f"'{name}' ranks below the median honest row by shipped scorers, or is not ranked"
        ] = shipped[name] < middle or _lost(shipped[name], fresh[name])
    return found


def _lost(shipped: float, fresh: float) -> bool:
    return loss_of(shipped, fresh) > MOST_LOSS


def _decision_section(records: HeadlineRecords) -> str:
    lines = [f"- {'yes' if holds else '**no**'}: {what}" for what, holds in bounds(records).items()]
    return section("What is asked of the headline", _DECISION, "\n".join(lines))


_DECISION = (
    "The headline is **precise edits, mean over tolerances**: bounded, defined image by image and "
    "on photographs too, in the order of known precision, and without a rule for what is not "
    "reached. One tolerance orders editors less well, since an image just beyond it counts as one "
    "that is ruined; tolerances to 1 order them by precision as well, but give credit to images "
    "that are more another's than their own. Known precision has the same tolerances as the "
    "headline, which favours it; purity has none. Nothing was changed after a method was scored by "
    "it."
)


def _editor_table(editors: Sequence[EditorRow]) -> str:
    def row(e: EditorRow) -> list[str]:
        values: Mapping[str, float] = e.values
        return [
            e.dataset, str(e.number), e.settings, number(e.precise, 3), number(e.purity, 3),
            *(number(values[n], 3) for n in CANDIDATES),
        ]  # fmt: skip

    heads = ["domain", "editor", "what it does wrong", "known precision", "purity"]
    return table([*heads, *(t for t, _ in CANDIDATES.values())], [row(e) for e in editors], 3)
