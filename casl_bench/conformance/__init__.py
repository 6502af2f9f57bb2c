"""Checks for authors of methods and data sets.

A rule is a small function whose docstring names it; check_method.py and check_dataset.py hold them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from casl_bench.core.errors import as_line, message_of

if TYPE_CHECKING:
    from torch import Tensor

S = TypeVar("S")


class CheckFailed(AssertionError):
    """A rule is broken; the message says how."""


class NotRun(Exception):
    """A check that means nothing because one that it builds upon has failed."""


class RuleBook(Generic[S]):
    """Rules about one kind of subject, in the order in which they are checked."""

    def __init__(self) -> None:
        self.rules: dict[str, Callable[[S], None]] = {}

    def rule(self, check: Callable[[S], None]) -> Callable[[S], None]:
        """Decorator: the first line of the function's docstring is the rule's name."""
        name = (check.__doc__ or check.__name__).strip().partition("\n")[0].rstrip(".")
        if not name.startswith("U-Net"):
            name = name[0].lower() + name[1:]
        self.rules[name] = check
        return check

    def checks(self, subject: S) -> Iterator[tuple[str, Callable[[], None]]]:
        """(name, callable) of every rule; the callable raises where the subject breaks it."""
        for name, check in self.rules.items():
            yield name, partial(check, subject)


def require(condition: bool, message: str) -> None:
    """Raise CheckFailed with this message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def require_lower_snake(what: str, name: str) -> None:
    """Raise CheckFailed unless a name is lower_snake; the symbol x_T keeps its capital."""
    plain = re.sub(r"(?<![a-z0-9])x_T(?![a-z0-9])", "x_t", name)
    require(bool(re.fullmatch(r"[a-z][a-z0-9_]*", plain)), f"{what} '{name}' is not lower_snake")


def require_equal(left: Tensor, right: Tensor, what: str) -> None:
    """Raise CheckFailed unless two tensors are equal bit for bit, dtype included."""
    import torch  # not before the command is watched for signals

    if left.shape != right.shape or left.dtype != right.dtype:
        kinds = [f"{t.dtype} {list(t.shape)}" for t in (left, right)]
        raise CheckFailed(f"{what} differ in kind: {kinds[0]} and {kinds[1]}")
    if not torch.equal(left, right):
        gap = float((left.double() - right.double()).abs().max())
        raise CheckFailed(f"{what} differ by up to {gap:.3g}; they must be equal bit for bit")


def first_line(error: BaseException) -> str:
    """An error as one line: its type, unless that is one of ours, and the start of its message."""
    return message_of(error) if isinstance(error, CheckFailed | NotRun) else as_line(error)
