"""Names and places on the command line → what exists; a mistyped one ends the command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from casl_bench.core.errors import UsageError, unknown_name
from casl_bench.core.registry import discover, import_baselines, load_plugin
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.domain import DOMAINS
from casl_bench.domains.options import DomainOptions, parse_assignments
from casl_bench.methods.method import METHODS
from casl_bench.metrics.metric import METRICS
from casl_bench.runs.plan import card_of, info_of


def resolve_methods(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order asked for, each once; "all" stands for every entrant.

    Raises:
        UsageError: on an unknown name, with the nearest one offered.
    """
    chosen: dict[str, None] = {}
    for name in names:
        if name == "all":
            chosen |= dict.fromkeys(n for n in METHODS if not info_of(n).control)
        else:
            info_of(name)  # raises for an unknown name
            chosen[name] = None
    if not chosen:
        reasons = "; ".join(f"{m}: {r}" for m, r in sorted(METHODS.broken.items()))
        raise UsageError("there is no method to run", hint=reasons or "name one")
    return tuple(chosen)


def resolve_datasets(names: Iterable[str], domain_kind: str = "synth") -> tuple[str, ...]:
    """Names in the order asked for, each once; "all" stands for every data set of one kind.

    Args:
        names: as asked for.
        domain_kind: of the data sets that "all" stands for: rendered ones need no files.

    Raises:
        UsageError: on an unknown name, with the nearest one offered.
    """
    chosen: dict[str, None] = {}
    for name in names:
        if name == "all":
            chosen |= dict.fromkeys(
                d for d in DATASETS.names() if card_of(d).domain_kind == domain_kind
            )
        else:
            DATASETS.factory(name)  # raises for an unknown name
            chosen[name] = None
    return tuple(chosen)


def resolve_concepts(names: Iterable[str], datasets: Iterable[str]) -> tuple[str, ...] | None:
    """Names in the order asked for, each once; None for "all".

    Raises:
        UsageError: on a name that none of the data sets has.
    """
    chosen = tuple(dict.fromkeys(names))
    if "all" in chosen:
        return None
    datasets = tuple(datasets)
    known = {c.name for d in datasets for c in card_of(d).concepts}
    for name in chosen:
        if name not in known:
            error = unknown_name("concept", name, known)
            raise UsageError(error.what, where=", ".join(datasets), hint=error.hint)
    return chosen


def resolve_method_weights(values: tuple[str, ...], methods: Iterable[str]) -> dict[str, Path]:
    """Method → folder, of `--method-weights METHOD=FOLDER`.

    Raises:
        UsageError: on a method that is not run, or a folder that is not there.
    """
    methods = tuple(methods)
    found = {}
    for name, folder in parse_assignments(values, "--method-weights").items():
        if name not in methods:
            error = unknown_name("method", name, methods)
            raise UsageError(error.what, where="--method-weights", hint=error.hint)
        if not Path(folder).is_dir():
            raise UsageError("no such folder", where=f"--method-weights {name}={folder}")
        found[name] = Path(folder)
    return found


def checked_options(given: Mapping[str, Any], datasets: Iterable[str]) -> DomainOptions:
    """Options of the domains of these data sets, from the command line's values.

    Raises:
        UsageError: on a data set that is not run, or on options that none of them has a use for.
    """
    datasets = tuple(datasets)
    backbone = parse_assignments(given["backbone"], "--backbone")
    for name in backbone:
        if name and name not in datasets:
            error = unknown_name("dataset", name, datasets)
            raise UsageError(error.what, where="--backbone", hint=error.hint)
    options = DomainOptions(**{**given, "backbone": backbone})
    unused = options.unused_by_rendered()
    if unused and all(card_of(d).domain_kind == "synth" for d in datasets):
        raise UsageError(
            f"{', '.join(unused)} would change nothing: {', '.join(datasets)} "
            "brings its own models and images",
            hint="name a real data set with --datasets, or leave it out",
        )
    return options


# Makes everything with a name known: our modules, installed packages, the user's own files.


def load_registries(plugins: Sequence[Path] = ()) -> None:
    """Import every place where entrants may live. A module that fails takes no other down.

    Raises:
        UsageError: if a plugin file is absent or fails to import.
    """
    discover("casl_bench.domains", DATASETS, DOMAINS)
    discover("casl_bench.domains.rendering", DATASETS)
    discover("casl_bench.photos", DATASETS, DOMAINS)
    discover("casl_bench.metrics", METRICS)
    discover("casl_bench.methods", METHODS)
    discover(import_baselines(), METHODS)
    for plugin in plugins:
        load_plugin(plugin)
