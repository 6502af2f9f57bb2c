"""Commands and options of earlier versions: each answers in one line with what to use instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from casl_bench.core.errors import UsageError


def removed_option(
    name: str, instead: str, *, nargs: int = 1
) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """A hidden option that refuses to be given.

    Args:
        name: with its dashes.
        instead: what to use, for the end of the message.
        nargs: number of values that it took; 0 for a flag.
    """

    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            raise UsageError(f"{name} was removed", mend=instead)

    kind: dict[str, Any] = {"nargs": nargs} if nargs else {"is_flag": True}
    return click.option(name, hidden=True, expose_value=False, callback=refuse, **kind)


def removed_command(name: str, instead: str) -> click.Command:
    """A hidden command that refuses to run, whatever its arguments."""

    def refuse(arguments: tuple[str, ...]) -> None:
        raise UsageError(f"the command '{name}' was removed", mend=instead)

    return click.Command(
        name,
        callback=refuse,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        hidden=True,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
