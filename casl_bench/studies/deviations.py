"""What running a method as its authors would is worth: before and after, on the same images.

Each deviation of a port that was mended can be undone by settings of the method or of the suite.
Both variants are fitted on the same concepts, brought to the same share of flipped validation
images, and measured there on test images: how many flip, and how precise the edits are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from pydantic import JsonValue, TypeAdapter

from casl_bench.cache.store import default_cache
from casl_bench.core.errors import UsageError, unknown_name
from casl_bench.core.files import write_text
from casl_bench.domains.dataset import Concept
from casl_bench.methods.method import METHODS
from casl_bench.metrics.edit_success import MEAN_COLLATERAL, SIGNED_TARGET_CHANGE
from casl_bench.models.micro_batch import one_thread
from casl_bench.results.provenance import package_versions
from casl_bench.results.record import Finite, Frozen
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs.artifacts import Artifacts
from casl_bench.runs.cell import EditCells
from casl_bench.runs.plan import concepts_of, make_method, open_domains
from casl_bench.runs.progress import Progress, Stopwatch
from casl_bench.runs.strength import FLIP_GOAL, FLIPS, flipped_share
from casl_bench.runs.suites import RunConfig, Suite
from casl_bench.runs.tuning import strength_of_flips
from casl_bench.studies import Name, packages_text, parse_study, to_lines

COMMAND = "casl-bench study deviations"
ROWS, PAGE = "deviations.jsonl", "deviations.md"
LEAST_CONCEPTS = 4
"""Fewer say nothing of a method."""


@dataclass(frozen=True)
class Deviation:
    """One thing that a port did otherwise than its authors, and the settings that undo its mending.

    Attributes:
        title: what was mended, as the page says it.
        method: whose it is.
        before: settings of the method that undo it.
        suite_before: fields of the suite that undo it.
    """

    title: str
    method: str
    before: Mapping[str, JsonValue] = field(default_factory=dict)
    suite_before: Mapping[str, JsonValue] = field(default_factory=dict)


DEVIATIONS = {
    "asyrp_on_policy": Deviation(
        "Asyrp is trained on the edited trajectory, not on stored ones", "asyrp",
        {"on_policy": False},
    ),
    "casl_on_policy": Deviation(
        "CASL is trained on the edited trajectory, not on stored ones", "casl",
        {"on_policy": False},
    ),
    "casl_step": Deviation(
        "CASL adds Δh to h as in the paper; before, by Asyrp's asymmetric step", "casl",
        {"asymmetric": True},
    ),
    "latent_ranking": Deviation(
        "latents are ranked by contrast, not by mean activation", "casl_steer",
        {"ranking": "activation"},
    ),
    "latent_gathering": Deviation(
        "a proximal group lasso gathers the map in few latents; before, none did", "casl_steer",
        {"gather": 0.0},
    ),
    "diffusionclip_steps": Deviation(
        "DiffusionCLIP has its 250 steps, not 120", "diffusionclip", {"fit_steps": 120},
    ),
    "diffusionclip_start": Deviation(
        "DiffusionCLIP starts at t = 800, not 600", "diffusionclip", {"t_0": 600},
    ),
    "slider_start": Deviation(
        "the port of concept sliders starts at t = 800, not 650", "concept_slider_port",
        {"t_start": 650},
    ),
    "h_window": Deviation(
        "h_linear edits down to t = 100, not 250", "h_linear", {"t_edit": 250},
    ),
    "strengths": Deviation(
        "strengths are doubled while the response rises (Asyrp)", "asyrp",
        suite_before={"doublings": 0},
    ),
}  # fmt: skip
AFTER: Mapping[str, Mapping[str, JsonValue]] = {
    "diffusionclip_start": {"t_0": 800},
    "slider_start": {"t_start": 800},
    "h_window": {"t_edit": 100},
}
"""Settings of "after" where that is not the suite's own."""

_AS_ONE = {"casl_step": "casl_asymmetric"}
"""A deviation that is a row of its own: the method that is "before"."""


class Header(Frozen):
    """What all rows rest on."""

    kind: Literal["study"] = "study"
    command: Name
    suite: Name
    seed: int
    packages: dict[Name, Name]


class DeviationRow(Frozen):
    """One variant on one concept.

    Attributes:
        reached: whether validation images came to the share of flips that is asked for.
        flip_rate: of the test images at this strength.
        precision: T / (T + C) of the test images there, in [0, 1]; see `runs.tuning.Objective`.
    """

    kind: Literal["variant"] = "variant"
    deviation: Name
    variant: Literal["before", "after"]
    dataset: Name
    concept: Name
    strength: Finite
    reached: bool
    flip_rate: Finite
    precision: Finite
    fit_unet_calls: Finite


@dataclass(frozen=True)
class DeviationRows:
    """All rows, in the order in which they were made."""

    header: Header
    rows: tuple[DeviationRow, ...]

    def to_jsonl(self) -> str:
        """One line each, the header first; equal rows give equal bytes."""
        return to_lines((self.header, *self.rows))

    @classmethod
    def from_jsonl(cls, text: str, where: str = "") -> DeviationRows:
        """Read what `to_jsonl` wrote; InvalidBenchmarkError on anything else."""
        header, rows = parse_study(text, Header, TypeAdapter(DeviationRow), where)
        return cls(header, tuple(rows))


def _variants(name: str, suite: Suite) -> dict[str, tuple[str, Suite]]:
    """Variant → the method's name and the suite that holds its settings."""
    deviation = DEVIATIONS[name]
    own = dict(suite.settings.get(deviation.method, {})) | dict(AFTER.get(name, {}))

    def with_own(settings: Mapping[str, JsonValue], **changes: JsonValue) -> Suite:
        settings = {**suite.settings, deviation.method: dict(settings)}
        return suite.model_copy(update={"settings": settings, **changes})

    before = with_own({**own, **deviation.before}, **deviation.suite_before)
    if name in _AS_ONE:
        before = suite.model_copy(update={"settings": {**suite.settings, _AS_ONE[name]: own}})
    return {
        "before": (_AS_ONE.get(name, deviation.method), before),
        "after": (deviation.method, with_own(own)),
    }


def config_of(
    datasets: tuple[str, ...],
    concepts: tuple[str, ...] | None,
    suite: Suite,
    seed: int,
    out: Path,
    cache: Path | None,
) -> RunConfig:
    """What both variants are run with."""
    return RunConfig(
        methods=tuple(dict.fromkeys(d.method for d in DEVIATIONS.values())),
        datasets=datasets,
        concepts=concepts,
        suite=suite,
        seed=seed,
        device="cpu",
        out=out,
        cache=cache or default_cache(),
    )


@one_thread()
def make_rows(
    config: RunConfig,
    names: tuple[str, ...],
    progress: Progress,
    say: Callable[[str], None] = lambda _: None,
) -> DeviationRows:
    """Both variants of these deviations on every concept of a config; fits are kept in its cache.

    Raises UsageError with fewer than four concepts.
    """
    rows, domains = [], open_domains(config)
    concepts = {d: concepts_of(w.dataset.card, config.concepts) for d, w in domains.items()}
    if sum(map(len, concepts.values())) < LEAST_CONCEPTS:
        raise UsageError(
            f"fewer than {LEAST_CONCEPTS} concepts", where="--concepts", hint="name more of them"
        )
    for dataset, domain in domains.items():
        for name in names:
            for variant, (method, suite) in _variants(name, config.suite).items():
                own = config.model_copy(update={"suite": suite})
                cells = EditCells(Artifacts(domain, own, progress), RecordStore(config.out))
                for concept in concepts[dataset]:
                    rows.append(_row(cells, name, variant, method, concept))
            say(f"{dataset} / {name}: done")
    header = Header(
        command=COMMAND,
        suite=f"{config.suite.name} version {config.suite.version}",
        seed=config.seed,
        packages=package_versions(),
    )
    return DeviationRows(header, tuple(rows))


def _row(
    cells: EditCells, name: str, variant: str, method_name: str, concept: Concept
) -> DeviationRow:
    suite, watch, goal = cells.config.suite, Stopwatch(), FLIPS
    method = make_method(method_name, suite)
    validation = cells.artifacts.concept_validation(concept)
    responses, cost, _ = cells.run_trial(
        method, concept, validation, (goal,), strength_of_flips, watch
    )
    strength = strength_of_flips(responses)
    editor, _ = cells.fitting.fit(method, concept, watch, 0.0)
    count = suite.test_images_per_concept
    split = cells.artifacts.concept_split(cells.artifacts.test, concept, count)
    edits = cells.edit_images(editor, split, (strength,), None)
    table = cells.scorers.table(concept, split.inversions, edits, (strength,))[0]
    scores = table.at(strength, concept.attribute, cells.scales.spreads[0])
    target = max(SIGNED_TARGET_CHANGE.value(scores) or 0.0, 0.0)
    collateral = MEAN_COLLATERAL.value(scores) or 0.0
    return DeviationRow(
        deviation=name,
        variant=variant,
        dataset=cells.domain.dataset.card.name,
        concept=concept.name,
        strength=strength,
        reached=goal.level(responses).status == "reached",
        flip_rate=flipped_share(scores),
        precision=target / (target + collateral) if target else 0.0,
        fit_unet_calls=cost.unet_calls,
    )


def page(found: DeviationRows) -> str:
    """The study in one table, as markdown."""
    from tabulate import tabulate

    lines = []
    for name in dict.fromkeys(row.deviation for row in found.rows):
        before, after = (
            {(r.dataset, r.concept): r for r in found.rows if (r.deviation, r.variant) == (name, v)}
            for v in ("before", "after")
        )
        gains = [after[k].precision - before[k].precision for k in after]
        lines.append({
            "what was mended": DEVIATIONS[name].title if name in DEVIATIONS else name,
            "method": DEVIATIONS[name].method if name in DEVIATIONS else "",
            "concepts": str(len(after)),
            "reached": f"{_reached(before)} → {_reached(after)}",
            "flipped": _change(before, after, lambda r: r.flip_rate),
            "precision": _change(before, after, lambda r: r.precision),
            "gain ± s.e.": f"{fmean(gains):+.3f} ± {_standard_error(gains)}",
            "U-Net calls, fit": _change(before, after, lambda r: r.fit_unet_calls, "{:,.0f}"),
        })  # fmt: skip
    table = tabulate(lines, headers="keys", tablefmt="pipe", disable_numparse=True)
    about = (
        f"Each method as it was and as it is, on the same concepts: at the strength that flips "
        f"{FLIP_GOAL:.0%} of the validation images (*reached*: in how many concepts one does; "
        "where none does, the one that flips most), the share of test images that flip there, and "
        "how precise the edits are, T / (T + C) by the primary classifier. The gain is the mean "
        "difference of precision over concepts with its standard error. One fit each."
    )
    header = found.header
    made = (
        f"Made by `{header.command}`, suite {header.suite}, seed {header.seed}, with "
        f"{packages_text(header.packages)}."
    )
    return "\n\n".join(["# What deviations of ports are worth", about, made, table]) + "\n"


Rows = Mapping[tuple[str, str], DeviationRow]


def _reached(rows: Rows) -> str:
    return f"{sum(row.reached for row in rows.values())}/{len(rows)}"


def _change(
    before: Rows, after: Rows, of: Callable[[DeviationRow], float], form: str = "{:.2f}"
) -> str:
    ends = (form.format(fmean(map(of, rows.values()))) for rows in (before, after))
    return " → ".join(ends)


def _standard_error(values: list[float]) -> str:
    return f"{stdev(values) / sqrt(len(values)):.3f}" if len(values) > 1 else "—"


def write_study(folder: Path, found: DeviationRows) -> Path:
    """Write rows and page; returns the page."""
    write_text(folder / ROWS, found.to_jsonl())
    write_text(folder / PAGE, page(found))
    return folder / PAGE


def chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    """Deviations of these names, each once; "all" for all. Raises UsageError on another."""
    for name in names:
        if name != "all" and name not in DEVIATIONS:
            raise unknown_name("deviation", name, DEVIATIONS)
    known = [name for name in DEVIATIONS if name in names or "all" in names]
    missing = {DEVIATIONS[name].method for name in known} - set(METHODS)
    if missing:
        raise UsageError(f"no method '{sorted(missing)[0]}'", hint="restore the folder baselines/")
    return tuple(known)
