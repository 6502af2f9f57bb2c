"""Dictionaries ranked by the pair score: paired tests over concepts, ranks left open by noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import t as student

from casl_bench.analysis.significance import holm, rank_intervals
from casl_bench.metrics.dictionaries import HEADLINE
from casl_bench.results.record import Measurement, Pair
from casl_bench.results.sae_record import SaeRecord

Variant = tuple[str, str, int | None, int | None, int | None, bool]
"""(dictionary, site, width, target L0, training vectors, one per range): a row of the table.

All seeds stand together in it, and dictionaries that are trained on a range of timesteps each.
"""


@dataclass(frozen=True)
class SaeStanding:
    """A row's place among those of the same site, width and target L0.

    Attributes:
        score: mean over concepts of the headline.
        low: best rank left open.
        high: worst rank left open.
        letters: rows that share one are not significantly different.
        concepts: how many.
    """

    score: float
    low: int
    high: int
    letters: str
    concepts: int


def variant_of(record: SaeRecord) -> Variant:
    """Which row a record belongs to."""
    i = record.id
    return i.sae, i.site, i.d_sae, i.k, i.vectors, i.trained_on is not None


def concept_scores(
    records: Sequence[SaeRecord], metric: str = HEADLINE
) -> dict[Variant, dict[str, float]]:
    """Row → data set/attribute → value of a metric, mean over ranges of timesteps and seeds."""
    found: dict[Variant, dict[str, list[float]]] = {}
    for record in records:
        row = found.setdefault(variant_of(record), {})
        for measured in record.measurements.values():
            for attribute in record.attributes:
                m = measured.get(f"{metric}/{attribute}")
                if m is not None and m.value is not None:
                    name = f"{record.id.dataset}/{attribute}"
                    row.setdefault(name, []).append(m.value)
    return {v: {c: float(np.mean(values)) for c, values in row.items()} for v, row in found.items()}


def paired(scores: Mapping[str, Mapping[str, float]]) -> tuple[Pair, ...]:
    """Mean difference over the concepts that both have, of every two rows, with Holm's p.

    Source: paired t test (Student 1908), Holm 1979.
    """
    rows = []
    for a, b in combinations(scores, 2):
        shared = sorted(scores[a].keys() & scores[b].keys())
        values = np.array([scores[a][c] - scores[b][c] for c in shared])
        n = len(values)
        mean = float(values.mean()) if n else 0.0
        p: float | None = None
        low = high = None
        if n > 1:
            error = float(values.std(ddof=1)) / n**0.5
            half = error * float(student.ppf(0.975, n - 1))
            low, high = mean - half, mean + half
            if error > 0:
                p = 2 * float(student.sf(abs(mean) / error, n - 1))
            else:
                p = 1.0 if mean == 0 else 0.0
        difference = Measurement(status="ok", value=mean, low=low, high=high, n=n, unit="share")
        rows.append((a, b, difference, p))
    adjusted = holm([p for *_, p in rows])
    return tuple(
        Pair(a=a, b=b, difference=d, p=p, p_holm=q)
        for (a, b, d, p), q in zip(rows, adjusted, strict=True)
    )


def standings(records: Sequence[SaeRecord], metric: str = HEADLINE) -> dict[Variant, SaeStanding]:
    """Ranks within each (site, width, target L0), controls without either beside all of them.

    Only rows of rivals are ranked: a control is a floor or a ceiling.
    """
    rivals = [r for r in records if not r.control]
    scores = concept_scores(rivals, metric)
    found: dict[Variant, SaeStanding] = {}
    for place in dict.fromkeys(v[1:] for v in scores):
        own = {v[0]: row for v, row in scores.items() if v[1:] == place and row}
        means = {name: float(np.mean([*row.values()])) for name, row in own.items()}
        if not own:
            continue
        for rank in rank_intervals(means, paired(own)):
            found[rank.method, *place] = SaeStanding(
                means[rank.method], rank.low, rank.high, rank.letters, len(own[rank.method])
            )
    return found


def cannot_tell_apart(
    records: Sequence[SaeRecord], metric: str, better: str, floors: Sequence[str]
) -> list[tuple[str, str]]:
    """(trained dictionary, floor) of those that a metric does not rank above a floor.

    By the mean over data sets, seeds and ranges of the metric's own number.
    """
    means: dict[str, float] = {}
    trained: set[str] = set()
    values: dict[str, list[float]] = {}
    for record in records:
        if not record.control:
            trained.add(record.id.sae)
        for measured in record.measurements.values():
            m = measured.get(metric)
            if m is not None and m.value is not None:
                values.setdefault(record.id.sae, []).append(m.value)
    means = {name: float(np.mean(v)) for name, v in values.items()}
    sign = 1 if better == "higher" else -1
    return [
        (name, floor)
        for name in sorted(trained & means.keys())
        for floor in floors
        if floor in means and sign * means[name] <= sign * means[floor]
    ]
