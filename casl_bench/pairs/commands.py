"""`casl-bench score SRC EDIT --target smiling`: pictures edited by anything, from two folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from casl_bench.core.command import say, show
from casl_bench.core.errors import UsageError
from casl_bench.core.option_types import BoundedFloat, BoundedInt, LocalPath

if TYPE_CHECKING:
    from casl_bench.pairs.score import Classifier

_FOLDER, _FILE = LocalPath(exists=True, file_okay=False), LocalPath(exists=True, dir_okay=False)
_MOST_PIXELS = 1024


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple((value or "").replace(",", " ").split())


def _three(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.replace(",", " ").split())
    except ValueError as error:
        raise click.BadParameter("give three numbers, one per channel", ctx, param) from error
    if len(numbers) != 3:
        raise click.BadParameter("give three numbers, one per channel", ctx, param)
    return numbers


@click.command("score")
@click.argument("source", metavar="SRC", type=_FOLDER)
@click.argument("edited", metavar="EDIT", type=_FOLDER)
@click.option("--target", required=True, metavar="NAME", help="The attribute that was edited.")
@click.option("--remove", is_flag=True, help="It was to be turned off, not on.")
@click.option("--logits", type=_FILE, multiple=True, metavar="CSV",
              help="Logits instead of a classifier: one file with columns image, side (source or "
              "edit) and one per attribute; or given twice, the sources' file first.")  # fmt: skip
@click.option("--classifier", type=_FILE, metavar="FILE", help="Weights (.safetensors, .pt, "
              ".pth) or an ONNX file, described in a .json of its name or by the options "
              "below.")  # fmt: skip
@click.option("--architecture", metavar="NAME", help="Of weights: timm:NAME or torchvision:NAME.")
@click.option("--attributes", callback=_names, metavar="NAMES",
              help="Of the classifier's outputs, in order.")  # fmt: skip
@click.option("--image-size", type=BoundedInt(1, _MOST_PIXELS), metavar="PIXELS",
              help="Side that it takes.  [default: the file's own, or 224]")  # fmt: skip
@click.option("--mean", callback=_three, metavar="R,G,B", help="Of pixels in [0, 1] that it "
              "expects.  [default: ImageNet's]")  # fmt: skip
@click.option("--std", callback=_three, metavar="R,G,B", help="Likewise.")
@click.option("--zero-shot", metavar="ARCH:TAG|FILE", help="A CLIP of open_clip instead of a "
              "classifier, such as ViT-B-32:laion2b_s34b_b79k.")  # fmt: skip
@click.option("--prompts", default="celeba_hq", show_default=True, metavar="FILE|NAME",
              help="Its texts: a TOML file of [[concept]] tables, or a data set's.")  # fmt: skip
@click.option("--tolerance", type=BoundedFloat(1e-6, 1e6), default=0.5, show_default=True,
              metavar="SD", help="By how much others may move in a precise edit, in standard "
              "deviations over the sources.")  # fmt: skip
@click.option("--weights-root", type=LocalPath(), envvar="CASL_BENCH_WEIGHTS", show_envvar=True,
              help="Where CLIPs and the weights of distances are looked for.")  # fmt: skip
@click.option("--allow-download", is_flag=True, help="Ask the Hub for a CLIP that is not here.")
@click.option("--out", type=LocalPath(), help="Folder of table.md, pairs.csv and "
              "contact_sheet.png.  [default: scores-EDIT here]")  # fmt: skip
def score_command(**options: Any) -> Callable[[], int]:
    """Score pictures of folder EDIT against those of folder SRC, matched by name.

    Whatever edited them: EPR, precise-edit rate, flips and side effects by a classifier of yours,
    by logits that you have, or by CLIP; distance and identity where their weights are here.
    """
    return lambda: _score(**options)


def _score(
    *,
    source: Path,
    edited: Path,
    target: str,
    remove: bool,
    logits: tuple[Path, ...],
    classifier: Path | None,
    zero_shot: str | None,
    prompts: str,
    tolerance: float,
    weights_root: Path | None,
    allow_download: bool,
    out: Path | None,
    **described: Any,
) -> int:
    given = [bool(logits), classifier is not None, zero_shot is not None]
    if sum(given) != 1:
        raise UsageError(
            "one thing must say which attributes a picture shows",
            hint="give one of --logits, --classifier and --zero-shot",
        )
    if named := [k for k, v in described.items() if v] if classifier is None else []:
        option = "--" + named[0].replace("_", "-")
        raise UsageError(f"{option} describes a --classifier", hint="give one, or leave it out")
    out = out or Path(f"scores-{edited.resolve().name}")
    if out.exists() and not out.is_dir():
        raise UsageError("--out is not a folder", where=str(out))

    from casl_bench.runs.progress import open_progress

    with open_progress() as progress, progress.task("loading torch and what scores", 0):
        from casl_bench.domains.options import default_weights_root
        from casl_bench.pairs import scorers
        from casl_bench.pairs.files import match_folders
        from casl_bench.pairs.score import score_pairs, summary, write_scores

    weights_root = weights_root or default_weights_root()
    similarity, notes = scorers.find_similarity(weights_root)
    by: Classifier
    if logits:
        by = [*logits]
    elif classifier is not None:
        by = scorers.load_classifier(classifier, scorers.Description(**described))
    else:
        texts = scorers.read_prompts(prompts)
        by = scorers.zero_shot_classifier(zero_shot or "", texts, weights_root, allow_download)
    pairs = match_folders(source, edited).pairs
    with open_progress() as progress, progress.task("pairs scored", len(pairs)) as advance:
        scores = score_pairs(
            source, edited, target, classifier=by, similarity=similarity, remove=remove,
            tolerance=tolerance, progress=advance,
        )  # fmt: skip
    written = write_scores(scores, pairs, out)
    show(summary(scores))
    for note in notes:
        say(note)
    say(f"per image: {written.per_image}; pictures: {written.sheet}; this table: {written.table}")
    return 0
