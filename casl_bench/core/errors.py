"""The one error a user is meant to read: what went wrong, where, and a hint how to repair it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from casl_bench.core.text import shortened

if TYPE_CHECKING:
    from pydantic import ValidationError


class BenchError(Exception):
    """A fault that ends the command with one line on stderr and no traceback.

    `what` is the fault in a few words, lower case, without a full stop; `where` the file, option or
    name concerned, if `what` does not say it; `hint` what the user can do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what, where, hint)

    def __reduce__(self) -> tuple[partial[BenchError], tuple[()]]:
        """Errors come whole out of worker processes."""
        return partial(type(self), self.what, where=self.where, hint=self.hint), ()

    def __str__(self) -> str:
        parts = [self.what if not self.where else f"{self.what} ({self.where})"]
        if self.hint:
            parts.append(self.hint)
        return "; ".join(parts).replace("\n", " ")


class UsageError(BenchError):
    """Bad options or configuration: nothing ran. Exit code 2."""

    exit_code = 2


class InvalidBenchmarkError(BenchError):
    """The benchmark itself cannot be trusted: corrupt artifact, scorer under its floor. Exit 5."""

    exit_code = 5


class InputError(BenchError, ValueError):
    """A value handed to the library is out of its documented range or shape."""

    exit_code = 2


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UsageError:
    """The error for a mistyped name, with the nearest valid one offered."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    offer = f"did you mean '{near[0]}'? " if near else ""
    hint = f"{offer}(known: {', '.join(names)})"
    return UsageError(f"unknown {kind} '{name}'", where=where, hint=hint)


def message_of(error: BaseException) -> str:
    """An error's message in one line, whatever code it is of: giving it may itself fail."""
    try:
        return shortened(" ".join(str(error).split()))
    except Exception as fault:  # noqa: BLE001
        return f"its message cannot be shown ({type(fault).__name__})"


def as_line(error: BaseException) -> str:
    """`Type: message`, in one line."""
    return f"{type(error).__name__}: {message_of(error)}"


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic found wrong: `place: message`."""
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else fault["msg"]
