"""What a reader should know of a row, in one letter a fault, with a legend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from casl_bench.report.markdown import DASH, escape
from casl_bench.results.record import RunRecord

NOT_CLEAN = "code not clean"
"""Made by a checkout with changes, or by one of which that is not known."""

_LETTERS = {
    "not reached": ("N", "no strength of the grid has the headline's effect"),
    "wrong way": ("W", "most images, or the effect as a whole, went against what was asked"),
    "non-monotone": ("M", "more strength gave less effect before 75 % of the full one was reached"),
    "one judge only": ("J", "another classifier sees less than half of the target's change"),
    "perceptual guard": ("P", "on average the picture went more than half the way to another"),
    "identity guard": ("I", "on average likeness went more than half the way to another's"),
    "guided by a scorer": ("G", "optimised against a scorer, and judged by another"),
    "pretrained weights": ("T", "somebody else fitted it"),
    "EPR undefined": ("U", "the others moved by less than the noise floor: no EPR raw"),
    NOT_CLEAN: ("D", "made by code that is not a clean commit"),
}


def count_flags(records: Iterable[RunRecord]) -> dict[str, int]:
    """Flag → number of records that have it."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record.flags)
        if record.provenance.git_dirty is not False:
            counts[NOT_CLEAN] += 1
    return dict(sorted(counts.items(), key=lambda item: (_place(item[0]), item[0])))


def short(flags: Mapping[str, int]) -> str:
    """As a cell shows them: `N 2, J 1`; a flag without a letter by its name."""
    if not flags:
        return ""
    return ", ".join(f"{_letter(name)} {count}" for name, count in flags.items())


def legend(shown: Iterable[Mapping[str, int]]) -> str:
    """One line a flag that any row has; empty where there is none."""
    names = sorted({n for flags in shown for n in flags}, key=lambda n: (_place(n), n))
    lines = [
        f"**{letter}** {escape(name)}: {what}" if name in _LETTERS else f"**{escape(name)}**"
        for name in names
        for letter, what in [_LETTERS.get(name, (DASH, ""))]
    ]
    return f"Flags, each with its number of cells: {'; '.join(lines)}." if lines else ""


def _letter(name: str) -> str:
    return _LETTERS[name][0] if name in _LETTERS else escape(name)


def _place(name: str) -> int:
    return list(_LETTERS).index(name) if name in _LETTERS else len(_LETTERS)
