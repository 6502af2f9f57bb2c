"""`casl-bench gate BASE HEAD`, `golden RUN OUT`, `--compare`: nothing is loaded before needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from casl_bench.cli.options import PATH, deferred, option
from casl_bench.core.command import show
from casl_bench.core.option_types import BoundedInt, LocalPath

if TYPE_CHECKING:
    from casl_bench.gate.verdict import GateReport
    from casl_bench.runs.suites import RunConfig


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
@_names_option("--stochastic", "Methods whose fit uses random numbers: a single fit of these is "
               "not enough. Recognised without it where runs have several fits.")  # fmt: skip
@click.option("--calibrate-aa", type=BoundedInt(20, 1_000_000), metavar="R",
              help="Sample R runs without a change from the base's fits, and gate no cell in which "
              "a 10 % loss could not be seen.")  # fmt: skip
@click.option("--allow-missing-base", is_flag=True, help="A first run, without a base, exits 0.")
@click.option("--out", type=PATH, help="Folder for gate.json, junit.xml, summary.md and feeds.")
@deferred
def gate_command(
    base: Path,
    head: Path,
    tier: str,
    methods: frozenset[str] | None,
    datasets: frozenset[str] | None,
    concepts: frozenset[str] | None,
    stochastic: frozenset[str] | None,
    calibrate_aa: int | None,
    allow_missing_base: bool,
    out: Path | None,
) -> int:
    """Did editing get worse from run folder BASE to run folder HEAD?

    \b
    Exit codes:
      0  no loss of 10 % or more
      1  a loss is shown, or a cell is missing
      2  usage
      4  not comparable, or neither is shown
      5  a run cannot be believed
    """  # noqa: D301 - \b is click's
    from casl_bench.core.errors import BenchError
    from casl_bench.gate.compare_runs import GateOptions, error_report, gate_folders
    from casl_bench.gate.gate import Scope
    from casl_bench.gate.outputs import write_outputs

    options = GateOptions(
        tier=tier,  # type: ignore[arg-type]  # click has checked it
        scope=Scope(datasets, methods, concepts, stochastic or frozenset()),
        calibrate_runs=calibrate_aa or 0,
        allow_missing_base=allow_missing_base,
    )
    try:
        report = gate_folders(base, head, options)
    except BenchError as error:
        for line in write_outputs(error_report(error, tier), out):
            show(line)
        raise
    for line in (*write_outputs(report, out), *_summary(report)):
        show(line)
    return report.exit_code


def _summary(report: GateReport) -> list[str]:
    """The verdict and what is not green, for a terminal."""
    from casl_bench.gate.verdict import Verdict

    return [report.headline, *report.notes] + [
        f"  {c.verdict} {c.dataset}/{c.method}: {c.reason}"
        for c in report.cells
        if c.verdict not in (Verdict.PASS, Verdict.NEW)
    ]


@click.command("golden")
@click.argument("run", type=LocalPath(exists=True, file_okay=False))
@click.argument("out", type=PATH)
@deferred
def golden_command(run: Path, out: Path) -> int:
    """Keep of run folder RUN what `gate --tier exact` compares with, in folder OUT."""
    from casl_bench.gate.exact import write_golden

    show(f"{write_golden(run, out)} records: {out}")
    return 0


def _compare(
    base: str,
    arguments: tuple[str, ...],
    path_options: frozenset[str],
    config: RunConfig,
    run: Callable[[RunConfig], int],
) -> int:
    """Run the base, a run folder or a git revision, and the head of this config; gate them."""
    from casl_bench.gate.compare_runs import GateOptions, HeadRun, compare_runs
    from casl_bench.gate.gate import Scope

    head = HeadRun(
        arguments,
        path_options,
        config.out,
        config.fit_seeds,
        lambda fits: run(config.model_copy(update={"fit_seeds": fits})),
    )
    concepts = None if config.concepts is None else frozenset(config.concepts)
    scope = Scope(frozenset(config.datasets), frozenset(config.methods), concepts)
    return compare_runs(base, head, GateOptions(scope=scope), Path.cwd(), show)


def _comparer(ctx: click.Context, param: click.Parameter, base: str | None) -> partial[int] | None:
    if base is None:
        return None
    if not base.strip():
        raise click.BadParameter("give a run folder or a git revision", ctx, param)
    options = [p for p in ctx.command.params if isinstance(p.type, click.Path)]
    names = frozenset(name for p in options for name in p.opts)
    return partial(_compare, base, tuple(ctx.obj or ()), names)


compare_option = option(
    "Run",
    "--compare",
    rare=True,
    metavar="BASE",
    callback=_comparer,
    help="Run BASE too, a git revision, or take it from there, a run folder; then gate this run.",
)
