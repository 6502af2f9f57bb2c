"""Records → markdown, and nothing but records: the same records give the same bytes.

Records are grouped by what makes them comparable (world, dataset, suite, seed); data sets of one
world, suite and seed have a part in common at the top. A number that is not there is a dash with
its reason, and a mean over concepts is given only where every concept has its number: a mean over
fewer is another quantity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from casl_bench.records.comparison import ALL
from casl_bench.records.record import RunRecord
from casl_bench.reports.comparison_tables import comparison_section, level_section
from casl_bench.reports.cost_sharing import cost_sharing_section
from casl_bench.reports.cost_tables import cost_section
from casl_bench.reports.drift_tables import drift_section
from casl_bench.reports.edit_tables import classifier_section, concept_section, edit_section
from casl_bench.reports.grouping import Group, section
from casl_bench.reports.markdown import escape, table
from casl_bench.reports.model_tables import (
    probe_section,
    reconstruction_section,
    sae_section,
    scorer_section,
)
from casl_bench.reports.overall import overall_text
from casl_bench.reports.titles import group_title


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
