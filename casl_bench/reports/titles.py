"""What stands above tables: what was measured, and whether it may be compared."""

from __future__ import annotations

from collections.abc import Sequence

from casl_bench.records.record import RunRecord
from casl_bench.reports.grouping import Group
from casl_bench.reports.markdown import escape

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
