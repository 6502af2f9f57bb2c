"""Tables of the SAE track: ranking, every metric, what they cannot tell apart, CASL's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from casl_bench.analysis.sae_ranking import (
    SaeStanding,
    Variant,
    cannot_tell_apart,
    concept_scores,
    paired,
    standings,
    variant_of,
)
from casl_bench.metrics.dictionaries import HEADLINE, SAE_METRICS, Room
from casl_bench.report.columns import Column, table_of
from casl_bench.report.grouping import Number, mean_of
from casl_bench.report.markdown import Markdown, escape, number, section
from casl_bench.results.sae_record import SaeRecord, ranges_of

FLOORS = ("untrained", "random_orthogonal")
"""A metric that does not rank a trained dictionary above these says so under the table."""

_DIGITS = {"eps_error": 4, "l0": 1, "splitting": 1}
_ROOMS: dict[Room, str] = {
    "reading": "What can be read off the code",
    "acting": "What happens when the code is changed",
    "coding": "What the code keeps",
}
_ABOUT = (
    "Dictionaries of activations on images whose factors are known. Ranked by the pair score: of "
    "the latent matched to an attribute on training images, how much of its movement belongs to "
    "flips of its own factor, in the right direction. A mean's interval is over attributes, ranks "
    "are from paired tests over attributes of all data sets (Holm). Controls are in italics and "
    "not ranked."
)


@dataclass(frozen=True)
class SaeRow:
    """A dictionary at one site, width and target L0: all data sets, seeds and ranges together."""

    variant: Variant
    records: tuple[SaeRecord, ...]
    standing: SaeStanding | None

    @property
    def control(self) -> bool:
        """Whether it is a floor or a ceiling."""
        return self.records[0].control

    @property
    def label(self) -> Markdown:
        """Name, in italics for a control, and what of its size was asked for."""
        sae, site, width, _, vectors, per_range = self.variant
        name = escape(Path(sae).name if Path(sae).is_absolute() else sae)
        parts = [f"*{name}*" if self.control else name]
        parts += [escape(site)] if site != "mid" else []
        parts += [f"{width} wide"] if width else []
        parts += [f"{vectors:,} vectors"] if vectors else []
        parts += ["one per range"] if per_range else []
        return Markdown(", ".join(parts))

    def values(self, metric: str, time_range: str | None = None) -> list[float]:
        """Of a metric, one per record and range."""
        return [
            m.value
            for r in self.records
            for name, measured in r.measurements.items()
            if time_range in (None, name)
            and (m := measured.get(metric)) is not None
            and m.value is not None
        ]

    def number(self, metric: str, time_range: str | None = None) -> Number:
        """The mean of these, with its interval: that of the only one, or over them."""
        found = self.values(metric, time_range)
        if not found:
            return Number(reason=self._reason(metric))
        if len(found) == 1:
            (only,) = (
                m
                for r in self.records
                for name, measured in r.measurements.items()
                if time_range in (None, name)
                and (m := measured.get(metric)) is not None
                and m.value is not None
            )
            return Number.of(only)
        low, high = SAE_METRICS[metric].bounds if metric in SAE_METRICS else (-1e9, 1e9)
        return mean_of(found, (low, high))

    def _reason(self, metric: str) -> str:
        reasons = {
            m.reason
            for r in self.records
            for measured in r.measurements.values()
            if (m := measured.get(metric)) is not None and m.reason
        }
        return "; ".join(sorted(reasons)) or "not measured"


def rows_of(records: Sequence[SaeRecord]) -> list[SaeRow]:
    """Rows in order of their score, controls last."""
    found: dict[Variant, list[SaeRecord]] = {}
    for record in records:
        found.setdefault(variant_of(record), []).append(record)
    places = standings(records)
    rows = [SaeRow(v, tuple(own), places.get(v)) for v, own in found.items()]

    def order(row: SaeRow) -> tuple[bool, float, str]:
        values = row.values(HEADLINE)
        return row.control, -sum(values) / max(len(values), 1), row.label

    return sorted(rows, key=order)


def _first_columns(rows: Sequence[SaeRow]) -> list[Column[SaeRow]]:
    columns = [Column[SaeRow]("dictionary", "dictionary", lambda r: r.label, text=True)]
    if len({r.variant[3] for r in rows}) > 1:
        columns.append(
            Column("target_l0", "target L0", lambda r: str(r.variant[3] or ""), text=True)
        )
    return columns


def metric_column(metric: str, time_range: str | None = None) -> Column[SaeRow]:
    """The column of a declared metric."""
    info = SAE_METRICS[metric]
    return Column(
        metric,
        info.title,
        lambda row: row.number(metric, time_range),
        digits=_DIGITS.get(metric, 3),
        better=info.better,
        bounds=info.bounds,
        note=info.source,
    )


def _rank(row: SaeRow) -> str:
    found = row.standing
    if found is None:
        return "—"
    return str(found.low) if found.low == found.high else f"{found.low}–{found.high}"


def sae_tables(records: Sequence[SaeRecord]) -> str:
    """All tables, as markdown."""
    sections = [title(records)]
    sections += [
        section(name, *([body] if isinstance(body, str) else body))
        for name, body in sae_sections(records)
    ]
    return "\n\n".join(sections) + "\n"


def title(records: Sequence[SaeRecord]) -> str:
    """Heading and what is shown."""
    datasets = sorted({r.id.dataset for r in records})
    suites = sorted({r.suite for r in records})
    quick = " Made by a suite for trying out, so no number is shown." * any(
        r.quick for r in records
    )
    seeds = len({r.id.seed for r in records})
    return (
        f"## Dictionaries, suite {', '.join(suites)}\n\n{_ABOUT} Data sets: "
        f"{', '.join(map(escape, datasets))}; seeds: {seeds}.{quick}"
    )


def sae_sections(records: Sequence[SaeRecord]) -> list[tuple[str, str]]:
    """(heading, markdown) of every table; of a suite for trying out, what ran and no number."""
    rows = rows_of(records)
    first = _first_columns(rows)
    if any(r.quick for r in records):
        measured = Column[SaeRow]("measured", "metrics measured", _measured, text=True)
        return [("What ran", table_of([*first, measured], rows))]
    ranking = [
        Column[SaeRow]("rank", "rank", _rank, text=True),
        *first,
        Column[SaeRow](
            "letters", "letters", lambda r: r.standing.letters if r.standing else "", text=True
        ),
        *map(metric_column, (HEADLINE, "disentangle", "steering", "probe_labels", "l0")),
        metric_column("explained_variance"),
    ]
    found = [("Ranking of dictionaries", table_of(ranking, rows))]
    for room, name in _ROOMS.items():
        columns = [metric_column(m) for m, info in SAE_METRICS.items() if info.room == room]
        body = table_of([*first, *columns], rows)
        found.append((name, f"{body}\n\n{_ceiling(records)}" if room == "acting" else body))
    ranges = ranges_of(records)
    if len(ranges) > 1:
        for metric in (HEADLINE, "disentangle", "explained_variance"):
            columns = [metric_column(metric, r) for r in ranges]
            columns = [replace(c, label=r) for c, r in zip(columns, ranges, strict=True)]
            found.append((f"By range of timesteps: {SAE_METRICS[metric].title}",
                          table_of([*first, *columns], rows)))  # fmt: skip
    found.append(("By attribute: pair score", _by_attribute(records, rows, first)))
    found.append(("What metrics cannot tell apart", _findings(records)))
    found.append(("CASL's questions", questions(records)))
    return [(name, body) for name, body in found if body]


def _measured(row: SaeRow) -> str:
    return f"{sum(bool(row.values(name)) for name in SAE_METRICS)} of {len(SAE_METRICS)}"


def _ceiling(records: Sequence[SaeRecord]) -> str:
    """What interchanging all activations of the site causes."""
    scores = [row for row in concept_scores(records, "whole_swap").values() if row]
    if not scores:
        return ""
    each = ", ".join(f"{escape(c)} {number(v)}" for c, v in sorted(scores[0].items()))
    return (
        "Cause with all activations of the site interchanged, more than which cannot be asked of a "
        f"code of them: {each}."
    )


def _by_attribute(
    records: Sequence[SaeRecord], rows: Sequence[SaeRow], first: list[Column[SaeRow]]
) -> str:
    scores = concept_scores(records)
    names = sorted({c for row in scores.values() for c in row})

    def column(name: str) -> Column[SaeRow]:
        def of(row: SaeRow) -> Number:
            value = scores.get(row.variant, {}).get(name)
            return Number(value, reason="" if value is not None else "not measured")

        return Column(name, name.split("/")[1] if len({n.split("/")[0] for n in names}) == 1
                      else name, of, better="higher")  # fmt: skip

    return table_of([*first, *map(column, names)], rows)


def _findings(records: Sequence[SaeRecord]) -> str:
    """Metrics that do not rank every trained dictionary above the floors."""
    lines = []
    trained = len({r.id.sae for r in records if not r.control})
    for name, info in SAE_METRICS.items():
        if info.better is None or info.name == "stability":  # a control's is another question
            continue
        # A rotation keeps everything: it is a floor of what is read and done, not of what is kept.
        floors = [f for f in FLOORS[: 1 if info.room == "coding" else None]
                  if any(r.id.sae == f for r in records)]  # fmt: skip
        alike = cannot_tell_apart(records, name, info.better, floors)
        parts = []
        for floor in floors:
            beaten = [escape(a) for a, b in alike if b == floor]
            if beaten:
                who = "no trained dictionary" if len(beaten) == trained else (
                    f"not {', '.join(beaten)}"
                )  # fmt: skip
                parts.append(f"{who} above *{escape(floor)}*")
        if parts:
            lines.append(f"- {escape(info.title)}: {'; '.join(parts)}")
    if not lines:
        return "Every metric ranks every trained dictionary above the untrained and random ones."
    return "\n".join(
        ["Metrics that do not rank every trained dictionary above the floors, by their means:",
         "", *lines]
    )  # fmt: skip


def questions(records: Sequence[SaeRecord]) -> str:
    """Is supervision worth it, are few latents enough, does sparsity help over raw channels."""
    lines = []
    by_name: dict[str, dict[str, float]] = {}
    for metric in ("pair_score", "pair_score_text", "probe_labels", "disentangle"):
        for variant, row in concept_scores(records, metric).items():
            own = by_name.setdefault(f"{metric}|{variant[0]}", {})
            for concept, value in row.items():
                own[concept] = max(value, own.get(concept, value))

    def compared(metric: str, a: str, b: str) -> str | None:
        left, right = by_name.get(f"{metric}|{a}"), by_name.get(f"{metric}|{b}")
        if not left or not right:
            return None
        (pair,) = paired({"a": left, "b": right})
        d = pair.difference
        ends = "" if d.low is None or d.high is None else (
            f" [{number(d.low, 3)}, {number(d.high, 3)}]"
        )  # fmt: skip
        p = "" if pair.p is None else f", p = {number(pair.p, 3)}"
        return (
            f"{SAE_METRICS[metric].title}, {escape(a)} minus {escape(b)}: "
            f"{number(d.value or 0.0, 3)}{ends} over {d.n} attributes{p}."
        )

    asked = (
        ("Do aligned latents exist that an unsupervised choice does not find? Slots bound to "
         "labels against the default dictionary, latents chosen by labels and by text.",
         [compared("pair_score", "concept_slots", "top_k"),
          compared("pair_score_text", "concept_slots", "top_k"),
          compared("disentangle", "concept_slots", "top_k")]),
        ("Are few enough? Interchange at every k, mean over attributes.", [_by_k(records)]),
        ("Does sparsity help at all over raw channels?",
         [compared(m, "top_k", "raw_channels")
          for m in ("pair_score", "probe_labels", "disentangle")]),
        ("Does training help over an untrained dictionary?",
         [compared(m, "top_k", "untrained")
          for m in ("pair_score", "probe_labels", "disentangle")]),
    )  # fmt: skip
    for question, answers in asked:
        known = [a for a in answers if a]
        if known:
            lines += [f"**{question}**", "", *(f"- {a}" for a in known), ""]
    return "\n".join(lines).rstrip()


def _by_k(records: Sequence[SaeRecord]) -> str | None:
    parts = []
    for row in rows_of(records):
        if row.variant[0] not in ("top_k", "raw_channels", "oracle"):
            continue
        ks = sorted(
            {
                int(name.removeprefix("disentangle.k"))
                for r in row.records
                for measured in r.measurements.values()
                for name in measured
                if name.startswith("disentangle.k")
            }
        )
        shown = ", ".join(
            f"k = {k}: {number(sum(v) / len(v), 2)}"
            for k in ks
            if (v := row.values(f"disentangle.k{k}"))
        )
        target = f" (L0 {row.variant[3]})" if row.variant[3] else ""
        parts.append(f"{row.label}{target}: {shown}")
    return "; ".join(parts) if parts else None
