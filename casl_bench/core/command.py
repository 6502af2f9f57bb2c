"""A command's process: its standard streams, its exit code, every fault as one line on stderr."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from casl_bench.core import stops
from casl_bench.core.errors import BenchError, UsageError, as_line
from casl_bench.core.text import shortened, visible

EXIT_USAGE, EXIT_INCOMPLETE = 2, 3


class _Unforeseen(Exception):
    """An error of ours; says where its traceback is."""


class _Stream(io.FileIO):
    """The file of a standard stream. What it cannot take is dropped, and the first reason kept."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        """All of the bytes, or as many as were taken at once."""
        try:
            while (count := super().write(data)) is None:  # it was set not to wait
                select.select([], [self], [])
        except OSError as error:
            self.fault = self.fault or error
            return len(data)
        return count


class _Text(io.TextIOWrapper):
    def close(self) -> None:
        """Nothing: a plugin that closes it would take our words as well."""


@contextmanager
def _standard_streams() -> Iterator[Callable[[], OSError | None]]:
    """Within the block printing never fails: exit codes speak of the work, not of its display.

    Files and pipes are written in UTF-8, whatever the locale, and a terminal in its own encoding,
    with escapes for what that lacks. What cannot be written is lost. Yields a function that gives,
    once, why output on stdout was lost; None where all of it was taken, or its reader went away.
    """
    for descriptor in range(3):  # a file that is opened later would be taken for a closed stream
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    before = sys.stdout, sys.stderr
    out, err = _opened(sys.stdout, sys.__stdout__, 1), _opened(sys.stderr, sys.__stderr__, 2)
    sys.stdout, sys.stderr = out, err

    def lost() -> OSError | None:
        out.flush()
        raw = getattr(getattr(out, "buffer", None), "raw", None)
        if not isinstance(raw, _Stream) or raw.fault is None:
            return None
        fault, raw.fault = raw.fault, None
        return None if fault.errno == errno.EPIPE else fault

    try:
        yield lost
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _opened(stream: TextIO, real: TextIO | None, descriptor: int) -> TextIO:
    """The stream anew, on a `_Stream`; itself where it is a test's or a console of Windows."""
    shown = stream is not None and stream.isatty()
    if stream is not real or (shown and sys.platform == "win32"):
        return stream
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.flush()
    encoding = stream.encoding if shown else "utf-8"
    raw = io.BufferedWriter(_Stream(descriptor, "w", closefd=False))
    return _Text(raw, encoding, errors="backslashreplace", line_buffering=True)


def say(line: str) -> None:
    """Print a line on stderr, in which names steer no terminal."""
    print(shortened(visible(line)), file=sys.stderr)


def show(text: str) -> None:
    """Print lines on stdout, likewise."""
    if text:
        click.echo(visible(text.removesuffix("\n"), keep="\n"))


@contextmanager
def log_of_errors(out: Path) -> Iterator[None]:
    """Keep the traceback of an unforeseen error in the run folder, where there is one."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        log = out / "error.log"
        if out.is_dir() and not stops.came:
            log.write_text(traceback.format_exc(), encoding="utf-8")
            raise _Unforeseen(f"its traceback is in {log}") from error
        raise


@contextmanager
def _asides_in_a_line() -> Iterator[None]:
    """Within the block what Python itself reports, of threads and finalizers, is one line each."""

    def tell(fault: Any) -> None:
        if not (stops.came or issubclass(fault.exc_type, SystemExit)):
            say(f"warning: a thread or finalizer failed: {as_line(fault.exc_value)}")

    before = threading.excepthook, sys.unraisablehook
    threading.excepthook = sys.unraisablehook = tell
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before


def exit_code_of(
    action: Callable[[], int | str], debug: bool = False, gone: Mapping[str, str] | None = None
) -> int:
    """Run an action, tell its fault in one line on stderr, and return the exit code.

    An action returns its own exit code, or the text that it was asked for: this is printed, and
    exit code 2 says that it could not be. What else an action prints may be lost without a change
    of its exit code, which one line says. `gone`: option of before → what to use instead.
    """
    with _standard_streams() as lost, _asides_in_a_line(), stops.watched():
        code = _code_of(action, lost, debug, gone or {})
        if fault := lost():
            say(f"warning: output is lost, standard output cannot be written: {fault.strerror}")
        return code


def _code_of(
    action: Callable[[], int | str],
    lost: Callable[[], OSError | None],
    debug: bool,
    gone: Mapping[str, str],
) -> int:
    try:
        done = action()
        if isinstance(done, int):
            return done
        show(done)
        if fault := lost():
            raise UsageError(
                f"standard output cannot be written: {fault.strerror}",
                hint="free the disk or write elsewhere",
            )
        return 0
    except (KeyboardInterrupt, click.Abort) as error:
        return stops.say_stopped(error)
    except click.NoSuchOption as error:
        say(f"error: {_gone_or(error, error.option_name, gone)}")
        return EXIT_USAGE
    except click.ClickException as error:
        say(f"error: {_gone_or(error, '', gone)}")
        return EXIT_USAGE
    except BenchError as error:
        if debug:
            traceback.print_exc()
        say(f"error: {error}")
        return error.exit_code
    except BaseException as error:  # noqa: BLE001 - no user meets a traceback
        if debug:
            traceback.print_exc()
        if stops.came:  # such as the SystemError that CPython's parser makes of it
            return stops.say_stopped(error)
        cause = error.__cause__ if isinstance(error, _Unforeseen) and error.__cause__ else error
        more = str(error) if isinstance(error, _Unforeseen) else "--debug prints its traceback"
        if isinstance(cause, OSError) and isinstance(cause.filename, str | bytes):
            place = os.fsdecode(cause.filename)
            say(f"error: {cause.strerror or type(cause).__name__} ({place}); {more}")
            return EXIT_USAGE
        if "<module>" in [f.f_code.co_name for f, _ in traceback.walk_tb(cause.__traceback__)]:
            say(f"error: a library does not load: {as_line(cause)}; mend it or the environment")
            return EXIT_USAGE
        say(f"error: unforeseen: {as_line(cause)}; {more}")
        return EXIT_INCOMPLETE


def _gone_or(error: click.ClickException, option: str, gone: Mapping[str, str]) -> str:
    """The error of click in one line, or what is to be used in place of the option."""
    if option in gone:
        return f"{option} is gone: {gone[option]}"
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context is not None else "casl-bench"
    return f"{error.format_message()} (see {command} --help)".replace("\n", " ")
