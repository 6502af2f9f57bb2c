"""Records → markdown, and nothing but records: the same records give the same bytes.

Records are grouped by what makes them comparable (domain, data set, suite, seed); data sets of one
domain, suite and seed have an overall part first. A missing number is a dash with its reason, and a
mean over concepts is given only where every concept has its number: a mean over fewer is another
quantity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from casl_bench.analysis.significance import ranks_within
from casl_bench.metrics.precise_edits import TOLERANCES
from casl_bench.report.columns import (
    BY_CLASSIFIER,
    BY_CONCEPT,
    BY_DATASET,
    CELLS,
    COSTS,
    FIT_CALLS,
    METHOD,
    PARAMETERS,
    SHARED_COSTS,
    SUPERVISION,
    Column,
    Placed,
    at_classifier,
    at_level,
    edit_columns,
    flag,
    of_row,
    over,
    pair_columns,
    standing_columns,
    table_of,
)
from casl_bench.report.grouping import Group, Number, Part, Row, RowKey, parts_of
from casl_bench.report.markdown import DASH, escape, fold, number, section, table
from casl_bench.report.models import (
    datasets_section,
    off_target_overall_section,
    off_target_section,
    probe_overall_section,
    probe_section,
    reconstruction_section,
    sae_section,
    scorer_section,
)
from casl_bench.results.record import (
    GAP,
    POWER,
    PRECISE,
    Comparison,
    LevelResult,
    RunRecord,
    headline_level,
)


def render_tables(records: Sequence[RunRecord]) -> str:
    """The markdown of any records, one part per domain, suite and seed."""
    texts = []
    for part in parts_of(records):
        texts += [overall_text(part), *map(group_text, part.groups)]
    return "\n\n".join(filter(None, texts)) + "\n"


def group_text(group: Group) -> str:
    """All tables of one data set; of a run for trying out, what was done and what failed."""
    if group.is_trial:
        parts = [group_title(group), trial_section(group), failure_section(group)]
        return "\n\n".join(filter(None, parts))
    parts = [
        group_title(group),
        comparison_section(group),
        equal_effect_section(group),
        edit_section(group),
        off_target_section(group),
        classifier_section(group),
        concept_section(group),
        level_section(group),
        reconstruction_section(group),
        probe_section(group),
        sae_section(group),
        scorer_section(group),
        cost_section(group),
        failure_section(group),
    ]
    return "\n\n".join(filter(None, parts))


def overall_text(part: Part) -> str:
    """Means over all concepts of all data sets; empty where there is but one data set."""
    title = overall_title(part.groups)
    if part.repeated:
        several = len({g.first.dataset for g in part.groups}) > 1
        revisions = ", ".join(part.repeated)
        return f"{title}\n\nNo means: several revisions of {revisions}." if several else ""
    group = part.overall
    if group is None:
        return ""
    if group.is_trial:
        return f"{title}\n\n{trial_section(group)}"
    names = [g.first.dataset for g in part.groups]
    parts = [
        title,
        comparison_section(group),
        equal_effect_section(group),
        edit_section(group),
        off_target_overall_section(group),
        datasets_section("Reconstruction (no edit), overall", "reconstruction", group, names),
        probe_overall_section(group),
        datasets_section("SAE reconstruction of h, overall", "sae", group, names, prefix="sae."),
        cost_section(group),
    ]
    return "\n\n".join(filter(None, parts))


# Titles: what was measured, and whether it may be compared.

_RENDERED = "Rendered images: a stand-in with known truth, not photographs."
_ZERO_SHOT = "Attributes are judged zero-shot: without labels of {where} they are what a CLIP sees."
_NOT_CARRIED = (
    "Not carried by h, so no concept for any method: {what}. No edit may move it all the same."
)
_ZERO_SHOT_SCORER = "zero_shot:"
"""Beginning of the name of a scorer that was trained on no labels."""


def group_title(group: Group) -> str:
    """Of one data set: domain, suite, seed, and what all its records must share."""
    lines = [f"## {escape(group.first.dataset)} {_settings(group.first)}"]
    names = {"scorers": "Scorers", "attributes": "Attributes", "backbones": "Backbone"}
    for what, known in group.differing().items():
        if len(known) > 1:
            lines.append(f"**Not comparable: records differ in {what}: {' / '.join(known)}.**")
        elif known and known[0]:
            lines.append(f"{names[what]}: {known[0]}.")
    return "\n\n".join(lines + _about_images([group]))


def overall_title(groups: Sequence[Group]) -> str:
    """Of several data sets of one domain, suite and seed."""
    lines = [f"## Overall: {len(groups)} data sets {_settings(groups[0].first)}"]
    counts = {g.first.dataset: len(g.concepts) for g in groups}
    known = ", ".join(f"{escape(d)} ({_count(n)})" for d, n in counts.items())
    lines.append(f"Data sets: {known}. The scorers of each are listed above its own tables.")
    mixed = [escape(g.first.dataset) for g in groups if g.mixed]
    if mixed:
        lines.append(f"**Not comparable: records of {', '.join(mixed)} differ among themselves.**")
    return "\n\n".join(lines + _about_images(groups))


def _about_images(groups: Sequence[Group]) -> list[str]:
    """What must be known of the images before any number is read."""
    rendered = [_RENDERED] if groups[0].first.domain_kind == "synth" else []
    zero_shot = zero_shot_sentence(groups)
    several = len(groups) > 1
    left_out = [
        f"{escape(g.first.dataset)}: {attribute}" if several else attribute
        for g in groups
        for attribute in g.not_carried
    ]
    lines = rendered + ([f"**{escape(zero_shot)}**"] if zero_shot else [])
    return lines + ([_NOT_CARRIED.format(what=", ".join(left_out))] if left_out else [])


def zero_shot_sentence(groups: Sequence[Group]) -> str:
    """Which data sets a CLIP judges for want of labels; empty where none is."""
    unlabelled = [
        g.first.dataset
        for g in groups
        if any(n.startswith(_ZERO_SHOT_SCORER) for r in g.records for n in r.scorers)
    ]
    return _ZERO_SHOT.format(where=", ".join(unlabelled)) if unlabelled else ""


def _settings(record: RunRecord) -> str:
    suite = record.suite
    return (
        f"({escape(record.domain_title)}, suite {escape(suite.name)} v{suite.version}, "
        f"seed {record.seed})"
    )


def _count(concepts: int) -> str:
    return f"{concepts} concept{'' if concepts == 1 else 's'}" if concepts else "no edit yet"


def _over(group: Group) -> str:
    """Over which concepts means are."""
    if not group.across:
        return f"concepts ({len(group.concepts)})"
    return f"{len(group.concepts)} concepts of {len(group.datasets)} data sets"


# Methods at equal effect: standings with rank intervals, pairs, and what the order rests on.

_PRECISE = (
    "**Precise edits**: share of test images in which every classifier sees the target flip as "
    "asked and nothing else goes further than a tolerance on the way to another image: no other "
    "attribute, known factor, identity or background; mean over tolerances {low} to {high} and "
    "over {concepts} concepts (n = {images} test images), each method at the strength that is best "
    "on validation images. First interval: other images and other concepts like these; second: "
    "these very concepts. Ranks are those that paired tests with Holm's correction leave open; "
    "methods that share a letter are not significantly different. P(first): share of resamples of "
    "concepts and images. EPR+ beside it is at {effect}; reached: concepts in which the method had "
    "that effect."
)
_EQUAL_EFFECT = (
    "Every method is applied to test images at the strengths at which validation images show "
    "{effect}. **EPR+**: target change as asked over the mean change of the other attributes, each "
    "in σ, divided by what random directions get at the same effect (1 is chance, negative the "
    "wrong way); mean over {concepts} concepts (n = {images} test images) of its signed logarithm, "
    "where a concept in which the effect is not reached counts as 0. First interval: other images "
    "and other concepts like these; second: these very concepts. Ranks are those that paired tests "
    "with Holm's correction leave open; methods that share a letter are not significantly "
    "different. Scorer's own: the part of the collateral that the perfect edit seems to have as "
    "well at this effect, mean over the concepts in which both reach it."
)
_TOO_NARROW = (
    "Where concepts do not reach the effect, the first interval is too narrow: with a fifth of "
    "them not reached it covered 85 to 93 % in simulations, not 95 %, and differences of methods "
    "likewise (`python tests/property/test_comparison_coverage.py 2000`)."
)


def comparison_section(group: Group, title: str = "") -> str:
    """The standings, under a title of their own where none is given; empty without any."""
    found = group.comparison
    if found is None:
        return ""
    plain = "At equal effect" if found.headline is None else "Methods compared"
    title = title or plain + (", overall" if group.across else "")
    images = found.standings[0].epr_plus.n if found.standings else 0
    about = (_EQUAL_EFFECT if found.headline is None else _PRECISE).format(
        effect=escape(effect_in_words(found.level)),
        concepts=len(found.concepts),
        images=f"{images:,}",
        low=TOLERANCES[0],
        high=TOLERANCES[-1],
    )
    placed = [Placed(Row(group, RowKey(False, s.method)), s) for s in found.standings]
    pairs = ""
    if found.pairs:
        pairs = fold("every two methods", table_of(pair_columns(found), found.pairs))
    table = table_of(standing_columns(found), placed)
    return section(title, about, table, _class_ranks(group, found), *_sentences(found), pairs)


def _class_ranks(group: Group, found: Comparison) -> str:
    """Ranks among methods of the same supervision; empty where all are of one."""
    classes = {s.method: Row(group, RowKey(False, s.method)).supervision for s in found.standings}
    own = ranks_within(found, classes)
    if len(own) < 2:
        return ""
    placed = [Placed(Row(group, RowKey(False, s.method)), s) for part in own.values() for s in part]
    wanted = ("rank", "method", "significance_letters", "supervision")
    columns = [c for c in standing_columns(found) if c.name in wanted]
    return fold("ranks within supervision classes", table_of(columns, placed))


def _sentences(found: Comparison) -> list[str]:
    """Under the table: its limits, sensitivity, agreement of scorers, who is left out."""
    lines = []
    unreached = any(s.reached + s.wrong_way < s.cells for s in found.standings)
    if unreached and found.headline is None:
        lines.append(_TOO_NARROW)
    if found.concepts_needed is not None:
        lines.append(
            f"Power: some {found.concepts_needed} concepts like these are needed to tell two "
            f"methods apart that differ by {GAP:.0%} of the best one's share (probability "
            f"{POWER:.0%}); here are {len(found.concepts)}."
        )
    if found.sensitivity and found.standings:
        lines.append(_sensitivity(found))
    for agreement in found.agreements:
        tau = DASH if agreement.tau is None else number(agreement.tau)
        order = " > ".join(map(escape, agreement.order))
        lines.append(
            f"By {escape(agreement.scorer)}: {order}; Kendall's τ with the order above {tau} "
            f"(n = {agreement.n} methods)."
        )
    if found.incomplete:
        names = ", ".join(map(escape, found.incomplete))
        lines.append(f"Not compared, because some of their cells are missing: {names}.")
    return lines


def _sensitivity(found: Comparison) -> str:
    holds = sum(s.holds for s in found.sensitivity)
    variants = sum(s.variants for s in found.sensitivity)
    kinds = ", ".join(f"{escape(s.kind)} {s.holds} of {s.variants}" for s in found.sensitivity)
    broken = [escape(what) for s in found.sensitivity for what in s.broken_by]
    exceptions = ""
    if broken:
        verb = "exception drops" if len(broken) == 1 else "exceptions drop"
        exceptions = f"; the {verb} {', '.join(broken)}"
    first = escape(found.standings[0].method)
    return (
        f"Sensitivity: {first} ranks first in {holds} of {variants} leave-one-out variants "
        f"({kinds}){exceptions}."
    )


def effect_in_words(name: str) -> str:
    """A level's name, such as "effect_50"."""
    if name == PRECISE:
        return "most precise edits"
    kind, _, share = name.partition("_")
    return f"{share} % flipped" if kind == "flip" else f"{share} % of the full effect"


# Edits by method, by classifier, by concept, and the strengths that they took.

TRIAL = "For trying out: so small a run measures nothing, so no number is shown."


def trial_section(group: Group) -> str:
    """Of a run for trying out: which cells are done."""
    return section("What ran", TRIAL, trial_table(group))


def trial_table(group: Group) -> str:
    """One row per method: how many cells are done."""
    return table_of([METHOD, SUPERVISION, CELLS], group.rows)


def edit_section(group: Group) -> str:
    """One row per method: means over concepts."""
    if not group.edits:
        return ""
    columns = [METHOD, SUPERVISION]
    for column in edit_columns(group.of_kind("edit")):
        columns.append(over(column))
        if column is BY_DATASET and group.across:
            columns += [over(column, dataset=dataset) for dataset in group.datasets]
    columns += [over(PARAMETERS), over(FIT_CALLS), CELLS]
    weight = ", each concept with the same weight," if group.across else ""
    return section(
        "Edits, overall" if group.across else "Edits",
        f"Means over {_over(group)}{weight} at the strength chosen on validation images; "
        "controls below. In brackets: 95 % intervals, t over concepts. "
        "U-Net calls are those of one concept's fit, in images.",
        table_of(columns, group.rows),
    )


def classifier_section(group: Group) -> str:
    """By every classifier: an order that the others do not share is the scorer's doing."""
    names = {n for r in group.of_kind("edit") for n in r.measurements}
    others = sorted({n.split("@", 1)[1] for n in names if "@" in n})
    if not others:
        return ""
    columns = [METHOD]
    for column in edit_columns(group.of_kind("edit"), BY_CLASSIFIER):
        if column in BY_CLASSIFIER:
            columns += [over(column), *(over(at_classifier(column, other)) for other in others)]
    return section(
        "Edits, by classifier",
        "The first column of each measurement is the primary classifier's.",
        table_of(columns, group.rows),
    )


@dataclass(frozen=True)
class _Cell:
    """One row of the table by concept."""

    concept: str
    key: RowKey
    record: RunRecord


def concept_section(group: Group) -> str:
    """One row per concept and method, with intervals."""
    if not group.edits:
        return ""
    metrics = edit_columns(group.of_kind("edit"), BY_CONCEPT)
    cells = [
        _Cell(concept, key, record)
        for concept in group.concepts
        for key in group.edits
        if (record := group.done(key).get(concept)) is not None
    ]

    def of(metric: Column[RunRecord]) -> Column[_Cell]:
        return Column(
            metric.name, metric.label, lambda cell: metric.of(cell.record), metric.digits,
            metric.better,
        )  # fmt: skip

    def images(cell: _Cell) -> str:
        """Images were scored, also where some metrics have no number of them."""
        names = {metric.name for metric in metrics}
        counts = [m.n for name, m in cell.record.measurements.items() if name in names]
        return str(max(counts)) if counts else ""

    columns: list[Column[_Cell]] = [
        Column("concept", "concept", lambda cell: cell.concept, text=True),
        Column("method", "method", lambda cell: Row(group, cell.key).name, text=True),
        Column("strength", "strength", lambda cell: strength_of(cell.record)),
        Column("n", "n", images),
        *map(of, metrics),
    ]
    if any(cell.record.flags for cell in cells):
        columns.append(
            Column("flags", "flags", lambda cell: ", ".join(map(flag, cell.record.flags)))
        )
    return section(
        "Edits, by concept",
        "In brackets: 95 % intervals, images resampled.",
        table_of(columns, cells),
    )


def strength_of(record: RunRecord) -> str:
    """Its chosen strength, empty where none was chosen."""
    return "" if record.strength is None else f"{record.strength:g}"


_AT_LEVELS = (
    "At the strength that validation images need for it. A concept in which it is not reached "
    "counts as 0 in EPR+ and precision, and leaves no mean of EPR raw. Precision is T / (|T| + N) "
    "of the target's change T and the others' mean change N, in σ."
)


def equal_effect_section(group: Group) -> str:
    """EPR raw, EPR+ and precision at the effect of comparisons, and at the share of flips."""
    edits = group.of_kind("edit")
    effects = [level.name for r in edits if (level := headline_level(r.levels)) is not None]
    flips = [x.name for r in edits for x in r.levels if x.name.startswith("flip_")]
    columns = [METHOD]
    for name in dict.fromkeys([*effects, *flips]):
        columns += at_level(name, effect_in_words(name))
    if len(columns) == 1:
        return ""
    rows = [r for r in group.rows if r.key.is_first_of_its_kind
            and any(x.levels for x in r.done.values())]  # fmt: skip
    return section("EPR and precision at equal effect", _AT_LEVELS, table_of(columns, rows))


def level_section(group: Group) -> str:
    """The strength that each effect took, concept by concept; empty where nothing was matched."""
    edits = group.of_kind("edit")
    names = list(dict.fromkeys(x.name for r in edits for x in r.levels if x.name != "full"))
    if not names:
        return ""
    rows = []
    for concept in group.concepts:
        for key in group.edits:
            record = group.done(key).get(concept)
            if record is None or not record.levels:
                continue
            at = {level.name: level for level in record.levels}
            response = "**not monotone**" if "non-monotone" in record.flags else "monotone"
            cells = [_level(at[name]) if name in at else DASH for name in names]
            rows.append([escape(concept), escape(key.method), *cells, response])
    effects = [escape(effect_in_words(name)) for name in names]
    headings = ["concept", "method", *effects, "response"]
    about = (
        "Strength at which validation images show the effect → effect of the test images at it. "
        "Nothing is extrapolated: an effect that no strength tried reaches is not reached, or "
        "still rising where the response rose at the last of them, with the largest effect in "
        "brackets."
    )
    return section("Strengths at equal effect", about, fold("by concept", table(headings, rows, 2)))


def _level(level: LevelResult) -> str:
    unit = " σ" if level.unit == "sd" else ""
    if level.strength is None:
        largest = DASH if level.largest is None else f"{number(level.largest)}{unit}"
        return f"{level.status_in_words} ({largest})"
    name = "signed_target_change" if level.unit == "sd" else "flip_rate"
    name = "precise_edits" if level.name == PRECISE else name
    found = Number.of(level.measurements.get(name)).value
    seen = DASH if found is None else f"{number(found)}{unit}"
    way = "wrong way, " if level.status == "wrong_way" else ""
    return f"{way}{level.strength:g} → {seen}"


# Cost, and what failed.

_COST = (
    "Of one concept's fit and of one edit (one image at one strength): means over {over}; "
    "parameters and memory are the largest. A fit that methods share counts in full for each of "
    "them. Peak memory is that of the whole process during the fit, interpreter, libraries and "
    "shared data included; on a GPU, of its tensors."
)
_SET_UP = (
    "Each method pays as if it ran alone. **Set-up** is what it needs before its first concept: "
    "inverting the training images, and the SAE where it uses one; every concept of a data set "
    "bears an equal share of it ({shares}). Not included, as they are the same for all: inverting "
    "the edited image, choosing strengths, scoring."
)


def cost_section(group: Group) -> str:
    """One row per method, with its EPR+; under it the machine that was measured."""
    if not any(group.done(key) for key in group.edits):
        return ""
    standings = {s.method: s for s in group.comparison.standings} if group.comparison else {}
    methods = [Placed(r, standings.get(r.key.method)) for r in group.rows if not r.key.control]
    controls = [row for row in group.rows if row.key.control]
    columns = [of_row(METHOD), of_row(SUPERVISION)]
    if group.comparison is not None:
        ranking = "epr_plus" if group.comparison.headline is None else "precise_edits"
        columns += [c for c in standing_columns(group.comparison) if c.name == ranking]
    columns += map(of_row, COSTS)
    about = _COST.format(over=_over(group))
    if any(SHARED_COSTS[0].of(placed.row) != Number() for placed in methods):
        columns += map(of_row, SHARED_COSTS)
        shares = ", ".join(f"{len(own)} in {escape(d)}" for d, own in group.datasets.items())
        about += " " + _SET_UP.format(shares=shares)
    return section(
        "Cost, overall" if group.across else "Cost",
        about,
        table_of(columns, methods) if methods else "",
        machines(group),
        fold("controls", table_of([METHOD, *COSTS], controls)) if controls else "",
    )


def machines(group: Group) -> str:
    """Where times and memory were measured; a warning where that is more than one machine."""
    found = sorted({_machine(record) for key in group.edits for record in group.done(key).values()})
    if len(found) == 1:
        return f"Times and memory: {found[0]}."
    machines = "; ".join(found)
    return f"**Times and memory are of different machines, not to be compared: {machines}.**"


def _machine(record: RunRecord) -> str:
    p = record.provenance
    threads = "threads not recorded" if p.threads is None else f"threads: {p.threads}"
    kernels = "" if p.kernels == "reference" else f", kernels: {p.kernels}"
    return escape(f"{p.device}, {p.platform}, {threads}{kernels}")


def failure_section(group: Group) -> str:
    """Cells that failed or were skipped, each with the reason."""
    columns: Sequence[Column[RunRecord]] = (
        Column("what", "what", _what, text=True),
        Column("concept", "concept", lambda r: r.concept or "", text=True),
        Column("status", "status", lambda r: r.status, text=True),
        Column("why", "why", _why, text=True),
    )
    failed = [r for r in group.records if r.error is not None]
    return section("Failed or skipped", table_of(columns, failed)) if failed else ""


def _what(r: RunRecord) -> str:
    name = RowKey(r.control, r.method or r.kind, r.beside or "").name
    return f"{name}, probe" if r.method and r.kind == "probe" else name


def _why(r: RunRecord) -> str:
    return f"{r.error.type}: {r.error.message}" if r.error else ""
