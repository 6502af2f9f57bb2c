"""What `--list` and `--dry-run` print."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from casl_bench.core.errors import BenchError
from casl_bench.domains.dataset import DATASETS
from casl_bench.methods.method import METHODS
from casl_bench.metrics.epr_plus import EPR_PLUS_INFO
from casl_bench.metrics.metric import METRICS, metric_infos
from casl_bench.results.record import DOMAIN_TITLES
from casl_bench.runs.cost_estimate import cost_text
from casl_bench.runs.plan import (
    Cell,
    DomainIdentity,
    card_of,
    done,
    identify,
    info_of,
    open_domain,
    plan,
)
from casl_bench.runs.run_lock import check_run_folder
from casl_bench.runs.suites import SUITES, RunConfig


def broken_modules() -> dict[str, str]:
    """Modules that hold entrants and failed to import → reason, in one line."""
    broken = {**METHODS.broken, **DATASETS.broken, **METRICS.broken}
    return {module: " ".join(reason.split()) for module, reason in sorted(broken.items())}


def list_text() -> str:
    """Everything that can be named on the command line, and what failed to import."""
    infos = {name: info_of(name) for name in METHODS}
    methods = [
        [name, i.title, i.supervision, "yes" if i.uses_sae else "", i.source]
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
        _part("Data sets", ["name", "domain", "what it is"], datasets),
        _part("Concepts", ["data set", "name", "prompts"], concepts),
        _part("Suites", ["name", "version", "what it is for"], suites),
        _part("Metrics", ["name", "version", "title", "source"], _metrics()),
    ]
    if broken := broken_modules():
        parts.append(
            _part(
                "Failed to import",
                ["module", "why"],
                [[module, why] for module, why in broken.items()],
            )
        )
    return "\n\n".join(parts) + "\n"


def _metrics() -> list[list[str]]:
    """All metrics of edits, the headline first."""
    rows = [[i.name, f"v{i.version}", i.title, i.source] for i in metric_infos()]
    headline = EPR_PLUS_INFO.name
    rows.sort(key=lambda row: (row[0] != headline, row[0]))
    rows[0][2] += " (the headline)"
    return rows


def dry_run_text(config: RunConfig, unet_speed: float | None = None) -> str:
    """The matrix of cells, done and to do, and what these cost; nothing is written.

    Args:
        config: the run.
        unet_speed: U-Net passes a second, in images, at which hours are told.
    """
    from casl_bench.results.run_folder import RecordStore, damaged_cells

    check_run_folder(config)
    missing: list[str] = []
    h_shapes: dict[str, tuple[int, ...]] = {}
    domains = {d: _identity(d, config, missing, h_shapes) for d in config.datasets}
    cells = plan(config, domains)
    store = RecordStore(config.out)
    damaged = damaged_cells(store)
    there = {
        cell.key
        for cell in cells
        if store.folder(cell.store_key) not in damaged and done(store, cell)
    }
    to_do = [cell for cell in cells if cell.key not in there]
    lines = [
        f"run folder: {config.out}",
        f"suite {config.suite.name} v{config.suite.version}, seed {config.seed}, "
        f"device {config.device}",
        "",
        *(_matrix(dataset, cells, there) for dataset in config.datasets),
        f"{len(cells)} cells: {len(there)} done, {len(to_do)} to do",
        cost_text(config, to_do, h_shapes, unet_speed),
        *missing,
    ]
    return "\n".join(lines) + "\n"


def _identity(
    dataset: str, config: RunConfig, missing: list[str], h_shapes: dict[str, tuple[int, ...]]
) -> DomainIdentity:
    """Of a domain; one whose files are not there is planned all the same, and why is noted."""
    try:
        domain = open_domain(dataset, config)
    except BenchError as error:
        missing.append(f"not ready to run: {dataset}: {error}")
        return DomainIdentity(card_of(dataset), "absent")
    h_shapes[dataset] = domain.backbone.h_shape
    return identify({dataset: domain})[dataset]


def _matrix(dataset: str, cells: Sequence[Cell], done: set[str]) -> str:
    own = [c for c in cells if c.dataset == dataset]
    concepts = list(dict.fromkeys(c.concept.name for c in own))
    rows: dict[str, dict[str, str]] = {}
    for cell in sorted(own, key=lambda c: c.control):
        name = f"{cell.method} beside {cell.beside}" if cell.beside else cell.method
        state = "done" if cell.key in done else "to do"
        rows.setdefault(name, {})[cell.concept.name] = state
    body = [[name, *(row.get(c, "") for c in concepts)] for name, row in rows.items()]
    text: str = tabulate(body, headers=[dataset, *concepts], tablefmt="simple")
    return text + "\n"


def _part(title: str, headers: list[str], rows: Sequence[Sequence[str]]) -> str:
    body: str = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)
    return f"{title}\n{body}"
