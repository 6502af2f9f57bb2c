"""SIGINT and SIGTERM as one exception, and which of them came: code in C may make it another.

Imports nothing else of the package, so that a command can be stopped while that is loaded.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143

came: list[int] = []
"""Signals since the last `watched` began, those that were swallowed included."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def watched() -> Iterator[None]:
    """Within the block a signal raises KeyboardInterrupt, and is in `came`.

    While modules load it waits for them, up to 5 s: an exception in the midst of torch's own start
    aborts Python.
    """
    came.clear()
    waiting: list[threading.Timer] = []
    since = float("inf")

    def again(signum: int) -> None:
        waiting.clear()
        send = getattr(signal, "pthread_kill", lambda thread, s: signal.raise_signal(s))
        send(threading.main_thread().ident, signum)  # which may be asleep

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal since
        came.append(signum)
        since = min(since, time.monotonic())
        while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
            frame = frame.f_back
        if frame is None or time.monotonic() - since > 5:
            raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt
        if not waiting:
            waiting.append(threading.Timer(0.05, again, [signum]))
            waiting[0].daemon = True
            waiting[0].start()

    both = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in both}
    try:
        yield
    finally:
        for timer in waiting:
            timer.cancel()
        for each, handler in before.items():
            signal.signal(each, handler)


def say_stopped(error: BaseException) -> int:
    """One line on stderr and the exit code, for what a stop has raised or has become."""
    term = isinstance(error, Terminated) or signal.SIGTERM in came[-1:]
    how = "terminated" if term else "interrupted"
    print(f"{how}; run the same command again to go on", file=sys.stderr)
    return EXIT_TERMINATED if term else EXIT_INTERRUPTED
