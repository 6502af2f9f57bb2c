"""`casl-bench gate BASE HEAD`, `golden RUN OUT`, `trend`: nothing is loaded before it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import click

from casl_bench.cli.options import option
from casl_bench.core.option_types import SEED, BoundedFloat, BoundedInt

if TYPE_CHECKING:
    from casl_bench.gate.log_ratio import MethodBoard
    from casl_bench.gate.verdict import GateReport

Action = Callable[[], int]
PATH = click.Path(path_type=Path)
HISTORY = Path("leaderboards/history.jsonl")


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> frozenset[str] | None:
    """Names separated by commas or spaces; None for all."""
    names = frozenset((value or "").replace(",", " ").split())
    return names or None


def _names_option(name: str, text: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    return click.option(name, metavar="NAMES", callback=_names, help=text)


@click.command("gate")
@click.argument("base", type=PATH)
@click.argument("head", type=PATH)
@click.option("--tier", type=click.Choice(["statistical", "exact", "both"]), default="statistical",
              show_default=True, help="Is it worse, or is it changed at all?")  # fmt: skip
@_names_option("--methods", "Methods to gate.  [default: all of the base]")
@_names_option("--datasets", "Data sets to gate.  [default: all of the base]")
@_names_option("--concepts", "Concepts to gate.  [default: all of the base]")
@_names_option("--stochastic", "Methods whose fit draws random numbers: a single fit of these is "
               "not enough. Known by itself where runs have several.")  # fmt: skip
@click.option("--calibrate-aa", type=BoundedInt(20, 1_000_000), metavar="R",
              help="Draw R runs without a change from the base's fits, and gate no cell in which a "
              "10 % loss could not be seen.")  # fmt: skip
@click.option("--speed", type=PATH, nargs=2, metavar="BASE.json HEAD.json",
              help="Files of pytest-benchmark, compared in units of their calibration kernel: "
              "alerts only.")  # fmt: skip
@click.option("--allow-missing-base", is_flag=True, help="A first run, without a base, exits 0.")
@click.option("--out", type=PATH, help="Folder for gate.json, junit.xml, summary.md and feeds.")
@click.option("--accept", is_flag=True, help="If it passes, append the head to the history.")
@click.option("--history", type=PATH, default=HISTORY, show_default=True)
def gate_command(
    base: Path,
    head: Path,
    tier: str,
    methods: frozenset[str] | None,
    datasets: frozenset[str] | None,
    concepts: frozenset[str] | None,
    stochastic: frozenset[str] | None,
    calibrate_aa: int | None,
    speed: tuple[Path, Path] | None,
    allow_missing_base: bool,
    out: Path | None,
    accept: bool,
    history: Path,
) -> Action:
    """Did editing get worse from run folder BASE to run folder HEAD?

    \b
    Exit codes:
      0  no loss of 10 % or more
      1  a loss is shown, or a cell is missing
      2  usage
      4  not comparable, or neither is shown
      5  a run cannot be believed
    """  # noqa: D301 - \b is click's

    def action() -> int:
        from casl_bench.core.errors import BenchError
        from casl_bench.gate.compare_runs import GateOptions, error_report, gate_folders
        from casl_bench.gate.gate import Scope
        from casl_bench.gate.outputs import write_outputs

        scope = Scope(datasets, methods, concepts, stochastic or frozenset())
        options = GateOptions(
            tier=tier,  # type: ignore[arg-type]  # click has checked it
            scope=scope,
            calibrate_runs=calibrate_aa or 0,
            allow_missing_base=allow_missing_base,
            speed=speed,
        )
        try:
            report = gate_folders(base, head, options)
        except BenchError as error:
            for line in write_outputs(error_report(error, tier), out):
                click.echo(line)
            raise
        for line in (*write_outputs(report, out), *_told(report)):
            click.echo(line)
        if accept and report.exit_code == 0:
            from casl_bench.gate.history import accept as append

            append(history, report)
        return report.exit_code

    return action


@click.command("golden")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=PATH)
def golden_command(run: Path, out: Path) -> Action:
    """Keep of run folder RUN what `gate --tier exact` compares with, in folder OUT."""

    def action() -> int:
        from casl_bench.gate.exact import write_golden

        click.echo(f"{write_golden(run, out)} records: {out}")
        return 0

    return action


@click.command("trend")
@click.option("--history", type=PATH, default=HISTORY, show_default=True)
@click.option("--out", type=PATH, help="Picture to write: .png, .svg or .pdf.")
def trend_command(history: Path, out: Path | None) -> Action:
    """Tell the steps and the drift of the accepted runs, and draw them."""

    def action() -> int:
        from casl_bench.core.errors import UsageError
        from casl_bench.gate.history import read_history, trends

        found = trends(read_history(history))
        if not found:
            raise UsageError("no accepted run", where=str(history),
                             mend="casl-bench gate BASE HEAD --accept adds one")  # fmt: skip
        for trend in found:
            steps = ", ".join(trend.commits[step] for step in trend.steps) or "none"
            click.echo(
                f"{trend.name}: {len(trend.precision)} runs, drift {trend.drift:+.3f}, "
                f"steps at {steps}"
            )
        if out is not None:
            from casl_bench.gate.trend_plot import write_trend_plot

            write_trend_plot(found, out)
        return 0

    return action


@click.command("gate-rates")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--runs", type=BoundedInt(20, 1_000_000), default=400, show_default=True,
              help="Runs to draw without a change, and with a 10 % loss in each cell.")  # fmt: skip
@_names_option("--methods", "Methods that count.  [default: all with two fits]")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--shared", type=BoundedFloat(0, 1), default=0.0, show_default=True,
              help="Probability that a seed leads to the same fit on both sides.")  # fmt: skip
@click.option("--against", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="A run of other code: instead, how often it fails against RUN, and how much "
              "the fits of the same seeds lost.")  # fmt: skip
def rates_command(
    run: Path,
    runs: int,
    methods: frozenset[str] | None,
    seed: int,
    shared: float,
    against: Path | None,
) -> Action:
    """Measure how often the gate errs, on runs drawn from the fits stored in RUN."""

    def action() -> int:
        from casl_bench.gate.log_ratio import read_side
        from casl_bench.studies import gate_error_rates as error_rates
        from casl_bench.studies.gate_error_rates import paired_loss

        def boards(folder: Path) -> dict[tuple[str, str], MethodBoard]:
            found = error_rates.stored_boards(read_side(folder))
            return {k: b for k, b in found.items() if methods is None or k[1] in methods}

        if against is None:
            rates = error_rates.measure_rates(boards(run), runs, seed, shared=shared)
            click.echo(error_rates.rates_markdown(rates), nl=False)
            return 0
        base, head = boards(run), boards(against)
        caught = error_rates.caught_against(base, head, runs, seed, shared=shared)
        for name, count in caught.items():
            found = paired_loss(base[name], head[name], seed)
            click.echo(
                f"{name[0]}/{name[1]}: {count} of {runs} runs fail; "
                f"EPR+ changed by {100 * math.expm1(found.log_ratio):+.1f} % "
                f"(sd of the logarithm {found.sd:.3f}, {found.pairs} pairs of fits), which "
                f"{100 * found.power:.1f} % of runs with other such pairs would fail for"
            )
        return 0

    return action


class RunSettings(Protocol):
    """What `--compare` must know of a run: a `RunConfig`, which this package does not import."""

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    concepts: tuple[str, ...] | None
    fit_seeds: int
    out: Path

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same with other values."""
        ...


Settings = TypeVar("Settings", bound=RunSettings)


@dataclass(frozen=True)
class Comparer:
    """`--compare BASE`, as parsed.

    Attributes:
        base: a run folder, or a git revision.
        arguments: of the whole command line.
        path_options: the command's options that name files.
    """

    base: str
    arguments: tuple[str, ...]
    path_options: frozenset[str]

    def __call__(self, config: Settings, run: Callable[[Settings], int]) -> int:
        """Run base and head, and gate them.

        Args:
            config: of the head's run.
            run: runs it and gives the exit code.
        """
        from casl_bench.gate.compare_runs import GateOptions, HeadRun, compare_runs
        from casl_bench.gate.gate import Scope

        head = HeadRun(
            self.arguments,
            self.path_options,
            config.out,
            config.fit_seeds,
            lambda fits: run(config.model_copy(update={"fit_seeds": fits})),
        )
        concepts = None if config.concepts is None else frozenset(config.concepts)
        scope = Scope(frozenset(config.datasets), frozenset(config.methods), concepts)
        return compare_runs(self.base, head, GateOptions(scope=scope), Path.cwd(), click.echo)


def _comparer(ctx: click.Context, param: click.Parameter, base: str | None) -> Comparer | None:
    if base is None:
        return None
    options = [p for p in ctx.command.params if isinstance(p.type, click.Path)]
    names = frozenset(name for p in options for name in p.opts)
    return Comparer(base, tuple(ctx.obj or ()), names)


compare_option = option(
    "Run",
    "--compare",
    rare=True,
    metavar="BASE",
    callback=_comparer,
    help="Run BASE too, a git revision, or take it from there, a run folder; then gate this run.",
)


def _told(report: GateReport) -> list[str]:
    """The verdict and what is not green, for a terminal."""
    from casl_bench.gate.verdict import Verdict

    lines = [report.headline, *report.notes]
    lines += [f"alert: {a.name}: {a.text}" for a in report.alerts]
    return lines + [
        f"  {c.verdict} {c.dataset}/{c.method}: {c.reason}"
        for c in report.cells
        if c.verdict not in (Verdict.PASS, Verdict.NEW)
    ]
