"""The conformance suite: what the benchmark relies upon in every editing method, ours and yours.

The same checks serve `python -m casl_bench.testing my_method.py` and our own tests.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from casl_bench.testing.method_trial import MethodClass, MethodTrial
from casl_bench.testing.rules_of_editing import EDITING
from casl_bench.testing.rules_of_fitting import FITTING
from casl_bench.testing.rules_of_tidiness import TIDINESS

RULE_BOOKS = (FITTING, EDITING, TIDINESS)


def method_checks(method_class: MethodClass) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every check of a method class.

    The checks share one trial, made on first demand: they may be called in any order, or only
    some of them. The whole takes seconds. A method may define a classmethod `toy_config()` that
    returns settings for it; otherwise its defaults are used, with few `fit_steps` where it has
    such a setting.

    Args:
        method_class: as registered.

    Yields:
        (readable name, callable). The callable raises `CheckFailed`, or whatever the method
        raised, where the rule is broken, and `NotRun` where an earlier failure makes the check
        meaningless.
    """
    folder = tempfile.TemporaryDirectory(prefix="casl_bench_checks_")
    trial = MethodTrial(method_class, Path(folder.name).resolve())
    # The folder lives as long as the trial, which the checks keep.
    weakref.finalize(trial, folder.cleanup)
    for book in RULE_BOOKS:
        yield from book.checks(trial)
