"""The study's page, made of its records alone."""

from __future__ import annotations

from collections.abc import Sequence

from casl_bench.reports.markdown import fold, number
from casl_bench.studies.metric_validity.names import RANKING_FIGURE, RECORDS, RESPONSE_FIGURE
from casl_bench.studies.metric_validity.ranking import (
    ALL,
    ATTRIBUTES,
    COLUMNS,
    DAMAGE,
    KNOWN_PRECISION,
    MATCHED,
    NEEDS_KNOWN_FACTORS,
    classifiers,
    ranking,
    verdict,
)
from casl_bench.studies.metric_validity.responses import response, worst
from casl_bench.studies.metric_validity.study_records import StudyRecords
from casl_bench.studies.metric_validity.tables import (
    POOLED,
    correlation,
    families_table,
    interval,
    over_table,
    plain,
    sizes_table,
    trick_sides,
    tricks_folds,
    tricks_table,
    within_table,
)

HEADLINE = "epr_signed"
"""EPR+ is this over a constant of the concept: both rank the edits of a concept alike."""
REQUIRED, REQUIRED_IN = 0.95, "one_other"
GUARDS = ("perceptual_guard", "identity_guard", "pixel_locality")


def render_page(records: StudyRecords) -> str:
    """Markdown; equal records give equal bytes."""
    parts = [
        _opening(records),
        _verdict(records),
        _edits(records),
        _rankings(records),
        _sizes(records),
        _tricks(records),
        _LIMITS,
        _rests_on(records),
    ]
    return "\n\n".join(parts) + "\n"


def _opening(records: StudyRecords) -> str:
    command = records.header.command
    return f"""# Do the metrics rank edits as they deserve?

A metric of edits is a claim: the higher the number, the more precise the edit. On drawn images
the claim can be tried, since the truth of an edit is known there. This page tries all registered
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
{_names(NEEDS_KNOWN_FACTORS)}). A metric counts as worse where the 95 % interval of the difference,
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
    for classifier in classifiers(records):
        one = ranking(records, HEADLINE, classifier, COLUMNS[REQUIRED_IN])
        reached = one.within.value is not None and one.within.value >= REQUIRED
        said.append(
            f"{correlation(one)} by `{classifier}` (n = {one.within.concepts} concepts, "
            f"{'reached' if reached else '**not reached**'})"
        )
    return (
        f"The headline of the tables is EPR+, which is `{HEADLINE}` over what the random direction "
        "gets: a constant of the concept, so both rank the edits of a concept alike. Required of "
        f"it is a rank correlation with the known precision of at least {REQUIRED} where one other "
        f"attribute changes in some of the images: {'; '.join(said)}."
    )


def _edits(records: StudyRecords) -> str:
    header = records.header
    concepts = len({(r.dataset, r.concept) for r in records.edits})
    return f"""## What was edited, and what is known of it

{concepts} concepts of {len(header.datasets)} drawn data sets; of each the first {header.images}
{header.split} images that lack its attribute. The exact edit draws them again with the attribute
turned on, all else equal; the other edits are that one with something gone wrong, more and more of
it. They are scored by the code that scores a method's edits, against a reconstruction that is the
image itself with noise of 50 dB, as good as the benchmark's inversion.

Known of each edit, from the factors that were drawn (no network is asked), each in its own
standard deviations:

> precision = signed change of the target / (absolute change of the target + sum of the absolute
> changes of all other factors), means over images; from 1 (only what was asked) to −1 (only the
> opposite)

Other factors are the other attributes and everything else that is drawn (shape, pose, tones,
place, light). A blend of two pictures changes a factor by its share. Blur, noise and compression
change no factor: there the truth is the damage, and a metric ranks well if it falls as damage
grows.

{families_table(records)}"""


def _rankings(records: StudyRecords) -> str:
    first, *others = classifiers(records)
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
    classifier = classifiers(records)[0]
    return f"""## Rank is not size

A correlation of 1 within a family says that a metric falls as things get worse, not that it falls
enough. Here is how far: each family at its worst level, medians over the same concepts, by
`{classifier}`. Read a column against `one other`, and against its own known precision.

{sizes_table(records, classifier)}

![a few metrics against the truth]({RESPONSE_FIGURE})

_Made by `{records.header.command}`._

{_blind(records, classifier)}"""


def _blind(records: StudyRecords, classifier: str) -> str:
    """Where EPR looks away, in its own numbers."""
    drift = worst(records, HEADLINE, classifier, "identity_drift")
    blur = worst(records, HEADLINE, classifier, "blur")
    names = [m.name for m in records.header.metrics if m.name in GUARDS]
    seen = [
        f"`{name}` {correlation(ranking(records, name, classifier, COLUMNS['identity_drift']))} "
        f"with drift and {correlation(ranking(records, name, classifier, COLUMNS['blur']))} with "
        "blur"
        for name in names
    ]
    return (
        "**Where EPR is all but blind.** Moving everything that makes up the subject by "
        f"{100 * drift.level:g} % of its range leaves a known precision of "
        f"{number(drift.precision)}, and `{HEADLINE}` at {plain(drift.value)}: as much as for "
        f"{_alike(records, classifier, drift.value)}. It counts what the classifier's attributes "
        "show, and the subject is no attribute: it falls only by what drift disturbs in their "
        f"logits. Blur of {blur.level:g} pixels leaves it at {plain(blur.value)}, as much as for "
        f"{_alike(records, classifier, blur.value)}, for the same reason. The guards are there for "
        f"that; their rank correlation with the truth: {'; '.join(seen)}. It is also why "
        f"`{HEADLINE}` orders the edits of all families at equal effect (`{MATCHED}`) no better "
        f"than {_matched(records, HEADLINE, classifier)}; `factor_epr`, which reads the subject as "
        f"well and exists on drawn images alone, has {_matched(records, 'factor_epr', classifier)}."
    )


def _matched(records: StudyRecords, metric: str, classifier: str) -> str:
    return correlation(ranking(records, metric, classifier, COLUMNS[MATCHED]))


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

What known tricks gain, as medians over cases: before → after. On drawn images a case is a concept;
where the classifier is `linear`, it is an attribute of one of several random linear toys (Gaussian
vectors, correlated attributes, logits of different scales), for tricks that need no picture. EPR+
is known there alone: it needs random directions. A dash: undefined in most cases.

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
    _, before, after = trick_sides(records, trick)[0]
    place = _place(records, metric)
    return f"{plain(before.values[place])} → {plain(after.values[place])}"


def _after(records: StudyRecords, trick: str, metric: str, classifier: int = 0) -> str:
    _, _, after = trick_sides(records, trick)[classifier]
    return plain(after.values[_place(records, metric)])


def _place(records: StudyRecords, metric: str) -> int:
    return [m.name for m in records.header.metrics_of_tricks].index(metric)


_LIMITS = """## What this does not show

- The pictures are drawn, the classifiers near perfect on them, and an exact edit exists. On
  photographs a classifier leaks more, and nobody knows the truth.
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
    packages = ", ".join(f"{name} {v}" for name, v in sorted(header.packages.items()))
    return f"""## What it rests on

- study version {header.version}; {header.images} {header.split} images a concept
{data}
- versions of metrics: {versions}
- packages: {packages}"""


def _folds(records: StudyRecords, title: str, others: Sequence[str], columns: Sequence[str]) -> str:
    return "\n".join(fold(f"{title} {c}", within_table(records, c, columns)) for c in others)


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
