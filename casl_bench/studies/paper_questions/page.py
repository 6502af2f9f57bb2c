"""The study's page, made of a run's records and the study's rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from casl_bench.report.markdown import DASH, escape, number, table
from casl_bench.results.record import headline_level
from casl_bench.runs.strength import DIP
from casl_bench.studies import packages_text, png, read_records, section, write_page
from casl_bench.studies.paper_questions import answers
from casl_bench.studies.paper_questions.answers import Evidence, Over, from_signed_log, mean_over
from casl_bench.studies.paper_questions.study import FIGURE, MAP, PAGE, ROWS, STEER, LatentRows

UNSUPERVISED, ORACLE = "sae_steer", "oracle"
PROBE_K = 16
"""Of the paper's statement about probes."""


def read_rows(folder: Path) -> LatentRows:
    """The rows in a folder; see `read_records`."""
    return read_records(folder / ROWS, LatentRows.from_jsonl, "make them: give the run folder")


def write_study(folder: Path, evidence: Evidence) -> Path:
    """Write page and figure; returns the page."""
    return write_page(folder / PAGE, render_page(evidence), {FIGURE: draw_figure(evidence)})


def render_page(evidence: Evidence) -> str:
    """Markdown; equal records give equal bytes."""
    parts = (_opening, _claims, _latents_exist, _they_act, _ablation, _against, _crosstalk,
             _rests_on)  # fmt: skip
    return "\n\n".join(part(evidence) for part in parts) + "\n"


def _opening(evidence: Evidence) -> str:
    header = evidence.study.header
    domains = ", ".join(sorted({r.domain_title for r in evidence.records}))
    datasets = ", ".join(evidence.datasets)
    count = len(evidence.variants("ablation", "none"))
    return f"""# The paper's questions, answered here

CASL's paper (arXiv 2601.15441) asks whether concept-aligned latents exist, whether they act, and
how precisely. This page asks the same of our port, on {count} concepts of {datasets} (domain
{domains}, suite {header.suite}, seed {header.seed}). It is another domain than the paper's: where
the two differ, that refutes nothing there, and where they agree, that proves nothing there.

```bash
python benchmark.py --methods all --datasets all --jobs 2 --out RUN
{header.command}
```

Numbers are means over concepts with 95 % intervals for other concepts like these (Student's t,
or resampled concepts for ratios); n is the number of concepts. Effects are shares of what the
perfect edit changes. Rows of this study: [{ROWS}]({ROWS}).

![Dose, ablation and number of latents]({FIGURE})"""


def _claims(evidence: Evidence) -> str:
    """What the paper reports beside what this run finds."""
    top, units = (_probe(evidence, MAP, f"top_{what}.k{PROBE_K}") for what in ("latents", "units"))
    levels = (headline_level(record.levels) for record in evidence.edits(STEER).values())
    strengths = [
        level.strength
        for level in levels
        if level is not None and level.status == "reached" and level.strength is not None
    ]
    spread = (
        f"{min(strengths):.2g} to {max(strengths):.2g} × its gain ({len(strengths)} concepts)"
        if strengths
        else DASH
    )
    one = evidence.variants("size", "top", 1)
    reached = sum(row.reached or False for row in one.values())
    single = (
        f"EPR+ {_epr_plus(evidence, 1).text()}; effect reached in {reached} of {len(one)} concepts"
    )
    compared = answers.comparison(evidence)
    agreement = DASH
    if compared is not None and compared.agreements:
        agreement = "; ".join(
            f"Kendall's τ with {escape(a.scorer)} "
            f"{DASH if a.tau is None else number(a.tau)} (n = {a.n} methods)"
            for a in compared.agreements
        )
    rows = [
        [f"a linear SVM on the top {PROBE_K} latents of a concept", "near perfect",
         f"{top.text()} on pooled latents, {units.text()} on (latent, position) units, "
         f"n = {top.n}"],
        ["CASL-Steer with k = 1", "what its main table shows", single],
        ["strength of CASL-Steer", "16 to 160, chosen by eye for each concept",
         f"{spread}, chosen on validation images at equal effect"],
        ["another attribute classifier", "changes the ranking", agreement],
        ["EPR on dogs and churches", "not given, for want of labels", _epr_elsewhere(evidence)],
    ]  # fmt: skip
    return section(
        "Reported and re-evaluated",
        "Statements of the paper that our sources give, and what this run finds. The paper's EPR "
        "of its methods is not among these sources, so it is not shown.",
        table(["what", "reported", "re-evaluated here"], rows, text_columns=3),
    )


def _epr_elsewhere(evidence: Evidence) -> str:
    parts = []
    for dataset in evidence.datasets:
        edits = evidence.of([dataset]).edits(STEER).values()
        found = mean_over(answers.value_of(record.measurements, "epr_raw") for record in edits)
        parts.append(f"{escape(dataset)} {found.text()} (n = {found.n})")
    return f"the paper's EPR of {STEER}, at the strengths of equal effect: " + ", ".join(parts)


def _latents_exist(evidence: Evidence) -> str:
    ks = sorted(
        {
            int(name.rsplit(".k", 1)[1])
            for record in evidence.records
            if record.kind == "probe"
            for name in record.measurements
            if ".k" in name and not name.endswith("shuffled")
        }
    )
    kinds = (
        ("aligned (CASL)", MAP, "top_latents"),
        ("unsupervised (SAE steering)", UNSUPERVISED, "top_latents"),
        ("random", MAP, "random_latents"),
        ("aligned units", MAP, "top_units"),
        ("random units", MAP, "random_units"),
    )
    rows = [
        [title, *(_probe(evidence, method, f"{features}.k{k}").text() for k in ks)]
        for title, method, features in kinds
    ]
    whole, lowest = (_probe(evidence, MAP, features) for features in ("raw_h", "majority"))
    aligned = answers.probe(evidence, MAP, f"top_latents.k{PROBE_K}")
    others = (
        ("unsupervised ones", UNSUPERVISED, f"top_latents.k{PROBE_K}"),
        ("random ones", MAP, f"random_latents.k{PROBE_K}"),
        ("all of raw h", MAP, "raw_h"),
    )
    pairs = [
        [title, *(_signed(x) for x in answers.per_dataset(
            evidence,
            lambda e, m=method, f=features: answers.difference(  # type: ignore[misc]
                answers.probe(e, MAP, f"top_latents.k{PROBE_K}"), answers.probe(e, m, f)
            ),
        ))]
        for title, method, features in others
    ]  # fmt: skip
    return section(
        "Do aligned latents exist?",
        "Test accuracy of linear SVM probes on the k best latents of each concept. A latent is "
        "pooled over positions (mean and max); a unit is a latent at one position. "
        f"n = {len(aligned)} concepts. All of raw h: {whole.text()}; majority class: "
        f"{lowest.text()}.",
        table(["latents", *(f"k = {k}" for k in ks)], rows),
        f"{PROBE_K} aligned latents minus …, accuracy on the same concepts:",
        table(["minus", "all", *map(escape, evidence.datasets)], pairs),
        _verdict(
            answers.difference(aligned, answers.probe(evidence, UNSUPERVISED, others[0][2])),
            "aligned latents reveal more of their concept than those chosen without supervision",
            "aligned latents reveal less of their concept than those chosen without supervision",
            "aligned latents and those chosen without supervision do not differ significantly",
        ),
    )


def _they_act(evidence: Evidence) -> str:
    rows = []
    for method in (STEER, MAP):
        for dose in answers.dose_response(evidence, method):
            rows.append(
                [escape(method), f"{dose.strength:g}", dose.effect.text(), dose.collateral.text(),
                 str(dose.effect.n)]
            )  # fmt: skip
    calm = {method: answers.monotone(evidence, method) for method in (STEER, MAP)}
    local = []
    others = {r.method or "" for r in evidence.records if r.kind == "edit" and not r.control}
    for method in (STEER, MAP, *sorted(others - {STEER, MAP}), ORACLE):
        found = [
            mean_over(answers.at_headline(evidence, method, name).values())
            for name in ("epr_signed", "factor_epr", "pixel_locality")
        ]
        local.append([escape(method), str(found[0].n), *(x.text() for x in found)])
    return section(
        "Do they act, and locally?",
        "Dose and response on validation images: effect, and mean change of the other attributes "
        "in σ, at each strength that every concept was run at. On its way to the largest effect "
        f"that is compared, the response falls nowhere by more than {DIP:.0%} of the full effect "
        "in "
        + "; ".join(f"{good} of {every} concepts for {m}" for m, (good, every) in calm.items())
        + "; past that it may.",
        table(["method", "strength", "effect", "collateral (σ)", "n"], rows),
        "Locality at 50 % of the full effect, test images, concepts in which it is reached: "
        "change of the target over that of the others by the classifier and by the known factors, "
        "and the share of changed pixels' energy where the perfect edit changes anything.",
        table(["method", "n", "EPR signed", "factor EPR", "pixel locality"], local),
    )


def _ablation(evidence: Evidence) -> str:
    rows = []
    for k in evidence.study.header.ks:
        top, alike = (answers.left_of(evidence, kind, k) for kind in ("top", "alike"))
        rows.append([str(k), top.text(), alike.text(), str(top.n)])
    bias = answers.left_of(evidence, "all", None)
    gone = {
        k: [answers.effects(evidence.variants("absence", kind, k)) for kind in ("top", "alike")]
        for k in evidence.study.header.ks
    }
    absent = [
        [str(k), *(mean_over(own.values()).text() for own in found), str(len(found[0]))]
        for k, found in gone.items()
    ]
    largest = max(gone)
    return section(
        "Does taking them away take the effect away?",
        "CASL's edit at its strength of equal effect, with k latents taken out of its map: share "
        "of the effect that is left. Beside it as many other latents that are as active, as a "
        f"control. With no latent at all, the bias alone: {bias.text()}.",
        table(["k", "without the top k", "without k others as active", "n"], rows),
        "Images that have the attribute, with what k latents decode to taken out of h at every "
        "timestep of the edit, the rest of h as it was: change towards having the attribute, so "
        "negative where it goes. n: concepts with such test images.",
        table(["k", "top k taken out", "k others as active taken out", "n"], absent),
        _verdict(
            answers.difference(*gone[largest]),
            f"taking out the top {largest} takes away less of the attribute than the others do",
            f"taking out the top {largest} takes away more of the attribute than the others do",
            f"the top {largest} and the others do not differ significantly in images that have the "
            "attribute",
        ),
    )


def _against(evidence: Evidence) -> str:
    found = answers.comparison(evidence)
    if found is None:
        return section("CASL against each baseline at matched effect",
                       "The records compare nothing over all data sets.")  # fmt: skip
    parts = []
    for method in (MAP, STEER):
        rows = []
        for row in answers.against(evidence, method):
            side = row.difference.above_zero if row.p is not None and row.p < 0.05 else None
            better = {True: method, False: row.other, None: ""}[side]
            said = f"{better} is the more precise" if better else "no significant difference"
            p = DASH if row.p is None else number(row.p, 3)
            rows.append([escape(row.other), row.difference.text(), p, escape(said)])
        parts += [
            f"**{escape(method)}**",
            table(["minus", "difference", "p (Holm)", "significant?"], rows),
        ]
    return section(
        "CASL against each baseline at matched effect",
        "Mean over concepts of the signed log of EPR+ at 50 % of the full effect, this method "
        "minus the other on the same images; a concept in which the effect is not reached counts "
        f"as 0. n = {len(found.concepts)} concepts. Holm's correction is over all pairs of "
        "methods.",
        *parts,
    )


def _crosstalk(evidence: Evidence) -> str:
    rows = []
    for k in evidence.study.header.ks:
        variants = evidence.variants("size", "top", k)
        reached = [row for row in variants.values() if row.reached]
        moved = mean_over(answers.value_of(row.measurements, "mean_collateral") for row in reached)
        found = answers.per_dataset(
            evidence,
            lambda e, k=k: mean_over(  # type: ignore[misc]
                answers.precision(e.variants("size", "top", k)).values()
            ),
        )
        rows.append(
            [str(k), f"{len(reached)}/{len(variants)}", *(from_signed_log(x).text() for x in found),
             moved.text()]
        )  # fmt: skip
    slope = answers.per_doubling(evidence)
    return section(
        "Does a small k spare the other attributes?",
        "CASL-Steer with k latents, each k at its own strength of equal effect: EPR+ (a concept "
        "in which the effect is not reached counts as 0), and the other attributes' mean change "
        "in σ where it is reached.",
        table(
            ["k", "reached", "EPR+, all", *map(escape, evidence.datasets), "collateral (σ)"], rows
        ),
        f"Signed log of EPR+ for each doubling of k, where the effect is reached: {slope.text()} "
        f"(n = {slope.n} concepts). "
        + _verdict(
            slope,
            "more latents are the more precise",
            "fewer latents are the more precise",
            "no dependence of precision on k is shown",
        ),
    )


def _rests_on(evidence: Evidence) -> str:
    commits = sorted({(r.provenance.git_commit or "unknown")[:10] for r in evidence.records})
    devices = sorted({r.provenance.device for r in evidence.records})
    return section(
        "What this rests on",
        f"Records of commit {escape(', '.join(commits))}; "
        f"devices: {escape(', '.join(devices))}; {packages_text(evidence.study.header.packages)}.",
    )


def _probe(evidence: Evidence, method: str, features: str) -> Over:
    return mean_over(answers.probe(evidence, method, features).values())


def _signed(found: Over) -> str:
    text = found.text()
    return f"+{text}" if found.value is not None and found.value > 0 else text


def _verdict(found: Over, above: str, below: str, neither: str) -> str:
    """One sentence, of which side of 0 the interval lies on."""
    if found.low is None:
        return "There are too few concepts for an answer."
    said = {True: above, False: below, None: neither}[found.above_zero]
    return f"So {said} ({found.text()}, n = {found.n})."


# One picture of dose, ablation and number of latents.

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"
"""Of Okabe and Ito's palette, which the colour-blind can distinguish."""


def draw_figure(evidence: Evidence) -> bytes:
    """PNG of three panels."""
    ks = evidence.study.header.ks

    def draw(figure: Any) -> None:
        dose, ablation, size = figure.subplots(1, 3)
        for method, colour, marker in ((STEER, BLUE, "o"), (MAP, ORANGE, "s")):
            found = answers.dose_response(evidence, method)
            effects = [d.effect for d in found]
            _line(dose, [d.strength for d in found], effects, colour, marker, method)
        _labels(dose, "dose and response", "strength", "effect / perfect edit's")
        for kind, colour, marker, label in (
            ("top", BLUE, "o", "without the top k"), ("alike", GREY, "s", "without k others"),
        ):  # fmt: skip
            left = [answers.left_of(evidence, kind, k) for k in ks]  # type: ignore[arg-type]
            _line(ablation, ks, left, colour, marker, label)
        ablation.set_xscale("log", base=2)
        _labels(ablation, "CASL's edit, latents taken away", "k", "share of the effect left")
        precise = [_epr_plus(evidence, k) for k in ks]
        _line(size, ks, precise, BLUE, "o", STEER)
        size.set_xscale("log", base=2)
        _labels(size, "k latents at equal effect", "k", "EPR+")

    return png((11, 3.4), draw, evidence.study.header.command, colours=64)


def _epr_plus(evidence: Evidence, k: int) -> Over:
    """EPR+ of CASL-Steer with k latents."""
    found = answers.precision(evidence.variants("size", "top", k))
    return from_signed_log(mean_over(found.values()))


def _line(
    axes: Any, places: Sequence[float], found: Sequence[Over], colour: str, marker: str, label: str
) -> None:
    known = [(x, o.value) for x, o in zip(places, found, strict=True) if o.value is not None]
    axes.plot(
        [x for x, _ in known], [y for _, y in known], marker=marker, color=colour, label=label,
        markersize=4, linewidth=1.2,
    )  # fmt: skip
    banded = [(x, o.low, o.high) for x, o in zip(places, found, strict=True) if o.low is not None]
    if banded:
        xs, low, high = np.array(banded, dtype=np.float64).T
        axes.fill_between(xs, low, high, color=colour, alpha=0.15)


def _labels(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
