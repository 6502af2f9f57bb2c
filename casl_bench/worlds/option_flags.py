"""Command-line options of the real world, for every command that opens one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_OPTIONS = (
    click.option("--data-root", type=_PATH, envvar="CASL_BENCH_DATA", show_envvar=True,
                 help="Real data: folder of a data set, or of several by name."),
    click.option("--data-id", metavar="ID",
                 help="Real data from a `datasets` id instead of a folder."),
    click.option("--weights-root", type=_PATH, envvar="CASL_BENCH_WEIGHTS", show_envvar=True,
                 help="Where weights are looked for: see `casl-bench weights`."),
    click.option("--backbone", multiple=True, metavar="[DATASET=]PLACE",
                 help="Backbone: a folder, a checkpoint or a Hub id."),
    click.option("--guide-clip", metavar="ARCH:TAG|FILE", help="CLIP that methods train against."),
    click.option("--score-clip", metavar="ARCH:TAG|FILE", help="CLIP that scores."),
    click.option("--zero-shot-clip", metavar="ARCH:TAG|FILE",
                 help="CLIP that judges attributes of data sets without labels."),
    click.option("--classifier", "classifiers", type=_PATH, multiple=True,
                 help="Attribute classifier, the primary one first."),
    click.option("--on-bad-image", type=click.Choice(["error", "skip"]), default="error",
                 show_default=True, help="Stop at an unusable image, or leave it out, counted."),
    click.option("--allow-download", is_flag=True, help="Ask the Hub for what is not here."),
    click.option("--method-weights", multiple=True, metavar="METHOD=FOLDER",
                 help="Run a method on weights that are already trained."),
)  # fmt: skip


def real_options(command: Decorated) -> Decorated:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
