"""The command line: options → RunConfig, one-line errors, exit codes.

torch and everything above it is imported once a command is known to need it: `--help`, a mistyped
option and `table` answer at once.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from casl_bench.cli.cache import cache_group, cache_option
from casl_bench.cli.doctor import doctor_command, weights_command
from casl_bench.cli.gate import GATE_COMMANDS, compare_option
from casl_bench.cli.leaderboard import leaderboard_command, submit_command
from casl_bench.cli.options import execution_options, pop_execution, real_options
from casl_bench.cli.report import picture_command, report_command, report_run, table_command
from casl_bench.cli.shards import make_merge_command
from casl_bench.core.errors import BenchError, InvalidBenchmarkError, UsageError
from casl_bench.core.option_types import MOST_JOBS, SEED, Amount, Count, LocalFolder
from casl_bench.photos.checkpoints.convert import convert_command
from casl_bench.studies.commands import study_group
from casl_bench.training.commands import TrainGroup

if TYPE_CHECKING:
    from casl_bench.runs.suites import RunConfig

Action = Callable[[], int]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

EXIT_USAGE, EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 3, 130, 143

EPILOG = """\b
Lists take commas or spaces: --methods casl,asyrp or --methods casl asyrp.
Interrupted at any moment, the same command goes on where it stopped.

\b
Exit codes:
  0    done
  1    a regression shown
  2    usage or configuration: nothing ran
  3    some cells failed or are missing
  4    not comparable or inconclusive
  5    the benchmark itself is invalid: a control out of its bounds, a scorer
       under its floor, a corrupt artefact
  130  interrupted (143: terminated): run the same command again to go on
"""

_WITHOUT_EFFECT_ON_RESULTS = {"jobs", "memory_budget", "batch_size", "cache", "no_cache", "debug"}
_WITHOUT_EFFECT_ON_RENDERED = {"data_root", "weights_root", "on_bad_image", "allow_download"}
_LIST_OPTIONS = ("--methods", "--datasets", "--concepts")


def _split_names(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> tuple[str, ...]:
    """Names separated by commas or spaces, of one option or of several."""
    names = tuple(name for value in values for name in value.replace(",", " ").split())
    if not names:
        raise click.BadParameter("give at least one name, or 'all'", ctx, param)
    return names


def _list_option(name: str, default: str, text: str) -> Callable[[Decorated], Decorated]:
    return click.option(
        name,
        multiple=True,
        default=(default,),
        callback=_split_names,
        metavar="NAMES",
        help=f"{text}  [default: {default}]",
    )


PATH = click.Path(path_type=Path)
FOLDER = LocalFolder(path_type=Path)


@click.group(
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@_list_option("--methods", "all", "Methods to run; the controls are always there.")
@_list_option("--datasets", "rendered_faces", "Data sets to run on.")
@_list_option("--concepts", "all", "What to edit.")
@click.option("--suite", metavar="NAME", help="How much of everything.  [default: standard]")
@click.option(
    "--quick", is_flag=True, help="Short for --suite quick: little of everything, to try out."
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option(
    "--fit-seeds", type=Count(most=1_000), default=1, show_default=True, help="Fits of every "
    "method, each with random numbers of its own: tells chance in fitting from chance in images.",
)  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 … or mps.")
@click.option(
    "--out", type=FOLDER, help="Run folder.  [default: runs/DATASET-SUITE-seedSEED, so that the "
    "same command finds it again]",
)  # fmt: skip
@cache_option
@click.option("--no-cache", is_flag=True, help="Share nothing with other runs: what is made is "
              "kept in .cache of the run folder.")  # fmt: skip
@click.option("--plugin", "plugins", type=PATH, multiple=True, help="A Python file with entrants "
              "of your own. May be given several times.")  # fmt: skip
@click.option(
    "--memory-budget", type=Amount(0.001, 1e6), metavar="GB", help="What edits "
    "of a process may hold at once: speed and memory only.  [default: half of what is free]",
)  # fmt: skip
@click.option(
    "--batch-size", type=Count(), help="At most so many images at once, whatever the "
    "memory budget: speed and memory only.",
)  # fmt: skip
@click.option(
    "--jobs", type=Count(most=MOST_JOBS), help="Processes that run cells beside each other, of one "
    "thread each: speed and memory only.  [default: what cores and free memory bear]",
)  # fmt: skip
@execution_options
@real_options
@click.option("--list", "list_names", is_flag=True, help="Show what can be named, and stop.")
@click.option(
    "--dry-run", is_flag=True, help="Show the cells, done and to do, and their cost, and stop."
)
@click.option("--unet-speed", type=Amount(1e-3, 1e9), metavar="IMAGES",
              help="With --dry-run: tell hours at so many U-Net passes a second.")  # fmt: skip
@compare_option
@click.option("--debug", is_flag=True, help="Print the traceback of an error.")
@click.version_option(package_name="casl-bench", prog_name="casl-bench")
@click.pass_context
def command(ctx: click.Context, **options: Any) -> Action | None:
    """Compare concept-editing methods of diffusion models on one protocol, and print one table."""
    if ctx.invoked_subcommand is not None:
        return None
    return lambda: _run(**options)


@command.command("tune")
@_list_option("--methods", "all", "Methods to tune, all with the same number of trials.")
@_list_option("--datasets", "rendered_faces", "Data sets to tune on.")
@_list_option("--concepts", "all", "What to edit.")
@click.option("--trials", type=Count(), default=8, show_default=True,
              help="Settings tried of each method, its default included.")  # fmt: skip
@click.option("--images", type=Count(), default=12, show_default=True,
              help="Validation images a concept.")  # fmt: skip
@click.option("--suite", "suite_name", default="standard", show_default=True, metavar="NAME")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 … or mps.")
@click.option("--plugin", "plugins", type=PATH, multiple=True, help="As for a run.")
@real_options
@click.option("--out", type=FOLDER, required=True, help="Folder of the sweep.")
@cache_option
@click.pass_context
def tune_command(ctx: click.Context, **options: Any) -> Action:
    """Try settings of each method on validation images and keep the best: docs/tuning.md."""

    def action() -> int:
        from casl_bench.runs.preflight import check_torch

        check_torch()
        from casl_bench.cli.tune import run_sweep

        with _log_of_errors(options["out"]):
            return run_sweep(**options)

    return action


command.add_command(cache_group)
command.add_command(convert_command)
command.add_command(doctor_command)
command.add_command(weights_command)
command.add_command(table_command)
command.add_command(picture_command)
command.add_command(report_command)
command.add_command(make_merge_command(report_run))
command.add_command(leaderboard_command)
command.add_command(submit_command)
command.add_command(study_group)
for gate_command in GATE_COMMANDS:
    command.add_command(gate_command)
command.add_command(
    TrainGroup(
        "train",
        help="Train what a world needs: the shipped models, or a classifier of photographs.",
    )
)


def _run(
    *,
    methods: tuple[str, ...],
    datasets: tuple[str, ...],
    concepts: tuple[str, ...],
    suite: str | None,
    quick: bool,
    seed: int,
    fit_seeds: int,
    device: str,
    out: Path | None,
    cache: Path | None,
    no_cache: bool,
    plugins: tuple[Path, ...],
    memory_budget: float | None,
    batch_size: int | None,
    jobs: int | None,
    list_names: bool,
    dry_run: bool,
    unet_speed: float | None,
    compare: Callable[[RunConfig, Callable[[RunConfig], int]], int] | None,
    debug: bool,
    **real: Any,
) -> int:
    asked = {n: str(v) for n, v in sorted(locals().items()) if n not in _WITHOUT_EFFECT_ON_RESULTS}
    from casl_bench.cache.store import default_cache, own_cache
    from casl_bench.runs.run_lock import FinishedCommand
    from casl_bench.runs.suites import RunConfig, default_out, world_of_suite
    from casl_bench.runs.suites import suite as suite_named

    execution = pop_execution(real, jobs or 1)
    if quick and suite not in (None, "quick"):
        raise UsageError(f"--quick and --suite {suite} contradict each other", mend="give one")
    if no_cache and cache is not None:
        raise UsageError("--cache and --no-cache contradict each other", mend="give one")
    if unet_speed is not None and not dry_run:
        raise UsageError("--unet-speed is for --dry-run", mend="add --dry-run or leave it out")
    chosen_suite = suite_named("quick" if quick else suite or "standard")
    finished = None
    own_files = plugins or {n for n, v in real.items() if v} - _WITHOUT_EFFECT_ON_RENDERED
    if not (list_names or dry_run or compare or own_files):
        place = (out, chosen_suite.name, datasets, seed, execution.shard)
        finished = FinishedCommand.of(asked, *place)
    if finished is not None and finished.is_current():
        click.echo(finished.table, nl=False)
        _say(f"records, pictures and table, as finished before: {finished.out}")
        return 0

    from casl_bench.runs.preflight import check_torch, resolve_device

    check_torch()
    from casl_bench.runs import listing, names
    from casl_bench.runs.names import load_entrants
    from casl_bench.runs.parallel import default_jobs

    load_entrants(plugins)
    if list_names:
        click.echo(listing.list_text(), nl=False)
        return 0
    for module, reason in listing.broken_modules().items():
        click.echo(f"warning: {module} is left out, it fails to import: {reason}", err=True)
    found_device = resolve_device(device)
    dataset_names = names.resolve_datasets(datasets, world_of_suite(chosen_suite.name))
    method_names = names.resolve_methods(methods)
    method_weights = names.resolve_method_weights(real.pop("method_weights"), method_names)
    out = out or default_out(dataset_names, chosen_suite.name, seed, execution.shard)
    if jobs is None and execution.engine(jobs=2) == "local":
        jobs = default_jobs(found_device, world_of_suite(chosen_suite.name))
    config = RunConfig(
        methods=method_names,
        datasets=dataset_names,
        concepts=names.resolve_concepts(concepts, dataset_names),
        suite=chosen_suite,
        seed=seed,
        fit_seeds=fit_seeds,
        device=found_device,
        options=names.checked_options(real, dataset_names),
        method_weights=method_weights,
        out=out,
        cache=own_cache(out) if no_cache else cache or default_cache(),
        plugins=plugins,
        memory_budget=memory_budget,
        batch_size=batch_size,
        jobs=jobs or 1,
        execution=execution,
    )
    if dry_run:
        click.echo(listing.dry_run_text(config, unet_speed), nl=False)
        return 0
    with _log_of_errors(config.out):
        if compare is not None:
            return compare(config, _run_and_report)
        code = _run_and_report(config)
        if finished is not None and code == 0:
            finished.write()
        return code


def _run_and_report(config: RunConfig) -> int:
    from casl_bench.runs.executor import run
    from casl_bench.runs.progress import open_progress
    from casl_bench.runs.run_lock import claim_run_folder

    with claim_run_folder(config):
        try:
            with open_progress() as progress:
                code = run(config, progress)
        except InvalidBenchmarkError:
            # An earlier, smaller run of this folder may have left one: it is not to be believed.
            (config.out / "table.md").unlink(missing_ok=True)
            raise
        report_run(config.out)
    click.echo(f"records, pictures and table: {config.out}", err=True)
    return code


@contextmanager
def _log_of_errors(out: Path) -> Iterator[None]:
    """Keep the traceback of an unforeseen error in the run folder, where there is one."""
    try:
        yield
    except (BenchError, KeyboardInterrupt, _Terminated):
        raise
    except Exception as error:
        log = out / "error.log"
        if out.is_dir():
            log.write_text(traceback.format_exc(), encoding="utf-8")
            raise _Unforeseen(f"its traceback is in {log}") from error
        raise


class _Unforeseen(Exception):
    """An error of ours; says where its traceback is."""


class _Terminated(BaseException):
    """SIGTERM came."""


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _join_lists(arguments: Sequence[str]) -> list[str]:
    """`--methods casl asyrp` → `--methods casl,asyrp`, which is what click can read."""
    joined: list[str] = []
    awaited, reading = False, False  # a list's first value; more values of it
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, _ = argument.partition("=")
            reading = name in _LIST_OPTIONS and bool(equals)
            awaited = name in _LIST_OPTIONS and not equals
            joined.append(argument)
        elif reading:
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
            awaited, reading = False, awaited
    return joined


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. Every fault is one line on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    called: click.Command = command.commands.get(arguments[0], command) if arguments else command
    # A command with places of its own, such as `picture RUN`, could not tell RUN from a name.
    if not any(isinstance(p, click.Argument) for p in called.params):
        arguments = _join_lists(arguments)
    debug = "--debug" in arguments
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        # click only parses: what it returns is run outside of it, free of its own handling of
        # interruptions.
        action = command.main(arguments, prog_name="casl-bench", standalone_mode=False,
                              obj=tuple(arguments))  # fmt: skip
        return action() if callable(action) else int(action or 0)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; run the same command again to go on")
        return EXIT_INTERRUPTED
    except _Terminated:
        _say("terminated; run the same command again to go on")
        return EXIT_TERMINATED
    except click.ClickException as error:
        _say(f"error: {error.format_message()} (see casl-bench --help)".replace("\n", " "))
        return EXIT_USAGE
    except BenchError as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {error}")
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: no user meets a traceback
        if debug:
            traceback.print_exc()
        fault = error.__cause__ if isinstance(error, _Unforeseen) and error.__cause__ else error
        more = str(error) if isinstance(error, _Unforeseen) else "--debug prints its traceback"
        line = " ".join(f"{type(fault).__name__}: {fault}".split())
        _say(f"error: unforeseen: {line}; {more}")
        return EXIT_INCOMPLETE
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
