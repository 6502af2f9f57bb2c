"""Which settings a tuning sweep tries: a method's default, then points of the grid it declares."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from pydantic import JsonValue

from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import UsageError, unknown_name
from casl_bench.methods.method import METHODS
from casl_bench.runs.planning.config import Suite
from casl_bench.runs.planning.plan import make_method

BUDGET_FIELDS = ("fit_steps", "batch_size")
"""What decides how much a fit computes: equal for all trials, so never part of a search space."""
MAX_POINTS = 100_000

Space = Mapping[str, tuple[JsonValue, ...]]


@dataclass(frozen=True)
class Trial:
    """One setting of a method to be tried.

    Attributes:
        number: 0 is the default.
        settings: over the method's defaults.
    """

    number: int
    settings: dict[str, JsonValue]


def with_settings(suite: Suite, name: str, settings: dict[str, JsonValue]) -> Suite:
    """The suite with these settings for one method, and the defaults for every other."""
    return suite.model_copy(update={"settings": {name: settings}})


def search_space(name: str) -> Space:
    """What a method's classmethod `search_space` declares; empty for a method without one.

    Raises:
        UsageError: if it is not a non-empty tuple of JSON values for each of some of the method's
            settings, or if it varies the budget.
    """
    declare = getattr(METHODS.factory(name), "search_space", None)
    declared = {} if declare is None else declare()
    where = f"search_space of '{name}'"
    fields = type(METHODS.create(name).config).model_fields
    for field, values in declared.items():
        if field not in fields:
            error = unknown_name("setting", field, fields)
            raise UsageError(error.what, where=where, mend=error.mend)
        if field in BUDGET_FIELDS:
            raise UsageError(
                f"it varies '{field}'", where=where, mend="all trials are given the same budget"
            )
        if not isinstance(values, tuple | list) or not values or not _is_json(values):
            raise UsageError(
                f"'{field}' has no values to try", where=where, mend="give a tuple of JSON values"
            )
    if prod(len(v) for v in declared.values()) > MAX_POINTS:
        raise UsageError(f"it has more than {MAX_POINTS:,} points", where=where, mend="cut it")
    return {field: tuple(declared[field]) for field in sorted(declared)}


def draw_trials(name: str, suite: Suite, count: int, seed: int) -> tuple[Trial, ...]:
    """The trials of one method: its default, then `count - 1` other points of its space.

    Points are walked in the order of their hash with the seed and the method's name: a uniform
    draw without repetition, that neither the order of fields nor the other methods change, and of
    which a smaller count is the beginning. A point that is the default in other words is skipped.

    Args:
        name: of the method.
        suite: its fit budget is given to every trial.
        count: trials, at least 1.
        seed: of the draw.

    Returns:
        `count` trials; the default alone for a method without a search space.

    Raises:
        UsageError: if the space is at fault or holds too few points.
    """
    space = search_space(name)
    trials = [Trial(0, {})]
    if not space:
        return tuple(trials)
    points = [
        dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
    ]
    points.sort(key=lambda point: hash_json([seed, "tuning", name, point]))
    tried = [_config(name, suite, {})]
    for point in points:
        if len(trials) == count:
            break
        config = _config(name, suite, point)
        if config not in tried:
            tried.append(config)
            trials.append(Trial(len(trials), {field: config[field] for field in point}))
    if len(trials) < count:
        raise UsageError(
            f"it holds {len(trials)} settings with the default, fewer than {count} trials",
            where=f"search_space of '{name}'",
            mend=f"ask for --trials {len(trials)}, or enlarge it: every method gets as many",
        )
    return tuple(trials)


def _config(name: str, suite: Suite, point: dict[str, JsonValue]) -> dict[str, JsonValue]:
    method = make_method(name, with_settings(suite, name, point))
    return method.config.model_dump(mode="json")


def _is_json(values: object) -> bool:
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
