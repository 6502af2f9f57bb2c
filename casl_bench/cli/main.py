"""The command line: a table of commands, each imported when it is called.

torch, and everything above it, is imported once a command is known to need it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from casl_bench.cli.options import LIST_OPTIONS, Section
from casl_bench.cli.run import RUN_OPTIONS, run_command
from casl_bench.core.command import exit_code_of
from casl_bench.core.errors import unknown_name

COMMANDS = {
    "analyse": ("casl_bench.cli.report:analyse_command", "Make all tables of runs anew."),
    "cache": ("casl_bench.cli.cache:cache_group", "List, prune and check what runs share."),
    "convert": (
        "casl_bench.photos.checkpoints.convert:convert_command",
        "Make a backbone folder of a published checkpoint.",
    ),
    "doctor": ("casl_bench.cli.cache:doctor_command", "Show versions, devices, cache and data."),
    "gate": ("casl_bench.cli.gate:gate_command", "Did editing get worse from BASE to HEAD?"),
    "golden": ("casl_bench.cli.gate:golden_command", "Keep what gate --tier exact compares with."),
    "leaderboard": (
        "casl_bench.cli.leaderboard:leaderboard_command",
        "Make the leaderboards anew of the committed records.",
    ),
    "merge": ("casl_bench.cli.report:merge_command", "Copy cells of runs together."),
    "picture": ("casl_bench.cli.report:picture_command", "Draw edits of one test image."),
    "rejudge": (
        "casl_bench.studies.commands:rejudge_command",
        "Score the pictures of a run by classifiers that nobody has seen.",
    ),
    "sae": ("casl_bench.cli.sae:sae_command", "Which dictionary of activations is any good?"),
    "report": ("casl_bench.cli.report:report_command", "Write a page that opens in a browser."),
    "rescore": (
        "casl_bench.cli.report:rescore_command",
        "Score the pictures of a run anew, by today's scorers.",
    ),
    "score": (
        "casl_bench.pairs.commands:score_command",
        "Score pictures edited by anything: SRC EDIT --target NAME.",
    ),
    "study": ("casl_bench.studies.commands:study_group", "Study the benchmark itself."),
    "submit": ("casl_bench.cli.leaderboard:submit_command", "Check a run and add its records."),
    "table": ("casl_bench.cli.report:table_command", "Print the table of a run anew."),
    "train": ("casl_bench.training.commands:train_group", "Train the models that are needed."),
    "tune": ("casl_bench.cli.run:tune_command", "Choose settings on validation images."),
    "weights": ("casl_bench.photos.commands:weights_command", "List the weights of photographs."),
}
"""Name → where its click command is, and its line in the help. Guests are named, not imported."""

GONE = {
    "gate-rates": "use casl-bench study gate-rates RUN",
    "push": "copy the run folder with the client of your store, such as aws s3 sync or rclone",
    "trend": "send DIR/*.json of casl-bench gate --out DIR to Bencher or github-action-benchmark",
    "--kernels": "leave it out: no setting but the default was ever faster",
    "--no-cache": "use --cache FOLDER with a folder of this run's own",
    "--probe": "leave it out: --kernels is gone",
    "--no-probe": "leave it out: --kernels is gone",
    "--compile": "leave it out: --kernels is gone",
    "--speed": "use pytest-benchmark's --benchmark-compare-fail",
    "--accept": "keep gate.json of casl-bench gate --out DIR, or send it to Bencher",
    "--history": "keep gate.json of casl-bench gate --out DIR, or send it to Bencher",
}
"""Commands and options of before → what to use instead."""

EPILOG = """\b
Lists take commas or spaces: --methods casl,asyrp or --methods casl asyrp.
Interrupted at any moment, the same command goes on where it stopped.
COMMAND --help shows the options of a command.

\b
Exit codes:
  0    done
  1    a regression shown
  2    usage or configuration: nothing ran
  3    some cells failed or are missing
  4    not comparable or inconclusive
  5    the benchmark itself is invalid: a control out of its bounds, a scorer
       under its floor, a corrupt artifact
  130  interrupted (143: terminated): run the same command again to go on
"""


class CommandTable(click.Group):
    """Commands of the table, and the options of a run in sections."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; one that is gone or unknown is refused with what to use instead."""
        if cmd_name not in COMMANDS:
            if cmd_name in GONE:
                raise click.UsageError(f"{cmd_name} is gone: {GONE[cmd_name]}")
            raise unknown_name("command", cmd_name, COMMANDS)
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options by section, the rare ones with --help-all alone; then the commands."""
        everything = ctx.meta.get(_ALL, False)
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            rare = isinstance(option, Section) and option.rare
            if record is not None and (everything or not rare):
                title = option.section if isinstance(option, Section) else "Help"
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])


_ALL = "casl_bench.help_all"


def _help_all(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()


@click.command(
    cls=CommandTable,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@RUN_OPTIONS
@click.option("--help-all", is_flag=True, is_eager=True, expose_value=False, callback=_help_all,
              help="Show the rarer options, too.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> Any:
    """Compare concept-editing methods of diffusion models on one protocol, and print one table."""
    return None if ctx.invoked_subcommand is not None else run_command(**options)


def _join_lists(arguments: Sequence[str]) -> list[str]:
    """`--methods casl asyrp` → `--methods casl,asyrp`, which is what click can read."""
    joined: list[str] = []
    awaited, reading = False, False  # a list's first value; more values of it
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, _ = argument.partition("=")
            reading = name in LIST_OPTIONS and bool(equals)
            awaited = name in LIST_OPTIONS and not equals
            joined.append(argument)
        elif reading:
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
            awaited, reading = False, awaited
    return joined


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. Every fault is one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Other commands have arguments: `picture RUN` could not tell RUN from a name of a list.
    if not given or given[0] == "tune" or given[0] not in COMMANDS:
        given = _join_lists(given)

    def parse_and_act() -> int | str:
        # click only parses: what it returns is run outside of it, free of its own handling of
        # interruptions.
        action = command.main(
            given, prog_name="casl-bench", standalone_mode=False, obj=tuple(given)
        )
        return action() if callable(action) else int(action or 0)

    return exit_code_of(parse_and_act, "--debug" in given, GONE)
