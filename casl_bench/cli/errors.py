"""Exit codes, and every fault of a command as one line on stderr."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from casl_bench.core.errors import BenchError
from casl_bench.core.text import visible

EXIT_USAGE, EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 3, 130, 143

GONE = {
    "gate-rates": "use casl-bench study gate-rates RUN",
    "push": "copy the run folder with the client of your store, such as aws s3 sync or rclone",
    "trend": "send DIR/*.json of casl-bench gate --out DIR to Bencher or github-action-benchmark",
    "--kernels": "leave it out: no setting but the default was ever faster",
    "--no-cache": "use --cache FOLDER with a folder of this run's own",
    "--probe": "leave it out: --kernels is gone",
    "--no-probe": "leave it out: --kernels is gone",
    "--compile": "leave it out: --kernels is gone",
    "--speed": "use pytest-benchmark's --benchmark-compare-fail",
    "--accept": "keep gate.json of casl-bench gate --out DIR, or send it to Bencher",
    "--history": "keep gate.json of casl-bench gate --out DIR, or send it to Bencher",
}
"""Commands and options of before → what to use instead."""


class Terminated(BaseException):
    """SIGTERM came."""


class _Unforeseen(Exception):
    """An error of ours; says where its traceback is."""


def say(line: str) -> None:
    """Print a line on stderr, in which names steer no terminal."""
    print(visible(line), file=sys.stderr)


def show(text: str) -> None:
    """Print lines on stdout, likewise."""
    click.echo(visible(text.removesuffix("\n"), keep="\n"))


@contextmanager
def log_of_errors(out: Path) -> Iterator[None]:
    """Keep the traceback of an unforeseen error in the run folder, where there is one."""
    try:
        yield
    except (BenchError, KeyboardInterrupt, Terminated):
        raise
    except Exception as error:
        log = out / "error.log"
        if out.is_dir():
            log.write_text(traceback.format_exc(), encoding="utf-8")
            raise _Unforeseen(f"its traceback is in {log}") from error
        raise


def exit_code_of(action: Callable[[], int], debug: bool) -> int:
    """Run an action, tell its fault in one line, and return the exit code."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return action()
    except (KeyboardInterrupt, click.Abort):
        say("interrupted; run the same command again to go on")
        return EXIT_INTERRUPTED
    except Terminated:
        say("terminated; run the same command again to go on")
        return EXIT_TERMINATED
    except click.NoSuchOption as error:
        say(f"error: {_gone_or(error, error.option_name)}")
        return EXIT_USAGE
    except click.ClickException as error:
        say(f"error: {_gone_or(error, '')}")
        return EXIT_USAGE
    except BenchError as error:
        if debug:
            traceback.print_exc()
        say(f"error: {error}")
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: no user meets a traceback
        if debug:
            traceback.print_exc()
        fault = error.__cause__ if isinstance(error, _Unforeseen) and error.__cause__ else error
        more = str(error) if isinstance(error, _Unforeseen) else "--debug prints its traceback"
        line = " ".join(f"{type(fault).__name__}: {fault}".split())
        say(f"error: unforeseen: {line}; {more}")
        return EXIT_INCOMPLETE
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _gone_or(error: click.ClickException, option: str) -> str:
    """The error of click in one line, or what is to be used in place of the option."""
    if option in GONE:
        return f"{option} is gone: {GONE[option]}"
    return f"{error.format_message()} (see casl-bench --help)".replace("\n", " ")
