"""Whatever is given for a number on the command line, it is within bounds or refused in one line.

All commands are asked for their options, so one that is added is tried as well.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from hypothesis import given
from hypothesis import strategies as st

from casl_bench.cli import main as cli
from casl_bench.core.option_types import BoundedFloat, BoundedInt
from casl_bench.runs.suites import LONGEST_CELL, Execution, RunConfig, suite

RUN: dict[str, Any] = {
    "methods": ("casl",), "datasets": ("rendered_faces",), "concepts": None, "seed": 0,
    "suite": suite("quick"), "device": "cpu", "out": Path("run"),
}  # fmt: skip
NUMBERS = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(["nan", "-nan", "inf", "-Infinity", "1e400", "1e-400", "9" * 5000, "٣", ""]),
)


def options(
    command: click.Command = cli.command, name: str = "casl-bench"
) -> Iterator[tuple[str, click.Parameter]]:
    """The command's own options and those of all commands below it."""
    for option in command.params:
        yield f"{name} {option.opts[0]}", option
    if isinstance(command, click.Group):
        context = click.Context(command)
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from options(found, f"{name} {below}")


ALL = dict(options())
BOUNDED = {
    name: option
    for name, option in ALL.items()
    if isinstance(option.type, BoundedFloat | BoundedInt)
}


def test_every_option_that_takes_a_number_has_bounds() -> None:
    numbers = (click.types.FloatParamType, click.types.IntParamType)
    assert {name for name, option in ALL.items() if isinstance(option.type, numbers)} == set(
        BOUNDED
    )
    assert {"casl-bench --jobs", "casl-bench tune --trials", "casl-bench train unet --seed",
            "casl-bench study gate-rates --shared"} <= set(BOUNDED)  # fmt: skip


@given(name=st.sampled_from(sorted(BOUNDED)), text=NUMBERS)
def test_a_number_is_within_its_bounds_or_refused(name: str, text: str) -> None:
    kind = BOUNDED[name].type
    assert isinstance(kind, BoundedFloat | BoundedInt)
    try:
        number = kind.convert(text, None, None)
    except click.BadParameter:
        return
    assert math.isfinite(number) and kind.min <= number <= kind.max


@given(seconds=NUMBERS, gigabytes=NUMBERS)
def test_what_is_let_through_a_run_takes(seconds: str, gigabytes: str) -> None:
    taken = {
        "--cell-timeout": (seconds, lambda number: Execution(cell_timeout=number)),
        "--memory-budget": (gigabytes, lambda number: RunConfig(**RUN, memory_budget=number)),
    }
    for name, (text, take) in taken.items():
        with contextlib.suppress(click.BadParameter):
            take(BOUNDED[f"casl-bench {name}"].type.convert(text, None, None))


def test_the_system_can_time_the_longest_cell() -> None:
    with tempfile.TemporaryFile("w") as trace:
        faulthandler.dump_traceback_later(LONGEST_CELL, file=trace)
        faulthandler.cancel_dump_traceback_later()
