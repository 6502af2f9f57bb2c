"""Tables of what stands beside the edits: reconstruction, SVM probe, SAE, scorers.

Names of measurements carry their place, parts joined by dots: `top_units.k4` and
`top_units.k4.shuffled` in a probe's record, `sae.cosine` and `pca.cosine` in an SAE's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from casl_bench.report.grouping import (
    Group,
    RowKey,
    mean,
    over_concepts,
    row_name,
    section,
    shown_mean,
    with_interval,
)
from casl_bench.report.markdown import Footnotes, escape, fold, measured, number, table
from casl_bench.results.record import Kind, Measurement, RunRecord

_TITLES = {
    "psnr": "PSNR (dB) ↑",
    "attribute_agreement": "attribute agreement ↑",
    "x_T_mean": "mean of x_T (≈ 0)",
    "x_T_std": "std of x_T (≈ 1)",
    "worst_attribute_agreement": "worst attribute ↑",
    "accuracy": "accuracy ↑",
    "worst_attribute": "worst attribute ↑",
    "accuracy_on_reconstructions": "on reconstructions ↑",
    "accuracy_on_oracle_edits": "on known edits ↑",
    "calibration_error": "calibration error ↓",
    "calibration_error_on_reconstructions": "on reconstructions ↓",
    "calibration_error_on_oracle_edits": "on known edits ↓",
    "flips_seen": "known flips seen ↑",
    "slope": "slope (1 is right)",
    "correlation": "correlation ↑",
    "leakage": "leakage (σ) ↓",
    "agreement": "agreement with the primary ↑",
    "agreement_on_reconstructions": "on reconstructions ↑",
    "identity": "identity ↑",
    "faces_missed": "no face found",
    "images_left_out": "unusable images left out",
    "explained_variance": "explained variance ↑",
    "normalised_mse": "normalised MSE ↓",
    "cosine": "cosine ↑",
    "l0": "L0",
    "dead_share": "dead latents ↓",
    "eps_error": "eps error ↓",
    "sae": "SAE",
    "pca": "PCA of the same rank",
    "mean": "constant mean",
}
_FEATURES = {
    "top_units": "top (latent, position) units",
    "random_units": "random units",
    "top_latents": "top latents, pooled",
    "random_latents": "random latents, pooled",
    "raw_h": "raw h",
    "majority": "majority class",
}
COST_PREFIX = "inversion."
"""Of measurements that the tables of cost show."""
_SHUFFLED = "shuffled"
_ABOUT_PROBE = (
    "Test accuracy of a linear SVM on the k best aligned latents of each concept, beside as "
    "many random ones, all of raw h and the majority class. Shuffled: labels permuted."
)


def reconstruction_section(records: Sequence[RunRecord]) -> str:
    """How well inversion and generation give the image back, one row a record."""
    return _plain_section("Reconstruction (no edit)", records)


def sae_section(records: Sequence[RunRecord]) -> str:
    """The SAE beside PCA and the mean: how much of h each keeps, and what that costs."""
    return _prefixed_section("SAE reconstruction of h", records)


def scorer_section(records: Sequence[RunRecord]) -> str:
    """The scorers' own marks."""
    return _prefixed_section("Scorers on trial", records)


def probe_section(records: Sequence[RunRecord]) -> str:
    """Accuracy by number of features, mean over concepts; every concept in a fold."""
    parts = []
    for method in sorted({r.method or "" for r in records}):
        own = [r for r in records if (r.method or "") == method and r.status == "done"]
        if not own:
            continue
        whose = f" of {escape(method)}" if method else ""
        by_name = {r.concept or "": r for r in own}
        heading = f"Ranked latents{whose}, concepts in the mean: {len(own)}{_flags(own)}."
        parts.append(f"{heading}\n\n{_probe_table(by_name, _mean)}")
        by_concept = []
        for record in own:
            body = _probe_table({record.concept or "": record}, _only)
            by_concept.append(f"**{escape(record.concept or 'all')}**\n\n{body}")
        parts.append(fold(f"{method or 'probe'}, by concept", "\n\n".join(by_concept)))
    if not parts:
        return ""
    return section("SVM probe", _ABOUT_PROBE, *parts)


def probe_overall_section(group: Group) -> str:
    """Accuracy by number of features, mean over the concepts of all data sets."""

    def cell(found: dict[str, Measurement | None], notes: Footnotes) -> str:
        values = {c: None if m is None else m.value for c, m in found.items()}
        return over_concepts(
            values, group, partial(with_interval, digits=2, bounds=(0.0, 1.0)), notes
        )

    parts = []
    done = [r for r in group.of_kind("probe") if r.status == "done"]
    for method in sorted({r.method or "" for r in done}):
        own = {group.concept_of(r): r for r in done if (r.method or "") == method}
        whose = f" of {escape(method)}" if method else ""
        body = _probe_table({c: own.get(c) for c in group.concepts or own}, cell)
        parts.append(f"Ranked latents{whose}{_flags(own.values())}.\n\n{body}")
    return section("SVM probe, overall", _ABOUT_PROBE, *parts) if parts else ""


def datasets_section(
    title: str, kind: Kind, group: Group, datasets: Sequence[str], prefix: str = ""
) -> str:
    """One row a data set, and the mean over them where each has its number.

    Args:
        title: of the section.
        kind: of the records, one a data set.
        group: of all data sets.
        datasets: every one that a mean is to hold.
        prefix: only measurements whose name begins with this, which is left out.
    """
    own = {r.dataset: r for r in group.of_kind(kind) if r.status == "done"}
    if not own:
        return ""
    notes, rows = Footnotes(), []
    names = _in_order(n.removeprefix(prefix) for n in _names(own.values()) if n.startswith(prefix))
    found = {
        name: {d: own[d].measurements.get(prefix + name) if d in own else None for d in datasets}
        for name in names
    }
    for d in own:
        shown = (measured(found[n][d], notes, digits=3, interval=False) for n in names)
        rows.append([escape(d), *shown])
    rows.append(["mean", *(_mean(found[n], notes, digits=3) for n in names)])
    body = notes.under(table(["data set", *map(_title, names)], rows))
    return section(title, body)


def _flags(records: Iterable[RunRecord]) -> str:
    how = "; ".join(sorted({escape(flag) for r in records for flag in r.flags}))
    return f" ({how})" if how else ""


def _probe_table(
    records: Mapping[str, RunRecord | None],
    cell: Callable[[dict[str, Measurement | None], Footnotes], str],
) -> str:
    """Rows are features, columns are numbers of them; what has no k fills the last column."""
    names = _names(r for r in records.values() if r is not None)
    ks = sorted({k for name in names if (k := _probe_name(name)[1]) is not None})
    features = sorted({(_place(_probe_name(n)[0], _FEATURES), _probe_name(n)[0]) for n in names})
    variants = sorted({_probe_name(n)[2] for n in names})
    notes = Footnotes()
    rows = []
    for _, feature in features:
        for shuffled in variants:
            row, present = [_probe_title(feature, shuffled)], False
            for k in [*ks, None]:
                name = _join(feature, k, shuffled)
                present |= name in names
                found = {c: r.measurements.get(name) if r else None for c, r in records.items()}
                row.append(cell(found, notes) if name in names else "")
            if present:
                rows.append(row)
    body = table(["features", *(f"k = {k}" for k in ks), "all"], rows)
    return notes.under(body)


def _probe_name(name: str) -> tuple[str, int | None, bool]:
    """`top_units.k4.shuffled` → ("top_units", 4, True)."""
    feature, *rest = name.split(".")
    ks = [int(part[1:]) for part in rest if part[:1] == "k" and part[1:].isdigit()]
    return feature, ks[0] if ks else None, _SHUFFLED in rest


def _join(feature: str, k: int | None, shuffled: bool) -> str:
    parts = [feature, *([] if k is None else [f"k{k}"]), *([_SHUFFLED] if shuffled else [])]
    return ".".join(parts)


def _probe_title(feature: str, shuffled: bool) -> str:
    title = _FEATURES.get(feature, feature.replace("_", " "))
    return escape(title) + (", shuffled" if shuffled else "")


def _mean(found: Mapping[str, Measurement | None], notes: Footnotes, digits: int = 2) -> str:
    """Mean over concepts or data sets with its t interval, or a dash where one has no number."""
    values = [m.value for m in found.values() if m is not None and m.value is not None]
    if values and len(values) == len(found):
        share = all(m is not None and m.unit == "share" for m in found.values())
        return with_interval(values, digits, (0.0, 1.0) if share else None)
    without = [c for c, m in found.items() if m is None or m.value is None]
    return notes.mark(f"no number for {', '.join(without)}")


def _only(found: dict[str, Measurement | None], notes: Footnotes) -> str:
    """The one concept's measurement."""
    (measurement,) = found.values()
    return measured(measurement, notes)


def _plain_section(title: str, records: Sequence[RunRecord]) -> str:
    """One row a record, one column a measurement."""
    records = [r for r in records if r.status == "done"]
    if not records:
        return ""
    notes = Footnotes()
    names = _in_order(_names(records))
    rows = [
        [escape(r.dataset), *(measured(r.measurements.get(n), notes, digits=3) for n in names)]
        for r in records
    ]
    body = table(["data set", *map(_title, names)], rows)
    return f"### {title}\n\n{notes.under(body)}"


def _prefixed_section(title: str, records: Sequence[RunRecord]) -> str:
    """One row a prefix, one column a rest of a measurement's name; empty where there is none."""
    parts = []
    for record in (r for r in records if r.status == "done"):
        notes = Footnotes()
        # What is told attribute by attribute has a table of its own.
        names = [name for name in record.measurements if "/" not in name]
        pairs = [tuple(name.rpartition(".")[::2]) for name in names]
        columns = _in_order(rest for _, rest in pairs)
        rows = []
        for prefix in _in_order(prefix for prefix, _ in pairs):
            row = [_title(prefix) or "all"]
            for column in columns:
                name = f"{prefix}.{column}" if prefix else column
                found = record.measurements.get(name)
                row.append("" if found is None else measured(found, notes, digits=3))
            rows.append(row)
        parts.append(notes.under(table(["what", *map(_title, columns)], rows)))
    return "\n\n".join([f"### {title}", *parts]) if parts else ""


def _names(records: Iterable[RunRecord]) -> set[str]:
    names = {name for r in records for name in r.measurements}
    return {name for name in names if not name.startswith(COST_PREFIX)}


def _in_order(names: Iterable[str]) -> list[str]:
    """Known names first, in the order of `_TITLES`; others by name."""
    return sorted(set(names), key=lambda n: (_place(n, _TITLES), n))


def _place(name: str, known: dict[str, str]) -> int:
    return list(known).index(name) if name in known else len(known)


def _title(name: str) -> str:
    return _TITLES.get(name) or escape(name.replace("_", " "))


# What else an edit moves: the drift of the attributes that it was not to touch.


_ABOUT = (
    "Mean absolute drift, in σ, over the concepts that aim at another attribute: what a method "
    "drags along. Smaller is better. A concept's drift is the signed mean change over its test "
    "images at the chosen strength: changes that cancel do not count here, but under collateral."
)


def drift_section(group: Group) -> str:
    """Off-target drift by attribute, one row a method; concepts × attributes in a fold each."""
    attributes = _attributes(group)
    if not attributes:
        return ""
    targets = {c: _target(r) for row in group.edits.values() for c, r in row.items()}
    notes, rows = Footnotes(), []
    for key in group.edits:
        cells = []
        for attribute in attributes:
            found = group.values(key, partial(_off_target, attribute=attribute))
            others = {c: v for c, v in found.items() if targets[c] != attribute}
            if others:
                cells.append(over_concepts(others, group, shown_mean(2), notes))
            else:
                cells.append(notes.mark("no concept that aims at another attribute"))
        whole = over_concepts(group.values(key, _mean_off_target), group, shown_mean(2), notes)
        rows.append([row_name(key), *cells, whole])
    body = notes.under(table(["method", *map(escape, attributes), "all"], rows))
    parts = [_ABOUT, *_nameless(targets), body]
    for key in group.edits:
        _, method, beside = key
        name = f"{method} beside {beside}" if beside else method
        parts.append(fold(f"{name}, drift by concept", _matrix(group, key, attributes)))
    return section("Drift of the other attributes", *parts)


def drift_overall_section(group: Group) -> str:
    """Off-target drift by data set: attributes differ between them, so only their mean is shown."""
    if not _attributes(group):
        return ""
    notes, rows = Footnotes(), []
    for key in group.edits:
        found = group.values(key, _mean_off_target)
        by_dataset = [
            over_concepts({c: found[c] for c in concepts}, group, shown_mean(2), notes)
            for concepts in group.datasets.values()
        ]
        rows.append([row_name(key), *by_dataset, over_concepts(found, group, shown_mean(2), notes)])
    headings = ["method", *map(escape, group.datasets), "all"]
    return section(
        "Drift of the other attributes, overall",
        "Mean absolute drift, in σ, of all attributes that a concept does not aim at, mean over "
        "concepts. Smaller is better. By attribute it stands with each data set.",
        notes.under(table(headings, rows)),
    )


def _matrix(group: Group, key: RowKey, attributes: list[str]) -> str:
    """Signed drift, concepts × attributes, the target in bold."""
    notes, rows, done = Footnotes(), [], group.done(key)
    for concept in group.concepts:
        record = done.get(concept)
        if record is None:
            mark = notes.mark(f"no number for {concept}")
            rows.append([escape(concept), "", *(mark for _ in attributes)])
            continue
        cells = []
        for attribute in attributes:
            value = record.drift.get(attribute)
            cell = notes.mark("undefined") if value is None else number(value)
            if value is not None and attribute in record.drift_margin:
                cell += f" ± {number(record.drift_margin[attribute])}"
            cells.append(f"**{cell}**" if attribute == _target(record) else cell)
        strength = "" if record.strength is None else f"{record.strength:g}"
        rows.append([escape(concept), strength, *cells])
    body = table(["concept", "strength", *map(escape, attributes)], rows)
    about = (
        "Signed mean change of each attribute over the test images, in σ, with half of its 95 % "
        "interval; in bold the one that is to change."
    )
    return f"{about}\n\n{notes.under(body)}"


def _attributes(group: Group) -> list[str]:
    """Those with a drift anywhere, in the classifiers' order."""
    records = [r for key in group.edits for r in group.done(key).values()]
    with_drift = {a for r in records for a in r.drift}
    ordered = dict.fromkeys(a for r in records for a in r.attributes if a in with_drift)
    return [*ordered, *sorted(with_drift - set(ordered))]


def _target(record: RunRecord) -> str | None:
    known = {*record.attributes, *record.drift}
    return record.concept if record.concept in known else None


def _off_target(record: RunRecord, attribute: str) -> float | None:
    """|drift| of an attribute that the concept does not aim at."""
    target, value = _target(record), record.drift.get(attribute)
    return None if target is None or target == attribute or value is None else abs(value)


def _mean_off_target(record: RunRecord) -> float | None:
    """Mean |drift| of all attributes but the target; None where one of them has none."""
    names = [*dict.fromkeys([*record.attributes, *record.drift])]
    values = [_off_target(record, a) for a in names if a != _target(record)]
    there = [v for v in values if v is not None]
    return mean(there) if there and len(there) == len(values) else None


def _nameless(targets: dict[str, str | None]) -> list[str]:
    without = [escape(c) for c, target in sorted(targets.items()) if target is None]
    if not without:
        return []
    return [f"No attribute is named like {', '.join(without)}: what is off target is not known."]
