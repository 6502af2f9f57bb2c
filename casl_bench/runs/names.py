"""Names on the command line → what exists, and `--list`; a mistyped one ends the command."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from casl_bench.core.errors import UsageError, unknown_name
from casl_bench.core.registry import Registry, discover, import_baselines, load_plugin
from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.domain import DOMAINS
from casl_bench.domains.options import DomainOptions, parse_assignments
from casl_bench.methods.method import METHODS, MethodInfo
from casl_bench.metrics.metric import METRICS, metric_infos
from casl_bench.metrics.precise_edits import PRECISE_EDITS_INFO
from casl_bench.results.record import DOMAIN_TITLES
from casl_bench.runs.plan import card_of, info_of
from casl_bench.runs.suites import SUITES
from casl_bench.sae.dictionary import SAES, dictionary_class, discover_dictionaries, is_folder
from casl_bench.sae.foreign import content_hash


def _chosen(
    names: Iterable[str], registry: Registry[Any], among_all: Callable[[str], bool]
) -> tuple[str, ...]:
    chosen: dict[str, None] = {}
    for name in names:
        if name == "all":
            chosen |= dict.fromkeys(n for n in registry if among_all(n))
        else:
            registry.factory(name)  # raises for an unknown name
            chosen[name] = None
    return tuple(chosen)


def resolve_methods(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order asked for, each once; "all" stands for all but the controls."""
    chosen = _chosen(names, METHODS, lambda name: not info_of(name).control)
    if not chosen:
        reasons = "; ".join(f"{m}: {r}" for m, r in sorted(METHODS.broken.items()))
        raise UsageError("there is no method to run", hint=reasons or "name one")
    return chosen


def resolve_datasets(names: Iterable[str], domain_kind: str = "synth") -> tuple[str, ...]:
    """Names in the order asked for, each once; "all" stands for all of one kind of domain."""
    return _chosen(names, DATASETS, lambda name: card_of(name).domain_kind == domain_kind)


def resolve_concepts(names: Iterable[str], datasets: Iterable[str]) -> tuple[str, ...] | None:
    """Names in the order asked for, each once, of any of the data sets; None for "all"."""
    chosen = tuple(dict.fromkeys(names))
    if "all" in chosen:
        return None
    datasets = tuple(datasets)
    cards = [card_of(d) for d in datasets]
    known = {c.name for card in cards for c in card.concepts}
    if not all(card.concepts for card in cards):  # only its files say what a data set shows
        return chosen
    for name in chosen:
        if name not in known:
            if any(name in card.not_carried for card in cards):
                raise UsageError(
                    f"'{name}' is no concept: h does not carry it",
                    where=", ".join(datasets),
                    hint=f"choose from: {', '.join(sorted(known))}",
                )
            raise unknown_name("concept", name, known, where=", ".join(datasets))
    return chosen


def resolve_method_weights(values: tuple[str, ...], methods: Iterable[str]) -> dict[str, Path]:
    """Method → folder, of `--method-weights METHOD=FOLDER`; both must be there."""
    methods = tuple(methods)
    found = {}
    for name, folder in parse_assignments(values, "--method-weights").items():
        if name not in methods:
            raise unknown_name("method", name, methods, where="--method-weights")
        if not Path(folder).is_dir():
            raise UsageError("no such folder", where=f"--method-weights {name}={folder}")
        found[name] = Path(folder)
    return found


def resolve_sae(name: str) -> tuple[str, str | None]:
    """`--sae` → a registered kind, or the absolute path of a folder and its weights' hash.

    Raises UsageError where there is neither.
    """
    if is_folder(name):
        path = Path(name).expanduser().resolve()
        return str(path), content_hash(path)
    return dictionary_class(name).info.name, None


def checked_options(given: Mapping[str, Any], datasets: Iterable[str]) -> DomainOptions:
    """Options of the domains of these data sets; UsageError where none has a use for one."""
    datasets = tuple(datasets)
    backbone = parse_assignments(given["backbone"], "--backbone")
    for name in backbone:
        if name and name not in datasets:
            raise unknown_name("dataset", name, datasets, where="--backbone")
    options = DomainOptions(**{**given, "backbone": backbone})
    unused = options.unused_by_rendered()
    if unused and all(card_of(d).domain_kind == "synth" for d in datasets):
        raise UsageError(
            f"{', '.join(unused)} would change nothing: {', '.join(datasets)} "
            "brings its own models and images",
            hint="name a real data set with --datasets, or leave it out",
        )
    return options


def load_registries(plugins: Sequence[Path] = ()) -> None:
    """Import every place where methods may live; of these, only a plugin must not fail."""
    discover("casl_bench.domains", DATASETS, DOMAINS)
    discover("casl_bench.domains.rendering", DATASETS)
    discover("casl_bench.photos", DATASETS, DOMAINS)
    discover("casl_bench.metrics", METRICS)
    discover_dictionaries()
    discover("casl_bench.methods", METHODS)
    discover(import_baselines(), METHODS)
    for plugin in plugins:
        load_plugin(plugin)


def broken_modules() -> dict[str, str]:
    """Modules that should register names and failed to import → reason, in one line."""
    broken = {**METHODS.broken, **DATASETS.broken, **METRICS.broken, **SAES.broken}
    return {module: " ".join(reason.split()) for module, reason in sorted(broken.items())}


def list_text() -> str:
    """Everything that can be named on the command line, and what failed to import."""
    infos = {name: info_of(name) for name in METHODS}
    methods = [
        [name, i.title, _supervision(i), "yes" if i.uses_sae else "", i.source]
        for name, i in infos.items()
        if not i.control
    ]
    controls = [[name, i.title] for name, i in infos.items() if i.control]
    datasets = [
        [c.name, DOMAIN_TITLES.get(c.domain_kind, c.domain_kind), c.description]
        for c in map(card_of, DATASETS)
    ]
    concepts = [
        [c.name, concept.name, f"{concept.source_prompt} → {concept.target_prompt}"]
        for c in map(card_of, DATASETS)
        for concept in c.concepts
    ]
    suites = [[s.name, f"v{s.version}", s.description] for s in SUITES.values()]
    parts = [
        _part("Methods", ["name", "title", "supervision", "SAE", "source"], methods),
        _part("Controls (always run)", ["name", "title"], controls),
        _part("Dictionaries (--sae)", ["name", "title", "kind", "source"], _dictionaries()),
        _part("Data sets", ["name", "domain", "what it is"], datasets),
        _part("Concepts", ["data set", "name", "prompts"], concepts),
        _part("Suites", ["name", "version", "what it is for"], suites),
        _part("Metrics", ["name", "version", "title", "source"], _metrics()),
    ]
    if broken := broken_modules():
        parts.append(_part("Failed to import", ["module", "why"], [*map(list, broken.items())]))
    return "\n\n".join(parts) + "\n"


def _supervision(info: MethodInfo) -> str:
    """What guides a method, in words: `labels (all attributes), text`."""
    labels = " (all attributes)" if info.uses_all_labels else ""
    return f"{info.supervision}{labels}{', text' if info.uses_text else ''}"


def _dictionaries() -> list[list[str]]:
    infos = [(name, dictionary_class(name).info) for name in SAES]
    infos.sort(key=lambda pair: pair[1].control)
    return [[n, i.title, "control" if i.control else "", i.source] for n, i in infos]


def _metrics() -> list[list[str]]:
    rows = [[i.name, f"v{i.version}", i.title, i.source] for i in metric_infos()]
    headline = PRECISE_EDITS_INFO.name
    rows.sort(key=lambda row: (row[0] != headline, row[0]))
    rows[0][2] += " (the headline)"
    return rows


def _part(title: str, headers: list[str], rows: Sequence[Sequence[str]]) -> str:
    body: str = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)
    return f"{title}\n{body}"
