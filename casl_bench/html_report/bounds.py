"""Controls and what each must show: whether a data set's numbers may be believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from casl_bench.comparison import controls
from casl_bench.comparison.controls import Records
from casl_bench.records.record import RunRecord


@dataclass(frozen=True)
class Bound:
    """A control, what it must show, and what it shows.

    Attributes:
        control: its name.
        must: what holds if metrics, scorers and runner work.
        faults: what does not hold, as sentences; empty where all does.
        was_run: whether any cell of it is done; where none is, the bound says nothing.
    """

    control: str
    must: str
    faults: tuple[str, ...]
    was_run: bool

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.faults:
            return "broken"
        return "holds" if self.was_run else "not run"


_BOUNDS: tuple[tuple[str, str, Callable[[Records], list[str]]], ...] = (
    ("identity", "moves no attribute, and has no EPR", controls.identity_bound),
    (
        "oracle",
        f"flips {controls.ORACLE_FLIPS:.0%} of the images, and no method has more than "
        f"{controls.SURPASSED:g} times its EPR+",
        controls.oracle_bound,
    ),
    (
        "random_direction",
        f"no draw has {controls.DRAWS_APART:g} times the EPR of the others, and none beside a "
        "method flips as many images as the oracle",
        controls.random_bound,
    ),
    (
        "shuffled",
        f"moves the target by at most {controls.SHUFFLED_SHARE:.0%} of the full effect, with no "
        "EPR+ over chance",
        controls.shuffled_bound,
    ),
    ("inverted", "has a negative EPR+, and the oracle's raw EPR", controls.inverted_bound),
    ("destroy", "is seen by the guards of quality and identity", controls.destroy_bound),
    (
        "pixel_attack",
        "wins raw EPR by the classifier it attacks, and the others see at most "
        f"{controls.FOOLED_SHARE:.0%} of it",
        controls.pixel_attack_bound,
    ),
)


def bounds_of(records: Sequence[RunRecord]) -> list[Bound]:
    """Every control's bound.

    Args:
        records: of one data set.
    """
    done = {r.method for r in records if r.kind == "edit" and r.control and r.status == "done"}
    return [Bound(name, must, tuple(of(records)), name in done) for name, must, of in _BOUNDS]
