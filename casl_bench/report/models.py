"""Tables of all but the edits: reconstruction, SVM probe, SAE, scorers, off-target shift.

Names of measurements carry their place, parts joined by dots: `top_units.k4` and
`top_units.k4.shuffled` in a probe's record, `sae.cosine` and `pca.cosine` in an SAE's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from casl_bench.report.columns import METHOD, Column, in_order, probe_name, shown, table_of
from casl_bench.report.grouping import NOT_DONE, Group, Number, Row, mean_over, over_concepts
from casl_bench.report.markdown import Footnotes, escape, fold, number, section, table
from casl_bench.results.record import Kind, RunRecord

_FEATURES = {
    "top_units": "top (latent, position) units",
    "random_units": "random units",
    "top_latents": "top latents, pooled",
    "random_latents": "random latents, pooled",
    "raw_h": "raw h",
    "majority": "majority class",
}
_COST_PREFIX = "inversion."
"""Of measurements of what the inversions cost, which are no quality."""
_ABOUT_PROBE = (
    "Test accuracy of a linear SVM on the k best aligned latents of each concept, on as many "
    "random ones, on all of raw h, and of the majority class. Shuffled: labels permuted."
)


_MODELS = {
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
"""Measurement of a model, or a part of its name → heading; also their order."""


def _header(name: str) -> str:
    """Heading of a measurement of models."""
    return _MODELS.get(name) or name.replace("_", " ")


def _done(group: Group, kind: Kind) -> list[RunRecord]:
    return [r for r in group.of_kind(kind) if r.status == "done"]


def reconstruction_section(group: Group) -> str:
    """How well inversion and generation give the image back, one row per record."""
    records = _done(group, "reconstruction")
    if not records:
        return ""
    columns: list[Column[RunRecord]] = [
        Column("dataset", "data set", lambda r: r.dataset, text=True),
        *(_of_model(name) for name in in_order(_names(records), _MODELS)),
    ]
    return section("Reconstruction (no edit)", table_of(columns, records))


def _of_model(name: str) -> Column[RunRecord]:
    def of(record: RunRecord) -> Number:
        found = record.measurements.get(name)
        return Number(reason="not measured") if found is None else Number.of(found)

    return Column(name, _header(name), of, digits=3)


def sae_section(group: Group) -> str:
    """The SAE compared with PCA and the mean: how much of h each keeps, and what that costs."""
    return _prefixed_section("SAE reconstruction of h", group, "sae")


def scorer_section(group: Group) -> str:
    """How accurate the scorers themselves are."""
    return _prefixed_section("Scorer validation", group, "scorer")


def _prefixed_section(title: str, group: Group, kind: Kind) -> str:
    """One row per prefix, one column per rest of a measurement's name; empty without any."""
    parts = []
    for record in _done(group, kind):
        # What is measured for each attribute is not in this table.
        found = {tuple(n.rpartition(".")[::2]): m for n, m in record.measurements.items()
                 if "/" not in n}  # fmt: skip
        notes = Footnotes()
        names = in_order((rest for _, rest in found), _MODELS)
        rows = [
            [
                escape(_header(prefix)) if prefix else "all",
                *("" if (prefix, name) not in found
                  else shown(Number.of(found[prefix, name]), notes, 3) for name in names),
            ]
            for prefix in in_order((prefix for prefix, _ in found), _MODELS)
        ]  # fmt: skip
        parts.append(notes.under(table(["what", *(escape(_header(name)) for name in names)], rows)))
    return section(title, *parts) if parts else ""


def datasets_section(
    title: str, kind: Kind, group: Group, datasets: Sequence[str], prefix: str = ""
) -> str:
    """One row per data set, and the mean over all of `datasets` where each has its number.

    Only measurements whose name begins with the prefix are shown, without it.
    """
    own = {r.dataset: r for r in _done(group, kind)}
    if not own:
        return ""

    def column(name: str) -> Column[str]:
        found = {
            d: Number.of(own[d].measurements.get(prefix + name)) if d in own else Number()
            for d in datasets
        }
        mean = mean_over(found)

        def of(row: str) -> Number:
            return mean if row == "mean" else Number(found[row].value, reason="not measured")

        return Column(name, _header(name), of, digits=3)

    names = {n.removeprefix(prefix) for n in _names(own.values()) if n.startswith(prefix)}
    dataset = Column[str]("dataset", "data set", str, text=True)
    columns = [dataset, *map(column, in_order(names, _MODELS))]
    return section(title, table_of(columns, [*own, "mean"]))


# The SVM probe: accuracy by number of features.


def probe_section(group: Group) -> str:
    """Mean over concepts for each ranking of latents; every concept in a fold."""
    parts = []
    for method, own in probes_by_method(group).items():
        whose = f" of {escape(method)}" if method else ""
        by_concept = {r.concept or "": r for r in own}
        heading = f"Ranked latents{whose}, concepts in the mean: {len(own)}{_flags(own)}."
        parts.append(f"{heading}\n\n{_probe_table(by_concept, group)}")
        each = [
            f"**{escape(concept or 'all')}**\n\n{_probe_table({concept: record}, group)}"
            for concept, record in by_concept.items()
        ]
        parts.append(fold(f"{method or 'probe'}, by concept", "\n\n".join(each)))
    return section("SVM probe", _ABOUT_PROBE, *parts) if parts else ""


def probe_overall_section(group: Group) -> str:
    """Mean over the concepts of all data sets."""
    parts = []
    for method, records in probes_by_method(group).items():
        own = {group.concept_of(r): r for r in records}
        whose = f" of {escape(method)}" if method else ""
        body = _probe_table({c: own.get(c) for c in group.concepts or own}, group)
        parts.append(f"Ranked latents{whose}{_flags(records)}.\n\n{body}")
    return section("SVM probe, overall", _ABOUT_PROBE, *parts) if parts else ""


def probes_by_method(group: Group) -> dict[str, list[RunRecord]]:
    """Method whose ranking of latents is probed → its finished probes."""
    found: dict[str, list[RunRecord]] = {}
    for record in _done(group, "probe"):
        found.setdefault(record.method or "", []).append(record)
    return dict(sorted(found.items()))


def _flags(records: Iterable[RunRecord]) -> str:
    how = "; ".join(sorted({escape(flag) for r in records for flag in r.flags}))
    return f" ({how})" if how else ""


def _probe_table(records: Mapping[str, RunRecord | None], group: Group) -> str:
    """Rows are features, columns are numbers of them; what has no k fills the last column."""
    names = _names(r for r in records.values() if r is not None)
    known = {(feature, shuffled) for feature, _, shuffled in map(probe_name, names)}
    features = in_order((feature for feature, _ in known), _FEATURES)
    rows = [(feature, s) for feature in features for s in (False, True) if (feature, s) in known]

    def column(k: int | None) -> Column[tuple[str, bool]]:
        def of(row: tuple[str, bool]) -> Number | str:
            name = ".".join([row[0], *([f"k{k}"] if k is not None else []), *["shuffled"] * row[1]])
            if name not in names:
                return ""
            found = {
                c: NOT_DONE if r is None else Number.of(r.measurements.get(name))
                for c, r in records.items()
            }
            if len(found) == 1:
                return next(iter(found.values()))
            return over_concepts(found, group, bounds=(0.0, 1.0))

        return Column("all" if k is None else f"k{k}", "all" if k is None else f"k = {k}", of)

    ks = sorted({k for name in names if (k := probe_name(name)[1]) is not None})
    feature = Column[tuple[str, bool]]("features", "features", _probe_title, text=True)
    return table_of([feature, *map(column, [*ks, None])], rows)


def _probe_title(row: tuple[str, bool]) -> str:
    feature, shuffled = row
    title = _FEATURES.get(feature, feature.replace("_", " "))
    return title + (", shuffled" if shuffled else "")


def _names(records: Iterable[RunRecord]) -> set[str]:
    names = {name for r in records for name in r.measurements}
    return {name for name in names if not name.startswith(_COST_PREFIX)}


# What else an edit moves: the shift of the attributes that it should leave alone.

_ABOUT_SHIFT = (
    "Mean absolute shift, in σ, over the concepts that aim at another attribute: what a method "
    "changes besides. Smaller is better. A concept's shift is the signed mean change over its test "
    "images at the chosen strength: changes that cancel do not count here, but under collateral."
)
_ABOUT_SHIFT_OVERALL = (
    "Mean absolute shift, in σ, of all attributes that a concept does not aim at, mean over "
    "concepts. Smaller is better. By attribute it stands with each data set."
)
_ABOUT_MATRIX = (
    "Signed mean change of each attribute over the test images, in σ, with half of its 95 % "
    "interval; in bold the attribute that is to change."
)


def off_target_section(group: Group) -> str:
    """One column per attribute, one row per method; concepts × attributes in a fold each."""
    shown_attributes = attributes_of(r for row in group.rows for r in row.done.values())
    if not shown_attributes:
        return ""
    without = sorted({c for own in group.edits.values() for c, r in own.items()
                      if _target(r) is None})  # fmt: skip
    about = ""
    if without:
        names = ", ".join(map(escape, without))
        about = f"No attribute is named like {names}: their off-target shift is not known."
    columns = [METHOD, *(_shift_column(a, group) for a in shown_attributes), _ALL_OFF_TARGET]
    folds = [
        fold(f"{row.key.name}, shift by concept", _matrix(row, shown_attributes))
        for row in group.rows
    ]
    return section("Off-target shift", _ABOUT_SHIFT, about, table_of(columns, group.rows), *folds)


def off_target_overall_section(group: Group) -> str:
    """By data set: attributes differ between them, so only their mean is shown."""
    if not attributes_of(r for row in group.rows for r in row.done.values()):
        return ""

    def column(dataset: str) -> Column[Row]:
        def of(row: Row) -> Number:
            found = row.each(_mean_off_target)
            own = {c: n for c, n in found.items() if c in group.datasets[dataset]}
            return over_concepts(own, group)

        return Column(dataset, dataset, of)

    columns = [METHOD, *map(column, group.datasets), _ALL_OFF_TARGET]
    body = table_of(columns, group.rows)
    return section("Off-target shift, overall", _ABOUT_SHIFT_OVERALL, body)


def attributes_of(records: Iterable[RunRecord]) -> list[str]:
    """Those that have a shift in any record, in the classifiers' order."""
    found = list(records)
    known = {a for r in found for a in r.drift}
    ordered = dict.fromkeys(a for r in found for a in r.attributes if a in known)
    return [*ordered, *sorted(known - set(ordered))]


def _shift_column(attribute: str, group: Group) -> Column[Row]:
    targets = {c: _target(r) for own in group.edits.values() for c, r in own.items()}

    def of(row: Row) -> Number:
        found = row.each(lambda record: _off_target(record, attribute))
        others = {c: n for c, n in found.items() if targets[c] != attribute}
        if not others:
            return Number(reason="no concept that aims at another attribute")
        return over_concepts(others, group)

    return Column(attribute, attribute, of)


def _target(record: RunRecord) -> str | None:
    known = {*record.attributes, *record.drift}
    return record.concept if record.concept in known else None


def _off_target(record: RunRecord, attribute: str) -> Number:
    """|shift| of an attribute that the concept does not aim at."""
    target, value = _target(record), record.drift.get(attribute)
    if target is None or target == attribute or value is None:
        return NOT_DONE
    return Number(abs(value))


def _mean_off_target(record: RunRecord) -> Number:
    """Mean |shift| of all attributes but the target, if each of them has one."""
    names = [*dict.fromkeys([*record.attributes, *record.drift])]
    values = [_off_target(record, a).value for a in names if a != _target(record)]
    known = [v for v in values if v is not None]
    complete = known and len(known) == len(values)
    return Number(sum(known) / len(known)) if complete else NOT_DONE


_ALL_OFF_TARGET: Column[Row] = Column(
    "off_target_shift", "all",
    lambda row: over_concepts(row.each(_mean_off_target), row.group),
)  # fmt: skip


def _matrix(row: Row, attributes: Sequence[str]) -> str:
    """Signed shift, concepts × attributes, the target in bold."""
    notes, rows, done = Footnotes(), [], row.done
    for concept in row.concepts:
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
    return f"{_ABOUT_MATRIX}\n\n{notes.under(body)}"
