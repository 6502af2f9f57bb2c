"""The study's page and figures, made of its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from casl_bench.core.files import hash_bytes
from casl_bench.metrics.bootstrap import Interval
from casl_bench.report.markdown import DASH, fold, number, table
from casl_bench.studies import packages_text, png, read_records, write_page
from casl_bench.studies.metric_validity.edits import FAMILIES
from casl_bench.studies.metric_validity.records import (
    ALL,
    ATTRIBUTES,
    COLUMNS,
    DAMAGE,
    KNOWN_PRECISION,
    MATCHED,
    NEEDS_KNOWN_FACTORS,
    MetricRef,
    Ranking,
    StudyRecords,
    TrickRow,
    exact,
    ranking,
    response,
    verdict,
    worst,
)
from casl_bench.studies.metric_validity.tricks import TRICKS

NAME = "metric_validity"
RECORDS = f"{NAME}.jsonl"
PAGE = f"{NAME}.md"
RANKING_FIGURE = f"{NAME}_ranking.png"
RESPONSE_FIGURE = f"{NAME}_response.png"
MADE_FROM = "made-from"
"""Field of a PNG that holds the hash of the records."""


def read_study(folder: Path) -> StudyRecords:
    """The records in a folder; see `read_records`."""
    hint = "make them, without --render-only"
    return read_records(folder / RECORDS, StudyRecords.from_jsonl, hint)


def write_study(folder: Path, records: StudyRecords) -> Path:
    """Write page and figures; returns the page."""
    figures = {RANKING_FIGURE: ranking_figure(records), RESPONSE_FIGURE: response_figure(records)}
    return write_page(folder / PAGE, render_page(records), figures)


# Tables.

POOLED = (ALL, ATTRIBUTES, MATCHED)
IN_TRICKS = (
    "epr_raw", "epr_std", "epr_signed", "epr_plus", "worst_attribute_epr",
    "off_target_flips_per_flip", "signed_target_change", "flip_rate", "clip_similarity",
    "perceptual_drift", "identity_drift", "pixel_locality", "factor_epr",
)  # fmt: skip
"""Metrics of the short table of tricks; all are in the folds."""


def families_table(records: StudyRecords) -> str:
    """What each family does, and the precisions that it spans."""
    rows = []
    for family in FAMILIES.values():
        known = [r.precision for r in records.edits if r.family == family.name]
        span = f"{number(max(known))} to {number(min(known))}" if known else DASH
        rows.append([f"`{family.name}`", family.what, span])
    return table(["family", "edits", "known precision"], rows, 2)


def within_table(records: StudyRecords, classifier: str, columns: Sequence[str]) -> str:
    """Rank correlations within a concept; the best of the first column stands first."""
    rows = []
    for metric in records.header.metrics:
        found = [ranking(records, metric.name, classifier, COLUMNS[c]) for c in columns]
        rows.append((found[0].within, [metric_name(metric), *map(correlation, found)]))
    rows.sort(key=lambda r: -2.0 if r[0] is None else r[0], reverse=True)
    headers = [f"metric (n = {_concepts(records)} concepts)", *map(_words, columns)]
    return table(headers, [row for _, row in rows])


def over_table(records: StudyRecords) -> str:
    """One correlation over the edits of all concepts."""
    columns = [(column, c) for column in POOLED for c in records.classifiers]
    rows, edits = [], 0
    for metric in records.header.metrics:
        found = [ranking(records, metric.name, c, COLUMNS[column]) for column, c in columns]
        edits = found[0].edits
        cells = [DASH if f.over is None else number(f.over) + _bracket(_defined(f)) for f in found]
        rows.append([metric_name(metric), *cells])
    return table([f"metric (n = {edits} edits)", *(f"{a}, {b}" for a, b in columns)], rows)


def sizes_table(records: StudyRecords, classifier: str) -> str:
    """Each metric at the exact edit and at the worst level of each family."""
    families = [name for name in FAMILIES if FAMILIES[name].with_exact]
    first = records.header.metrics[0].name
    ends = [worst(records, first, classifier, f) for f in families]
    rows = [["known precision", "1.00", *(number(p.precision) for p in ends)]]
    for metric in records.header.metrics:
        start = exact(records, metric.name, classifier)
        points = [start, *(worst(records, metric.name, classifier, f) for f in families)]
        rows.append([metric_name(metric), *(plain(p.value) for p in points)])
    return table(["", "exact edit", *map(_words, families)], rows)


def tricks_table(records: StudyRecords) -> str:
    """Medians before and after each trick, of some metrics."""
    places = {m.name: k for k, m in enumerate(records.header.metrics_of_tricks)}
    shown = {m: places[m] for m in IN_TRICKS if m in places}
    rows = []
    for name, sides in TRICKS.items():
        for classifier, before, after in trick_sides(records, name):
            cells = [_arrow(before.values[k], after.values[k]) for k in shown.values()]
            rows.append([" → ".join(sides), f"`{classifier}`", *cells])
    return table(["trick", "classifier", *(f"`{m}`" for m in shown)], rows, 2)


def tricks_folds(records: StudyRecords) -> str:
    """Each trick with all metrics that are defined for it, and their spread over cases."""
    folds = []
    for name, sides in TRICKS.items():
        for classifier, before, after in trick_sides(records, name):
            rows = [
                [metric_name(m), _range(before, k), _range(after, k)]
                for k, m in enumerate(records.header.metrics_of_tricks)
                if before.values[k] is not None or after.values[k] is not None
            ]
            headers = [f"metric (n = {after.cases} cases)", *sides]
            folds.append(fold(f"{name}, by {classifier}", table(headers, rows)))
    return "\n".join(folds)


def trick_sides(records: StudyRecords, trick: str) -> list[tuple[str, TrickRow, TrickRow]]:
    """(classifier, before, after) of a trick, in the order of the records."""
    rows = {(r.classifier, r.side): r for r in records.tricks if r.trick == trick}
    named = dict.fromkeys(c for c, _ in rows)
    return [(c, rows[c, "before"], rows[c, "after"]) for c in named]


def metric_name(metric: MetricRef) -> str:
    """With the direction that is better."""
    arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
    return f"`{metric.name}`{arrow}" + ("" if metric.registered else " (alternative)")


def correlation(found: Ranking) -> str:
    """The mean within a concept with its interval, and the count where not all are defined."""
    if found.within is None:
        return DASH
    around = f" {interval(found.interval)}" if found.interval else ""
    varies = f"n = {found.varying}" if found.varying < found.concepts else ""
    return f"{number(found.within)}{around}{_bracket(varies, _defined(found))}"


def interval(ends: Interval | None) -> str:
    """[low, high]."""
    return "[–]" if ends is None else f"[{number(ends[0])}, {number(ends[1])}]"


def plain(value: float | None) -> str:
    """About three significant digits."""
    if value is None:
        return DASH
    size = abs(value)
    return number(value, 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3)


def _defined(found: Ranking) -> str:
    return f"{found.defined} of {found.edits}" if found.defined < found.edits else ""


def _bracket(*parts: str) -> str:
    text = "; ".join(part for part in parts if part)
    return f" ({text})" if text else ""


def _arrow(before: float | None, after: float | None) -> str:
    return DASH if before is None and after is None else f"{plain(before)} → {plain(after)}"


def _range(side: TrickRow, place: int) -> str:
    if side.values[place] is None:
        return DASH
    value, low, high = (plain(v[place]) for v in (side.values, side.low, side.high))
    return f"{value} [{low}, {high}]"


def _concepts(records: StudyRecords) -> int:
    return len({(r.dataset, r.concept) for r in records.edits})


# The page.

HEADLINE = "epr_signed"
"""EPR+ is this over a constant of the concept: both rank the edits of a concept alike."""
REQUIRED, REQUIRED_IN = 0.95, "one_other"
_NOT_ON_REAL_IMAGES = ", ".join(f"`{m}`" for m in NEEDS_KNOWN_FACTORS)
GUARDS = ("perceptual_drift", "identity_drift", "pixel_locality")


def render_page(records: StudyRecords) -> str:
    """Markdown; equal records give equal bytes."""
    parts = (_opening, _verdict, _edits, _rankings, _sizes, _tricks, lambda _: _LIMITS, _rests_on)
    return "\n\n".join(part(records) for part in parts) + "\n"


def _opening(records: StudyRecords) -> str:
    command = records.header.command
    return f"""# Do the metrics rank edits as they deserve?

A metric of edits is a claim: the higher the number, the more precise the edit. On rendered images
the claim can be tested, since the truth of an edit is known there. This page tests all registered
metrics and a few plain alternatives, and then plays known tricks on them. No editing method and
no diffusion model takes part.

```bash
{command}                # some ten minutes on one core
{command} --render-only  # this page and its figures, of the records beside it
```

Everything below is made by this command of [{RECORDS}]({RECORDS})."""


def _verdict(records: StudyRecords) -> str:
    return f"""## Verdict

{_favoured(records, ALL, "over all families")}

{_favoured(records, ATTRIBUTES, "without identity drift, so of attributes alone")}

The rule, fixed before any ranking over several families was seen: the rank correlation with the
known precision within a concept, mean over concepts, by the classifier by which it is lower; among
metrics that have an opinion on at least 95 % of these edits and exist on real images, too (not
{_NOT_ON_REAL_IMAGES}). A metric counts as worse where the 95 % interval of the difference,
over concepts, is above 0. The first line decides; the second, added afterwards, shows how much
hangs on the choice of families.

{_headline(records)}"""


def _favoured(records: StudyRecords, column: str, what: str) -> str:
    found = verdict(records, column)
    level = ", ".join(f"`{m}` (difference {interval(i)})" for m, i in found.level.items())
    after = f"Not shown to be worse: {level}." if level else "All others are shown to be worse."
    own = found.scores.get(HEADLINE)
    if found.metric != HEADLINE and own is not None:
        after += f" `{HEADLINE}` has {number(own)}."
    return f"**Favoured {what}: `{found.metric}`**, {number(found.scores[found.metric])}. {after}"


def _headline(records: StudyRecords) -> str:
    said = []
    for classifier in records.classifiers:
        one = ranking(records, HEADLINE, classifier, COLUMNS[REQUIRED_IN])
        reached = one.within is not None and one.within >= REQUIRED
        said.append(
            f"{correlation(one)} by `{classifier}` (n = {one.varying} concepts, "
            f"{'reached' if reached else '**not reached**'})"
        )
    return (
        f"The headline of the tables is EPR+, which is `{HEADLINE}` over that of random "
        "directions: a constant of the concept, so both rank the edits of a concept alike. "
        f"Required of it is a rank correlation with the known precision of at least {REQUIRED} "
        f"where one other attribute changes in some of the images: {'; '.join(said)}."
    )


def _edits(records: StudyRecords) -> str:
    header = records.header
    return f"""## What was edited, and what is known of it

{_concepts(records)} concepts of {len(header.datasets)} rendered data sets; of each the first
{header.images} {header.split} images that lack its attribute. The exact edit renders them again
with the attribute turned on, all else equal; the other edits are that one with something gone
wrong, more and more of it. They are scored by the code that scores a method's edits, against a
reconstruction that is the image itself with noise of 50 dB, as good as the benchmark's inversion.

Known of each edit, from the rendered factors (no network is asked), each in its own
standard deviations:

> precision = signed change of the target / (absolute change of the target + sum of the absolute
> changes of all other factors), means over images; from 1 (only what was asked) to −1 (only the
> opposite)

Other factors are the other attributes and everything else that is rendered (shape, pose, tones,
place, light). A blend of two pictures changes a factor by its share. Blur, noise and compression
change no factor: there the truth is the damage, and a metric ranks well if it falls as damage
grows.

{families_table(records)}"""


def _rankings(records: StudyRecords) -> str:
    first, *others = records.classifiers
    columns = (*POOLED, *KNOWN_PRECISION)
    return f"""## Ranking by the truth

![rank correlations of all metrics]({RANKING_FIGURE})

_Made by `{records.header.command}`._

Spearman's rank correlation within a concept, mean over concepts, with a 95 % bootstrap interval
over concepts (none where all concepts agree). Metrics of which less is better are turned round. In
brackets: in how many concepts it varies and for how many edits it is defined, where not in all. A
dash: undefined, or the same for all edits. `{ALL}`: all families whose precision is known;
`{ATTRIBUTES}`: without identity drift; `{MATCHED}`: the families in which every image's target is
turned on entirely, as at matched effect.

By `{first}`:

{within_table(records, first, columns)}

{_folds(records, "By", others, columns)}

Damage that no factor shows, by `{first}`:

{within_table(records, first, DAMAGE)}

{_folds(records, "Damage, by", others, DAMAGE)}

All concepts together: one correlation over the edits of all concepts, so a metric's level must
mean the same from one concept and data set to another. The headline's division by the random
direction would count here, and is not made.

{over_table(records)}"""


def _sizes(records: StudyRecords) -> str:
    classifier = records.classifiers[0]
    return f"""## Rank is not size

A correlation of 1 within a family says that a metric falls as things get worse, not that it falls
enough. Here is how far: each family at its worst level, medians over the same concepts, by
`{classifier}`. Read a column against `one other`, and against its own known precision.

{sizes_table(records, classifier)}

![a few metrics against the truth]({RESPONSE_FIGURE})

_Made by `{records.header.command}`._

{_unseen(records, classifier)}"""


def _unseen(records: StudyRecords, classifier: str) -> str:
    """What EPR does not see, in its own numbers."""
    drift = worst(records, HEADLINE, classifier, "identity_drift")
    blur = worst(records, HEADLINE, classifier, "blur")
    seen = [
        f"`{m.name}` {_ranked(records, m.name, classifier, 'identity_drift')} with drift and "
        f"{_ranked(records, m.name, classifier, 'blur')} with blur"
        for m in records.header.metrics
        if m.name in GUARDS
    ]
    return (
        "**Where EPR sees next to nothing.** Moving everything that makes up the subject by "
        f"{100 * drift.level:g} % of its range leaves a known precision of "
        f"{number(drift.precision)}, and `{HEADLINE}` at {plain(drift.value)}: as much as for "
        f"{_alike(records, classifier, drift.value)}. It counts what the classifier's attributes "
        "show, and the subject is no attribute: it falls only by what drift disturbs in their "
        f"logits. Blur of {blur.level:g} pixels leaves it at {plain(blur.value)}, as much as for "
        f"{_alike(records, classifier, blur.value)}, for the same reason. The guards are there for "
        f"that; their rank correlation with the truth: {'; '.join(seen)}. It is also why "
        f"`{HEADLINE}` orders the edits of all families at equal effect (`{MATCHED}`) no better "
        f"than {_ranked(records, HEADLINE, classifier, MATCHED)}; `factor_epr`, which reads the "
        "subject as well and exists on rendered images alone, has "
        f"{_ranked(records, 'factor_epr', classifier, MATCHED)}."
    )


def _ranked(records: StudyRecords, metric: str, classifier: str, column: str) -> str:
    return correlation(ranking(records, metric, classifier, COLUMNS[column]))


def _alike(records: StudyRecords, classifier: str, value: float | None) -> str:
    """The level of `one_other` at which the headline is nearest to a value."""
    flips = response(records, HEADLINE, classifier, "one_other")
    nearest = min(flips, key=lambda p: abs((p.value or 0.0) - (value or 0.0)))
    return (
        f"an edit that flips one other attribute in {100 * nearest.level:g} % of the images (known "
        f"precision {number(nearest.precision)})"
    )


def _tricks(records: StudyRecords) -> str:
    return f"""## Tricks

What known tricks gain, as medians over cases: before → after. On rendered images a case is a
concept; where the classifier is `linear`, it is an attribute of one of several random linear toys
(Gaussian vectors, correlated attributes, logits of different scales), for tricks that need no
picture. EPR+ is known there alone: it needs random directions. A dash: undefined in most cases.

{tricks_table(records)}

- **The wrong way.** Unsigned ratios do not see it ({_change(records, "wrong_way", "epr_raw")} for
  `epr_raw`); signed ones do ({_change(records, "wrong_way", HEADLINE)} for `{HEADLINE}`, and
  {_change(records, "half_wrong_way", HEADLINE)} where half of the images go wrong).
- **Strength** over a fixed noise raises every ratio, EPR+ too
  ({_change(records, "strength", "epr_plus")}). No property of the metric mends this: the
  comparison at equal effect does.
- **Scale.** With its target's logit times 8 a random direction has
  {_change(records, "logit_times_8", "epr_raw")} of `epr_raw`; standardised ratios do not move
  ({_change(records, "logit_times_8", "epr_std")}).
- **The list of others.** Leaving one out or adding insensitive ones raises every mean over the
  list, EPR+ too ({_change(records, "dropped", "epr_plus")} and
  {_change(records, "padded", "epr_plus")}); the worst attribute's ratio is immune to padding alone
  ({_change(records, "padded", "worst_attribute_epr")}). The list is part of a metric's identity:
  numbers over two lists are not compared.
- **Editing nothing.** With a little noise `epr_raw` still says
  {_after(records, "jittered_copy", "epr_raw")}; the signed ratio is near 0
  ({_after(records, "jittered_copy", HEADLINE)}).
- **A pixel attack** on the first classifier moves its target by
  {_after(records, "pixel_attack", "signed_target_change")} sd and flips
  {_after(records, "pixel_attack", "flip_rate")} of the images, with `{HEADLINE}` at
  {_after(records, "pixel_attack", HEADLINE)}. The other one sees
  {_after(records, "pixel_attack", "signed_target_change", 1)} sd and
  {_after(records, "pixel_attack", "flip_rate", 1)}, but its ratio is still
  {_after(records, "pixel_attack", HEADLINE, 1)}: what gives the attack away is the missing effect,
  not the ratio. The CLIP that scores is not proof against it either
  ({_after(records, "pixel_attack", "clip_similarity")}).

All metrics of each trick, with 5 % and 95 % quantiles over cases:

{tricks_folds(records)}"""


def _change(records: StudyRecords, trick: str, metric: str) -> str:
    """`before → after` by the first classifier."""
    return " → ".join(_at_sides(records, trick, metric, 0))


def _after(records: StudyRecords, trick: str, metric: str, classifier: int = 0) -> str:
    return _at_sides(records, trick, metric, classifier)[1]


def _at_sides(records: StudyRecords, trick: str, metric: str, classifier: int) -> list[str]:
    place = [m.name for m in records.header.metrics_of_tricks].index(metric)
    return [plain(side.values[place]) for side in trick_sides(records, trick)[classifier][1:]]


_LIMITS = """## What this does not show

- The images are rendered, the classifiers near perfect on them, and an exact edit exists. On
  photographs a classifier leaks more, and the truth is unknown.
- Precision adds factors up, one standard deviation of any as much as of any other. Within a family
  that changes one thing, other weights would give the same order; over several families they would
  not. Drift moves many factors at once, so it weighs much.
- Few levels make coarse correlations: six edits have 0.94 when two neighbours change places.
- The families are ours. A metric that ranks these well may still be gamed by something that is not
  here."""


def _rests_on(records: StudyRecords) -> str:
    header = records.header
    data = "\n".join(
        f"- `{name}` revision `{revision}`; scorers "
        + ", ".join(f"`{s}` {h[:12]}" for s, h in sorted(header.scorers[name].items()))
        for name, revision in header.datasets.items()
    )
    versions = ", ".join(f"`{m.name}` {m.version}" for m in header.metrics_of_tricks)
    return f"""## What it rests on

- study version {header.version}; {header.images} {header.split} images per concept
{data}
- versions of metrics: {versions}
- packages: {packages_text(header.packages)}"""


def _folds(records: StudyRecords, title: str, others: Sequence[str], columns: Sequence[str]) -> str:
    return "\n".join(fold(f"{title} {c}", within_table(records, c, columns)) for c in others)


# Figures.

PANELS = ("epr_signed", "epr_raw", "clip_similarity", "perceptual_drift", "identity_drift")
"""Metrics of the second figure."""


def ranking_figure(records: StudyRecords) -> bytes:
    """PNG: metrics by families, rank correlation with the truth within a concept."""
    classifier = records.classifiers[0]
    metrics = [m.name for m in records.header.metrics]
    found = [
        [ranking(records, m, classifier, families).within for families in COLUMNS.values()]
        for m in metrics
    ]
    values = np.array(found, dtype=np.float64)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        axes.set_xticks(range(len(COLUMNS)), [_words(c) for c in COLUMNS], rotation=30, ha="right")
        axes.set_yticks(range(len(metrics)), metrics)
        for (i, j), value in np.ndenumerate(values):
            axes.text(
                j, i, f"{value:.2f}" if np.isfinite(value) else "–", ha="center", va="center",
                fontsize=8, color="white" if abs(value) > 0.6 else "black",
            )  # fmt: skip
        axes.set_title(f"rank correlation with what is known, mean over concepts ({classifier})")

    return _png((10, 0.34 * len(metrics) + 1.9), draw, records)


def response_figure(records: StudyRecords) -> bytes:
    """PNG: a few metrics against the known precision, and against damage."""
    names = {m.name for m in records.header.metrics}
    shown = [name for name in PANELS if name in names]

    def draw(figure: Any) -> None:
        grid = figure.subplots(2, len(shown), squeeze=False)
        for column, metric in enumerate(shown):
            for axes, families in zip(grid[:, column], (KNOWN_PRECISION, DAMAGE), strict=True):
                _panel(axes, records, metric, families)
            grid[0, column].set_title(metric, fontsize=10)
        for row, what in zip(grid, ("known precision", "damage / largest"), strict=True):
            row[0].legend(fontsize=7)
            row[0].set_ylabel("median over concepts", fontsize=8)
            for axes in row:
                axes.set_xlabel(what, fontsize=8)

    return _png((2.7 * len(shown), 6.4), draw, records)


def _panel(axes: Any, records: StudyRecords, metric: str, families: Sequence[str]) -> None:
    for family in families:
        points = response(records, metric, records.classifiers[0], family)
        largest = max(p.level for p in points)
        damage = FAMILIES[family].truth == "damage"
        known = sorted(
            (p.level / largest if damage else p.precision, p.value)
            for p in points
            if p.value is not None
        )
        # One precision at several strengths is no curve.
        line = "o" if family == "unmatched_strength" else "o-"
        places, values = [x for x, _ in known], [y for _, y in known]
        axes.plot(places, values, line, markersize=3, linewidth=1, label=_words(family))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _png(size: tuple[float, float], draw: Any, records: StudyRecords) -> bytes:
    made_from = hash_bytes(records.to_jsonl().encode())
    return png(size, draw, records.header.command, colours=160, info=[(MADE_FROM, made_from)])


def _words(name: str) -> str:
    return name.replace("_", " ")
