"""Options that several commands share, and the sections of the help."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, get_args

import click

from casl_bench.cache.store import CACHE_VARIABLE
from casl_bench.core.option_types import SEED, BoundedFloat, BoundedInt, LocalPath
from casl_bench.runs.suites import (
    DEFAULT_SAE,
    LONGEST_CELL,
    SHORTEST_CELL,
    Execution,
    ExecutorName,
    QueueName,
    Shard,
)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Decorator = Callable[[Decorated], Decorated]

Given = ParamSpec("Given")

PATH = LocalPath()
LIST_OPTIONS = ("--methods", "--datasets", "--concepts")


Done = TypeVar("Done", bound=int | str)


def deferred(command: Callable[Given, Done]) -> Callable[Given, Callable[[], Done]]:
    """A command that click only parses: what it does is returned, and `main` carries it out."""

    @wraps(command)
    def parsed(*arguments: Given.args, **options: Given.kwargs) -> Callable[[], Done]:
        return partial(command, *arguments, **options)

    return parsed


class Section(click.Option):
    """An option of click in a section of the help, the rare ones shown by --help-all alone."""

    def __init__(self, *arguments: Any, section: str, rare: bool = False, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section, self.rare = section, rare


def option(section: str, *names: str, rare: bool = False, **settings: Any) -> Decorator[Any]:
    """`click.option` in a section of the help."""
    return click.option(*names, cls=Section, section=section, rare=rare, **settings)


def together(options: Iterable[Decorator[Any]]) -> Decorator[Any]:
    """One decorator that adds all of these options, in this order."""

    def add(command: Decorated) -> Decorated:
        for each in reversed([*options]):
            command = each(command)
        return command

    return add


def _split_names(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> tuple[str, ...]:
    names = tuple(name for value in values for name in value.replace(",", " ").split())
    if not names:
        raise click.BadParameter("give at least one name, or 'all'", ctx, param)
    return names


def _list_option(name: str, default: str, text: str) -> Decorator[Any]:
    return option(
        "Run", name, multiple=True, default=(default,), callback=_split_names,
        metavar="NAMES", help=f"{text}  [default: {default}]",
    )  # fmt: skip


METHOD_OPTIONS = together(
    (
        _list_option("--methods", "all", "Methods; references and controls are always there."),
        _list_option("--datasets", "rendered_faces", "Data sets."),
    )
)
NAME_OPTIONS = together((METHOD_OPTIONS, _list_option("--concepts", "all", "What to edit.")))
seed_option = option("Run", "--seed", type=SEED, default=0, show_default=True, metavar="N",
                     help="Every random number derives from it.")  # fmt: skip
plugin_option = option("Run", "--plugin", "plugins", type=PATH, multiple=True,
                       help="A Python file with methods, dictionaries or data sets of your own; "
                       "may be repeated.")  # fmt: skip
sae_option = option("Run", "--sae", rare=True, default=DEFAULT_SAE, show_default=True,
                    metavar="NAME|FOLDER", help="Dictionary of the methods that use one: a name, "
                    "or a folder of one trained elsewhere.")  # fmt: skip
device_option = option("Execution", "--device", default="cpu", show_default=True,
                       metavar="NAME", help="cpu, cuda, cuda:1 … or mps.")  # fmt: skip
devices_option = option("Execution", "--devices", rare=True, metavar="NUMBERS",
                        help="GPUs such as 0,1,2,3: one process each.")  # fmt: skip

cache_option = option("Execution", "--cache", rare=True, type=PATH,
                      help="Folder of what runs share: inversions, SAEs, fits.  "
                      f"[default: {CACHE_VARIABLE}, or the user's cache folder]")  # fmt: skip

_EXECUTION = ("executor", "scheduler", "queue", "cell_timeout", "smoke", "shard")
EXECUTION_OPTIONS = together(
    (
        option(
            "Execution", "--memory-budget", rare=True, type=BoundedFloat(0.001, 1e6), metavar="GB",
            help="Memory for edited images per process. Affects speed only, never results.  "
            "[default: half of what is free]",
        ),
        option("Execution", "--batch-size", rare=True, type=BoundedInt(), metavar="N",
               help="At most so many images at once. Affects speed only, never results."),
        option("Execution", "--executor", rare=True, type=click.Choice(get_args(ExecutorName)),
               help="Who runs the cells: this process, several (--jobs), or a Dask cluster."),
        option("Execution", "--scheduler", rare=True, metavar="ADDRESS",
               help="With Dask: a scheduler that runs, by address or scheduler file."),
        option("Execution", "--queue", rare=True, type=click.Choice(get_args(QueueName)),
               help="With Dask: ask this batch queue for --jobs workers, by dask-jobqueue."),
        option("Execution", "--cell-timeout", rare=True,
               type=BoundedFloat(SHORTEST_CELL, LONGEST_CELL), metavar="SECONDS",
               help="End a cell after so long: it counts as failed, the rest goes on."),
        option("Execution", "--smoke/--no-smoke", rare=True, default=True, show_default=True,
               help="Leave a method out once its first cell fails."),
        option("Execution", "--shard", rare=True, metavar="I/N",
               help="Run the I-th of N equal parts alone; casl-bench merge joins them."),
    )
)  # fmt: skip


def pop_execution(given: dict[str, Any], jobs: int) -> Execution:
    """Take the values of these options out of a command's; UsageError if they contradict."""
    values = {name: given.pop(name) for name in _EXECUTION}
    if values["shard"] is not None:
        values["shard"] = Shard.parse(values["shard"])
    execution = Execution(**values)
    execution.check(jobs)
    return execution


def _photo_option(*names: str, rare: bool = True, **settings: Any) -> Decorator[Any]:
    return option("Photographs", *names, rare=rare, **settings)


PHOTO_OPTIONS = together(
    (
        _photo_option("--data-root", rare=False, type=PATH, envvar="CASL_BENCH_DATA",
                      show_envvar=True, help="Folder of a data set, or of several by name."),
        _photo_option("--data-id", metavar="ID", help="A `datasets` id instead of a folder."),
        _photo_option("--weights-root", type=PATH, envvar="CASL_BENCH_WEIGHTS", show_envvar=True,
                      help="Where weights are looked for: see casl-bench weights."),
        _photo_option("--backbone", multiple=True, metavar="[DATASET=]PLACE",
                      help="Backbone: a folder, a checkpoint or a Hub id."),
        _photo_option("--guide-clip", metavar="ARCH:TAG|FILE",
                      help="CLIP that methods train against."),
        _photo_option("--score-clip", metavar="ARCH:TAG|FILE", help="CLIP that scores."),
        _photo_option("--zero-shot-clip", metavar="ARCH:TAG|FILE",
                      help="CLIP that scores attributes of data sets without labels."),
        _photo_option("--classifier", "classifiers", type=PATH, multiple=True,
                      help="Attribute classifier, the primary one first."),
        _photo_option("--compiled", is_flag=True, help="Compile both halves of the U-Net. Last "
                      "bits are others, so that nothing of an uncompiled run is used."),
        _photo_option("--on-bad-image", type=click.Choice(["error", "skip"]), default="error",
                      show_default=True, help="Stop at an unusable image, or skip and count it."),
        _photo_option("--allow-download", is_flag=True, help="Fetch what is not here: "
                      "from the Hub, and files whose SHA-256 is known from where they are "
                      "published."),
        _photo_option("--method-weights", multiple=True, metavar="METHOD=FOLDER",
                      help="Run a method on weights that are already trained."),
    )
)  # fmt: skip
