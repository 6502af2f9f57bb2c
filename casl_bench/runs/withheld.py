"""What a method may not reach while it works: the renderer, which knows every answer.

A method that reads its task alone never notices. One that loads more pictures than it is given, or
looks up whose perfect edit is asked for, fails. It keeps honest code honest: a program that means
to get around it can, see `docs/leaderboards.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

from casl_bench.core.errors import InputError
from casl_bench.domains.rendering.renderer import Drawing

_Draw = Mapping[str, Callable[..., Any]]
_DRAW: _Draw = {name: vars(Drawing)[name] for name in ("render", "render_parallel")}


def _refuse(*_: object) -> NoReturn:
    raise InputError(
        "a method may not draw or load pictures of a rendered data set",
        hint="all that it may see is in its task and in the inversions it is to edit",
    )


@contextmanager
def _drawing_by(functions: _Draw) -> Iterator[None]:
    before = {name: vars(Drawing)[name] for name in functions}
    for name, function in functions.items():
        setattr(Drawing, name, function)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(Drawing, name, function)


def withheld() -> AbstractContextManager[None]:
    """Within the block nothing in this process draws: InputError where it is tried."""
    return _drawing_by(dict.fromkeys(_DRAW, _refuse))


def granted() -> AbstractContextManager[None]:
    """Within the block all may draw again, as a control does by its `task.oracle`."""
    return _drawing_by(_DRAW)
