"""Records → markdown, and nothing but records: the same records give the same bytes.

Records are grouped by what makes them comparable (world, dataset, suite, seed); data sets of one
world, suite and seed have a part in common at the top. A number that is not there is a dash with
its reason, and a mean over concepts is given only where every concept has its number: a mean over
fewer is another quantity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from casl_bench.metrics.scorer_validation import leakage_share
from casl_bench.report.columns import classifier_section, concept_section, edit_section
from casl_bench.report.cost_tables import cost_section, cost_sharing_section
from casl_bench.report.grouping import Group, section, with_interval
from casl_bench.report.markdown import DASH, Footnotes, escape, fold, measured, number, table
from casl_bench.report.model_tables import (
    datasets_section,
    drift_overall_section,
    drift_section,
    probe_overall_section,
    probe_section,
    reconstruction_section,
    sae_section,
    scorer_section,
)
from casl_bench.results.record import ALL, Comparison, LevelResult, RunRecord, Standing

# Methods at equal effect: standings with rank intervals, pairs, and what the order rests on.


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


# What stands above tables: what was measured, and whether it may be compared.


_DRAWN = "Drawn images: a stand-in with known truth, not photographs."
_ZERO_SHOT = (
    "**Attributes are judged zero-shot**: nobody has labelled {where}; they are what a CLIP sees."
)
_ZERO_SHOT_SCORER = "zero_shot:"
"""How the name of a scorer begins that no label has trained."""


def group_title(group: Group) -> str:
    """Of one data set: world, suite, seed, and what all its records must share."""
    first = group.records[0]
    lines = [f"## {escape(first.dataset)} {_settings(first)}"]
    for what, known in _shared(group):
        if len(known) > 1:
            lines.append(f"**Not comparable: records differ in {what.lower()}: "
                         f"{' / '.join(known)}.**")  # fmt: skip
        elif known:
            lines.append(f"{what}: {known[0]}.")
    lines += _about_images([group])
    return "\n\n".join(lines)


def overall_title(groups: Sequence[Group]) -> str:
    """Of several data sets of one world, suite and seed."""
    first = groups[0].records[0]
    lines = [f"## Overall: {len(groups)} data sets {_settings(first)}"]
    counts = {g.records[0].dataset: len(g.concepts) for g in groups}
    shown = [f"{escape(d)} ({_count(n)})" for d, n in counts.items()]
    lines.append(f"Data sets: {', '.join(shown)}. What scored each stands above its own tables.")
    mixed = [escape(g.records[0].dataset) for g in groups if any(len(k) > 1 for _, k in _shared(g))]
    if mixed:
        lines.append(f"**Not comparable: records of {', '.join(mixed)} differ among themselves.**")
    lines += _about_images(groups)
    return "\n\n".join(lines)


def _about_images(groups: Sequence[Group]) -> list[str]:
    """What must be known of the images before any number is read."""
    unlabelled = [
        escape(g.records[0].dataset)
        for g in groups
        if any(n.startswith(_ZERO_SHOT_SCORER) for r in g.records for n in r.scorers)
    ]
    drawn = [_DRAWN] if groups[0].records[0].world == "synth" else []
    return drawn + ([_ZERO_SHOT.format(where=", ".join(unlabelled))] if unlabelled else [])


def _settings(record: RunRecord) -> str:
    suite = record.suite
    quick = ", **quick: for trying out, its numbers mean nothing**" if suite.quick else ""
    return (
        f"(world {escape(record.world)}, suite {escape(suite.name)} v{suite.version}, "
        f"seed {record.seed}){quick}"
    )


def _shared(group: Group) -> list[tuple[str, list[str]]]:
    """What the records of one data set must share → the values that they have."""
    done = [r for r in group.of_kind("edit") if r.status == "done"]
    found = {
        "Scorers": {_scorers(r) for r in done},
        "Attributes": {", ".join(map(escape, r.attributes)) for r in done},
        "Backbone": {(r.backbone or "")[:8] for r in done},
    }
    return [(what, sorted(values - {""})) for what, values in found.items()]


def _scorers(record: RunRecord) -> str:
    return ", ".join(f"{escape(name)} ({h[:8]})" for name, h in sorted(record.scorers.items()))


def _count(concepts: int) -> str:
    return f"{concepts} concept{'' if concepts == 1 else 's'}" if concepts else "no edit yet"


# One part for several data sets of one world, suite and seed.


def overall_text(groups: Sequence[Group], across: Sequence[RunRecord] = ()) -> str:
    """Means over all concepts of all data sets; nothing where there is but one data set.

    Args:
        groups: comparable within themselves, of one world, suite and seed.
        across: records that compare methods over several data sets; those of these groups' world,
            suite and seed count.
    """
    names = [g.records[0].dataset for g in groups]
    if len(set(names)) < 2:
        return ""
    title = overall_title(groups)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        return f"{title}\n\nNo means: in several revisions stand here: {', '.join(twice)}."
    first = groups[0].records[0]
    same = (first.world, first.suite, first.seed)
    own = [r for r in across if (r.world, r.suite, r.seed) == same]
    group = Group([*(r for g in groups for r in g.records if r.kind != "comparison"), *own],
                  across=True)  # fmt: skip
    sections = [
        comparison_section(group, "At equal effect, overall"),
        edit_section(group),
        drift_overall_section(group),
        datasets_section("Reconstruction (no edit), overall", "reconstruction", group, names),
        probe_overall_section(group),
        datasets_section("SAE reconstruction of h, overall", "sae", group, names, prefix="sae."),
        cost_section(group),
        cost_sharing_section(group),
    ]
    return "\n\n".join([title, *(text for text in sections if text)])


def render_tables(records: Sequence[RunRecord]) -> str:
    """The markdown of any records, one part a (world, dataset, suite, seed).

    Where several data sets share world, suite and seed, a part over all of them comes first.
    """
    found: dict[tuple[str, ...], list[RunRecord]] = {}
    across: list[RunRecord] = []
    for r in records:
        suite = (r.suite.name, str(r.suite.version), "quick" if r.suite.quick else "")
        key = (r.world, r.dataset, r.dataset_revision, *suite, f"{r.seed:020d}")
        if r.kind == "comparison" and r.dataset == ALL:
            across.append(r)
        else:
            found.setdefault(key, []).append(r)
    groups = {key: Group(found[key]) for key in sorted(found)}
    alike: dict[tuple[str, ...], list[Group]] = {}
    for (world, _, _, *others), group in groups.items():
        alike.setdefault((world, *others), []).append(group)
    parts = [overall_text(alike[key], across) for key in sorted(alike)]
    parts += [_group_text(group) for group in groups.values()]
    return "\n\n".join(text for text in parts if text) + "\n"


def _group_text(group: Group) -> str:
    sections: list[Callable[[Group], str]] = [
        group_title,
        lambda g: comparison_section(g, "At equal effect"),
        edit_section,
        drift_section,
        classifier_section,
        concept_section,
        level_section,
        lambda g: reconstruction_section(g.of_kind("reconstruction")),
        lambda g: probe_section(g.of_kind("probe")),
        lambda g: sae_section(g.of_kind("sae")),
        lambda g: scorer_section(g.of_kind("scorer")),
        cost_section,
        cost_sharing_section,
        _failure_section,
    ]
    return "\n\n".join(text for part in sections if (text := part(group)))


def _what(r: RunRecord) -> str:
    beside = f" beside {r.beside}" if r.beside else ""
    return f"{r.method or r.kind}{beside}{', probe' if r.method and r.kind == 'probe' else ''}"


def _failure_section(group: Group) -> str:
    failed = [r for r in group.records if r.error is not None]
    if not failed:
        return ""
    rows = [
        [
            escape(_what(r)),
            escape(r.concept or ""),
            r.status,
            escape(f"{r.error.type}: {r.error.message}") if r.error else "",
        ]
        for r in failed
    ]
    return section(
        "Failed or skipped", table(["what", "concept", "status", "why"], rows, text_columns=4)
    )
