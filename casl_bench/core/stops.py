"""SIGINT and SIGTERM as one exception, and which of them came: code in C may make it another.

Imports nothing else of the package, so that a command can be stopped while that is loaded.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143

came: list[int] = []
"""Signals since the last `watched` began, those that were swallowed included."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def watched() -> Iterator[None]:
    """Within the block a signal raises KeyboardInterrupt, and is in `came`."""
    came.clear()
    both = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    before = {each: signal.signal(each, _stop) for each in both}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    came.append(signum)
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


def say_stopped(error: BaseException) -> int:
    """One line on stderr and the exit code, for what a stop has raised or has become."""
    term = isinstance(error, Terminated) or signal.SIGTERM in came[-1:]
    how = "terminated" if term else "interrupted"
    print(f"{how}; run the same command again to go on", file=sys.stderr)
    return EXIT_TERMINATED if term else EXIT_INTERRUPTED
