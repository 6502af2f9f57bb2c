"""One part for several data sets of one world, suite and seed."""

from __future__ import annotations

from collections.abc import Sequence

from casl_bench.records.record import RunRecord
from casl_bench.reports.comparison_tables import comparison_section
from casl_bench.reports.cost_sharing import cost_sharing_section
from casl_bench.reports.cost_tables import cost_section
from casl_bench.reports.drift_tables import drift_overall_section
from casl_bench.reports.edit_tables import edit_section
from casl_bench.reports.grouping import Group
from casl_bench.reports.model_tables import datasets_section, probe_overall_section
from casl_bench.reports.titles import overall_title


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
