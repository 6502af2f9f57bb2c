"""Train and ship every model of a domain: `casl-bench train domain --help`.

The models are trained one after another, each by its own command: the U-Net, the scorers on
pictures of which some are as the U-Net draws them, then the U-Net is measured by the classifiers.
Killed anywhere and started again, it goes on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from casl_bench.core.errors import BenchError
from casl_bench.core.option_types import BoundedFloat, BoundedInt, LocalPath
from casl_bench.domains.rendered import ASSETS, CLASSIFIERS, RENDERED

UNET_STEPS = 31_250
SCORERS: dict[str, tuple[int, tuple[str, ...]]] = {
    "classifier_plain": (500, ("classifier", "--architecture", "plain", "--seed", "1")),
    "render_embedder": (250, ("embedder",)),
    "guide_clip": (360, ("clip", "--role", "guide", "--seed", "11")),
    "score_clip": (340, ("clip", "--role", "score", "--seed", "12", "--fp32",
                         "--learning-rate", "0.001")),
    "classifier_depthwise": (400, ("classifier", "--architecture", "depthwise", "--seed", "2")),
    "classifier_residual": (400, ("classifier", "--architecture", "residual", "--seed", "3")),
    "classifier_tuning": (400, ("classifier", "--architecture", "tuning", "--seed", "4")),
    "factor_regressor": (1200, ("factors",)),
}  # fmt: skip
"""Model → optimiser steps where it starts from another domain's (twice that from none), command."""


@click.command("domain")
@click.option("--domain", type=click.Choice(list(RENDERED)), required=True)
@click.option("--out", type=LocalPath(), required=True, help="Training folders.")
@click.option("--cache", type=LocalPath(), help="Folder of rendered pools.")
@click.option("--start", type=click.Choice(list(RENDERED)), help="Domain whose shipped models are "
              "started from.  [default: from nothing]")  # fmt: skip
@click.option("--images", type=BoundedInt(), default=24_576, show_default=True,
              help="Rendered pictures to train scorers on.")  # fmt: skip
@click.option("--scale", type=BoundedFloat(1e-6, 1e6), default=1.0, show_default=True,
              help="Factor on all numbers of steps.")  # fmt: skip
@click.option("--only", multiple=True, type=click.Choice(["unet", *SCORERS, "gates"]),
              help="This alone. May be given several times.")  # fmt: skip
@click.option("--unet", type=LocalPath(exists=True), help="Training folder of `train unet`, which "
              "is shipped as it is.  [default: a U-Net is trained]")  # fmt: skip
@click.option("--assets", type=LocalPath(), default=ASSETS, help="Where models are shipped to, a "
              "folder per domain.  [default: the package's]")  # fmt: skip
def main(
    domain: str, out: Path, cache: Path | None, start: str | None, images: int, scale: float,
    only: tuple[str, ...], unet: Path | None, assets: Path,
) -> None:  # fmt: skip
    """Train all models of a domain into the package's assets."""
    pools = () if cache is None else ("--cache", str(cache))
    shipped = assets / domain
    drawn_by = ("--unet", str(shipped / "unet"))
    for name in only or ("unet", *SCORERS, "gates"):
        training = out / domain / name
        common: tuple[str, ...] = ("--domain", domain, "--out", str(training))
        started = () if start is None else ("--start", str(assets / start / name))
        if name == "unet":
            if unet is None:
                length = str(round(UNET_STEPS * scale))
                _run("casl_bench", "train", "unet", *common, *pools, *started, "--steps", length)
            _run("casl_bench.training.export_unet", "--training", str(unet or training),
                 "--out", str(shipped / "unet"))  # fmt: skip
        elif name == "gates":
            judges = [a for c in CLASSIFIERS for a in ("--classifier", str(shipped / c))]
            ship = ("--ship", str(shipped / "unet"))
            _run("casl_bench", "train", "gates", *common, *drawn_by, *judges, *ship)
        elif not (training / "done").exists():
            steps, command = SCORERS[name]
            length = str(round(steps * scale * (1 if start else 2)))
            ship = ("--ship", str(shipped / name))
            sizes = ("--steps", length, "--images", str(images))
            _run("casl_bench", "train", *command, *common, *pools, *started, *sizes, *drawn_by,
                 *ship)  # fmt: skip
            (training / "done").touch()


def _run(*command: str) -> None:
    """One training in a process of its own, so that its memory is given back."""
    click.echo(" ".join(command))
    code = subprocess.call([sys.executable, "-m", *command])
    if code:
        raise BenchError(f"{command[0]} ended with exit code {code}")
