"""Methods at equal effect: standings with rank intervals, pairs, and what the order rests on."""

from __future__ import annotations

from casl_bench.metrics.scorer_trial import leakage_share
from casl_bench.records.comparison import Comparison, Standing
from casl_bench.records.record import LevelResult, RunRecord
from casl_bench.reports.grouping import Group, section, with_interval
from casl_bench.reports.markdown import DASH, Footnotes, escape, fold, measured, number, table

_ABOUT = (
    "Every method at the strengths at which validation images show {effect}; applied to test "
    "images. **EPR+**: target change as asked over the mean change of the other attributes, each "
    "in σ, divided by what random directions get at the same effect (1 is chance, negative the "
    "wrong way); mean over {concepts} concepts (n = {images} test images) of its signed logarithm, "
    "where a concept in which the effect is not reached counts as 0. First interval: other images "
    "and other concepts like these; second: these very concepts. Ranks are those that paired tests "
    "with Holm's correction leave open; methods that share a letter are not told apart. Scorer's "
    "own: the part of the collateral that the perfect edit seems to have as well at this effect, "
    "mean over the concepts in which both reach it."
)


_TOO_NARROW = (
    "Where concepts do not reach the effect, the first interval is too narrow: with a fifth of "
    "them not reached it covered 85 to 93 % in simulations, not 95 %, and differences of methods "
    "likewise (`python tests/property/test_comparison_coverage.py 2000`)."
)


def comparison_section(group: Group, title: str) -> str:
    """The standings; empty where nothing was compared."""
    records = [r for r in group.of_kind("comparison") if r.comparison is not None]
    if not records or records[0].comparison is None:
        return ""
    found = records[0].comparison
    notes, rows = Footnotes(), []
    for standing in found.standings:
        rows.append(_row(standing, group, found.level, notes))
    headings = ["rank", "method", "group", "supervision", "EPR+ ↑", "EPR+, these concepts",
                "reached", "wrong way", "scorer's own", "between fits (sd of log)"]  # fmt: skip
    images = found.standings[0].epr_plus.n if found.standings else 0
    about = _ABOUT.format(
        effect=_effect(found.level), concepts=len(found.concepts), images=f"{images:,}"
    )
    parts = [about, notes.under(table(headings, rows, text_columns=4)), *_sentences(found)]
    if len(found.pairs) > 0:
        parts.append(fold("every two methods", _pairs(found)))
    return section(title, *parts)


def _row(standing: Standing, group: Group, level: str, notes: Footnotes) -> list[str]:
    rank = str(standing.rank_low)
    if standing.rank_high != standing.rank_low:
        rank += f"–{standing.rank_high}"
    here = standing.epr_plus_here
    interval = DASH
    if here.low is not None and here.high is not None:
        interval = f"[{number(here.low)}, {number(here.high)}]"
    return [
        rank,
        escape(standing.method),
        standing.group,
        group.supervision((False, standing.method, "")),
        measured(standing.epr_plus, notes),
        interval,
        f"{standing.reached}/{standing.cells}",
        str(standing.wrong_way),
        _scorers_own(standing.method, group, level),
        measured(standing.fit_sd, notes) if standing.fit_sd.n > 1 else DASH,
    ]


def _scorers_own(method: str, group: Group, level: str) -> str:
    """Mean share of a method's collateral that is the classifier's leakage; a dash without any."""
    oracle, own = (
        {c: at for c, r in group.done(key).items() if (at := _collateral(r, level)) is not None}
        if key in group.edits
        else {}
        for key in ((True, "oracle", ""), (False, method, ""))
    )
    shares = [
        share
        for concept in own
        if concept in oracle and (share := leakage_share(oracle[concept], own[concept])) is not None
    ]
    return with_interval(shares, 2, (0.0, 1.0)) if shares else DASH


def _collateral(record: RunRecord, name: str) -> float | None:
    for level in record.levels:
        if level.name == name and level.status == "reached":
            return level.measurements["mean_collateral"].value
    return None


def _sentences(found: Comparison) -> list[str]:
    """Under the table: its limits, sensitivity, agreement of scorers, who is left out."""
    lines = []
    if any(s.reached + s.wrong_way < s.cells for s in found.standings):
        lines.append(_TOO_NARROW)
    if found.sensitivity:
        holds = sum(s.holds for s in found.sensitivity)
        variants = sum(s.variants for s in found.sensitivity)
        kinds = ", ".join(f"{s.kind}: {s.holds} of {s.variants}" for s in found.sensitivity)
        broken = [escape(what) for s in found.sensitivity for what in s.broken_by]
        but = f"; not without {', '.join(broken)}" if broken else ""
        first = escape(found.standings[0].method)
        lines.append(
            f"Sensitivity: {first} stays first in {holds} of {variants} variants that leave one "
            f"thing out ({kinds}{but})."
        )
    for agreement in found.agreements:
        tau = DASH if agreement.tau is None else number(agreement.tau)
        order = " > ".join(map(escape, agreement.order))
        lines.append(
            f"By {escape(agreement.scorer)}: {order}; Kendall's τ with the order above {tau} "
            f"(n = {agreement.n} methods)."
        )
    if found.incomplete:
        names = ", ".join(map(escape, found.incomplete))
        lines.append(f"Not compared, as not every cell is done: {names}.")
    return lines


def _pairs(found: Comparison) -> str:
    notes, rows = Footnotes(), []
    for pair in found.pairs:
        told = pair.p_holm is not None and pair.p_holm < 0.05
        value = pair.difference.value or 0.0
        better = pair.a if value > 0 else pair.b
        rows.append(
            [
                escape(pair.a),
                escape(pair.b),
                measured(pair.difference, notes),
                DASH if pair.p_holm is None else number(pair.p_holm, 3),
                escape(better) if told else "not told apart",
            ]
        )
    headings = ["a", "b", "a − b, mean signed log of EPR+", "p (Holm)", "better"]
    return notes.under(table(headings, rows, text_columns=2))


def level_section(group: Group) -> str:
    """What strength each effect took, concept by concept; empty where nothing was matched."""
    rows = []
    names = list(
        dict.fromkeys(
            level.name for r in group.of_kind("edit") for level in r.levels if level.name != "full"
        )
    )
    if not names:
        return ""
    for concept in group.concepts:
        for key, by_concept in group.edits.items():
            record = by_concept.get(concept)
            if record is None or not record.levels or record.status != "done":
                continue
            at = {level.name: level for level in record.levels}
            cells = [_level(at.get(name)) for name in names]
            _, method, _ = key
            rows.append([escape(concept), escape(method), *cells, _monotone(record)])
    headings = ["concept", "method", *(_effect(name) for name in names), "response"]
    body = table(headings, rows, text_columns=2)
    about = (
        "Strength at which validation images show the effect → effect of the test images at it. "
        "Nothing is extrapolated: what the grid of strengths does not reach is not reached, with "
        "the largest effect seen in brackets."
    )
    return section("Strengths at equal effect", about, fold("by concept", body))


def _level(level: LevelResult | None) -> str:
    if level is None:
        return DASH
    unit = " σ" if level.unit == "sd" else ""
    if level.status == "not_reached":
        largest = DASH if level.largest is None else f"{number(level.largest)}{unit}"
        return f"not reached ({largest})"
    name = "signed_target_change" if level.unit == "sd" else "flip_rate"
    found = level.measurements.get(name)
    seen = DASH if found is None or found.value is None else f"{number(found.value)}{unit}"
    way = "wrong way, " if level.status == "wrong_way" else ""
    return f"{way}{level.strength:g} → {seen}"


def _monotone(record: RunRecord) -> str:
    return "**not monotone**" if "non-monotone" in record.flags else "monotone"


def _effect(name: str) -> str:
    """A level's name in words."""
    kind, _, share = name.partition("_")
    if kind == "flip":
        return f"{share} % flipped"
    return f"{share} % of the full effect"
