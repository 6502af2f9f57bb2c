"""Train every model of a domain or of photographs: `casl-bench train domain --help`.

The models are trained one after another, each by its own command: the U-Net, the scorers on
pictures of which some are as the U-Net draws them; a rendered domain's U-Net is then measured by
its classifiers. Killed anywhere and started again, it goes on, and what is done is not done again.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from casl_bench.core.errors import BenchError, UsageError
from casl_bench.core.files import hash_json, make_folder, write_bytes, write_text
from casl_bench.core.option_types import BoundedFloat, BoundedInt, LocalPath
from casl_bench.domains.rendered import ASSETS, CLASSIFIERS, RENDERED
from casl_bench.domains.rendering.renderer import IMAGE_SIZE
from casl_bench.photos.own_images import LABELS, NAME
from casl_bench.training.pools import no_labels, open_photographs
from casl_bench.training.trainer import pause_option

UNET_STEPS = 31_250
SCORERS: dict[str, tuple[int, tuple[str, ...]]] = {
    "classifier_plain": (500, ("classifier", "--architecture", "plain", "--seed", "1")),
    "render_embedder": (2000, ("embedder",)),
    "guide_clip": (360, ("clip", "--role", "guide", "--seed", "11")),
    "score_clip": (340, ("clip", "--role", "score", "--seed", "12", "--fp32",
                         "--learning-rate", "0.001")),
    "classifier_depthwise": (400, ("classifier", "--architecture", "depthwise", "--seed", "2")),
    "classifier_residual": (400, ("classifier", "--architecture", "residual", "--seed", "3")),
    "classifier_tuning": (400, ("classifier", "--architecture", "tuning", "--seed", "4")),
    "factor_regressor": (1200, ("factors",)),
}  # fmt: skip
"""Model → optimiser steps where it starts from another domain's (twice that from none), command."""

PHOTO_SCORERS: dict[str, tuple[int, tuple[str, ...], str]] = {
    "guide_clip": (1500, SCORERS["guide_clip"][1], "guide_clip"),
    "score_clip": (1500, SCORERS["score_clip"][1], "score_clip"),
    "embedder": (1000, SCORERS["render_embedder"][1], "embedders/{}"),
}
"""Model of photographs → optimiser steps, command, place among the weights of a data set."""
PHOTO_CLASSIFIERS = (
    "timm:resnet18", "timm:mobilenetv3_small_100", "torchvision:shufflenet_v2_x1_0"
)  # fmt: skip
PHOTO_EPOCHS = 12

PICTURES = 24_576
"""Rendered ones that scorers are trained on."""


class CountOrFolder(LocalPath):
    """A number of pictures, or the folder that holds them."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The number, or the folder, which is there."""
        kind = BoundedInt().convert if str(value).isdecimal() else super().convert
        return kind(value, param, ctx)


@dataclass(frozen=True)
class _Step:
    """One model: its commands, what they make, and the folder of its training."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    made: Path | None  # None: measured anew each time
    training: Path


@click.command("domain")
@click.option("--domain", type=click.Choice(list(RENDERED)))
@click.option("--dataset", help="Data set of photographs in the place of a domain.")
@click.option("--data-root", type=LocalPath(exists=True, file_okay=False),
              help="Folder of that data set.")  # fmt: skip
@click.option("--out", type=LocalPath(), required=True, help="Training folders; of photographs the "
              "folder of weights, too, as --weights-root takes it.")  # fmt: skip
@click.option("--cache", type=LocalPath(), help="Folder of pools of pictures.")
@click.option("--start", type=click.Choice(list(RENDERED)), help="Domain whose shipped models are "
              "started from.  [default: from nothing]")  # fmt: skip
@click.option("--images", type=CountOrFolder(exists=True, file_okay=False),
              metavar="FOLDER|NUMBER", help="A folder of pictures of your own; or how many scorers "
              f"are trained on.  [default: {PICTURES}, or all photographs]")  # fmt: skip
@click.option("--labels", type=LocalPath(exists=True, dir_okay=False),
              help=f"Labels of your own pictures.  [default: {LABELS} beside them]")  # fmt: skip
@click.option("--scale", type=BoundedFloat(1e-6, 1e6), default=1.0, show_default=True,
              help="Factor on all numbers of steps.")  # fmt: skip
@click.option("--compile", "compiled", is_flag=True, help="Compile the U-Net while it trains.")
@pause_option
@click.option("--only", multiple=True,
              help="This model alone. May be given several times.")  # fmt: skip
@click.option("--unet", type=LocalPath(exists=True), help="Training folder of `train unet`, which "
              "is taken as it is.  [default: a U-Net is trained]")  # fmt: skip
@click.option("--assets", type=LocalPath(), default=ASSETS, help="Where models of rendered domains "
              "are shipped to, a folder per domain.  [default: the package's]")  # fmt: skip
def main(
    domain: str | None, dataset: str | None, data_root: Path | None, out: Path,
    cache: Path | None, start: str | None, images: int | Path | None, labels: Path | None,
    scale: float, compiled: bool, pause_file: Path | None, only: tuple[str, ...],
    unet: Path | None, assets: Path,
) -> None:  # fmt: skip
    """Train all models of a rendered domain into its assets, or of photographs into OUT.

    A model that is there, of the same pictures and length, is passed over.
    """
    if isinstance(images, Path):
        if dataset not in (None, NAME) or data_root is not None:
            raise UsageError("--images FOLDER is a data set of its own", hint="give no other")
        dataset, data_root, images = NAME, images, None
        _put_labels(data_root, labels)
    elif labels is not None:
        raise UsageError("--labels belong to pictures of your own", hint="give --images FOLDER")
    if (domain is None) == (dataset is None):
        raise UsageError("give either --domain, or --images FOLDER, or --dataset NAME")
    pools = () if cache is None else ("--cache", str(cache))
    if dataset is None:
        assert domain is not None
        revision = RENDERED[domain].drawing.revision
        started = None if start is None else assets / start
        steps = _rendered_steps(
            domain, assets / domain, out, pools, started, images or PICTURES, scale, unet
        )
    else:
        if start is not None:
            raise UsageError("models of photographs start from nothing", hint="leave out --start")
        found = open_photographs(dataset, data_root, IMAGE_SIZE)
        if not found.labelled:
            raise no_labels(dataset)
        revision, number = found.card.revision, () if images is None else ("--images", str(images))
        common = ("--dataset", dataset, "--data-root", str(data_root))
        steps = _photograph_steps(dataset, out, common, (*number, *pools), scale, unet)
    if unknown := set(only) - {step.name for step in steps}:
        names = ", ".join(step.name for step in steps)
        raise UsageError(f"no model is called '{min(unknown)}'", hint=f"there are {names}")
    for step in steps:
        if only and step.name not in only:
            continue
        done, key = step.training / "done", hash_json([revision, step.commands])
        there = step.made is not None and step.made.exists() and done.exists()
        if there and done.read_text("utf-8") == key:
            click.echo(f"{step.name}: there already")
            continue
        for command in step.commands:
            kind = command[2] if command[1] == "train" else ""
            faster = ("--compile",) if compiled and kind == "unet" else ()
            paused = () if pause_file is None else ("--pause-file", str(pause_file))
            _run(*command, *faster, *(() if kind in ("", "gates") else paused))
        if step.made is not None:
            make_folder(step.training)
            write_text(done, key)


def _put_labels(folder: Path, labels: Path | None) -> None:
    """Where a run will look for them."""
    beside = folder / LABELS
    if labels is None or (beside.exists() and beside.read_bytes() == labels.read_bytes()):
        return
    if beside.exists():
        raise UsageError("other labels lie beside the pictures", where=str(beside))
    write_bytes(beside, labels.read_bytes())
    click.echo(f"wrote {beside}, where a run looks for labels")


def _rendered_steps(
    domain: str,
    shipped: Path,
    out: Path,
    pools: tuple[str, ...],
    start: Path | None,
    images: int,
    scale: float,
    trained: Path | None,
) -> list[_Step]:
    steps = []
    for name in ("unet", *SCORERS):
        training = out / domain / name
        common = ("--domain", domain, "--out", str(training), *pools)
        if start is not None:
            common += ("--start", str(start / name))
        commands = _unet(training, shipped / name, common, scale, trained)
        if name != "unet":
            length, command = SCORERS[name]
            length = round(length * scale * (1 if start else 2))
            common += ("--images", str(images))
            commands = (_scorer(command, common, shipped / name, length, shipped / "unet"),)
        steps.append(_Step(name, commands, shipped / name, training))
    given = [word for c in CLASSIFIERS for word in ("--classifier", str(shipped / c))]
    training = out / domain / "gates"
    gates = ("casl_bench", "train", "gates", "--domain", domain, "--out", str(training), "--unet",
             str(shipped / "unet"), "--ship", str(shipped / "unet"), *given)  # fmt: skip
    return [*steps, _Step("gates", (gates,), None, training)]


def _photograph_steps(
    dataset: str,
    out: Path,
    source: tuple[str, ...],
    pools: tuple[str, ...],
    scale: float,
    trained: Path | None,
) -> list[_Step]:
    trainings, backbone = out / "training" / dataset, out / "backbones" / dataset

    def common(name: str) -> tuple[str, ...]:
        return (*source, "--out", str(trainings / name), *pools)

    unet = _unet(trainings / "unet", backbone, common("unet"), scale, trained)
    steps = [_Step("unet", unet, backbone, trainings / "unet")]
    for name, (length, command, place) in PHOTO_SCORERS.items():
        ship, length = out / place.format(dataset), max(1, round(length * scale))
        scorer = _scorer(command, common(name), ship, length, backbone)
        steps.append(_Step(name, (scorer,), ship, trainings / name))
    folder = out / "classifiers" / dataset
    ends = ("--image-size", str(IMAGE_SIZE), "--epochs", f"{PHOTO_EPOCHS * scale:g}", "--out",
            str(folder))  # fmt: skip
    commands = tuple(
        ("casl_bench", "train", "attributes", *source, "--architecture", architecture, *ends)
        for architecture in PHOTO_CLASSIFIERS
    )
    return [*steps, _Step("classifiers", commands, folder, trainings / "classifiers")]


def _unet(
    training: Path, made: Path, common: tuple[str, ...], scale: float, trained: Path | None
) -> tuple[tuple[str, ...], ...]:
    train = ("casl_bench", "train", "unet", *common, "--steps",
             str(max(1, round(UNET_STEPS * scale))))  # fmt: skip
    export = ("casl_bench.training.export_unet", "--training", str(trained or training), "--out",
              str(made))  # fmt: skip
    return (train, export) if trained is None else (export,)


def _scorer(
    command: tuple[str, ...], common: tuple[str, ...], ship: Path, length: int, unet: Path
) -> tuple[str, ...]:
    ends = ("--ship", str(ship), "--steps", str(length), "--unet", str(unet))
    return ("casl_bench", "train", *command, *common, *ends)


def _run(*command: str) -> None:
    """One training in a process of its own, so that its memory is given back."""
    click.echo(shlex.join(command))
    code = subprocess.call([sys.executable, "-m", *command])
    if code:
        raise BenchError(f"{command[0]} ended with exit code {code}")
