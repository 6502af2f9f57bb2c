"""Measure a trained U-Net: `casl-bench train gates --help`.

Prints each gate beside what is wanted and writes all figures, so that two models can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from casl_bench.core.errors import UsageError
from casl_bench.core.files import make_folder, read_json, write_json
from casl_bench.core.option_types import BoundedInt, LocalPath
from casl_bench.domains.rendered import RENDERED
from casl_bench.domains.rendering.renderer import RenderedDataset
from casl_bench.domains.rendering.shapes import contact_sheet
from casl_bench.domains.rendering.shipped import CARRIED, GATES
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import Backbone
from casl_bench.models.noise_schedule import power_timesteps
from casl_bench.results.edited_images import to_pixels
from casl_bench.runs.suites import SUITES, domain_kind_of_suite
from casl_bench.training.unet_gates import FLIPPED, Sizes, measure_gates

SHEET = 64
WALKS = {
    suite.name: power_timesteps(suite.num_steps, 999, suite.timestep_power)
    for suite in SUITES.values()
    if domain_kind_of_suite(suite.name) == "synth"
}
"""Of every suite of rendered domains."""
INVERSION = {"psnr": 34.0, "attribute_agreement": 0.985}
"""A suite inverts plainly where that reaches this in all domains on its walk, else extrapolates."""
KINDS = ("plain_inversion", "inversion")  # the second is extrapolated
EACH = {"donor_h_transfer": CARRIED, "direction_flip_rate": FLIPPED, "probe_on_h": 0.95}
"""At least this on every attribute that is ranked."""
ENTROPY = 0.08
SMALLER = {"sample_kernel_distance": 0.1, "direction_kernel_distance": 0.3}
"""At most this share of the figure before."""

_FIGURES = {"sample_entropy", "render_entropy", *SMALLER, *EACH}

GateRow = tuple[str, str, str, bool | None]


def read_figures(path: Path) -> dict[str, Any]:
    """What `measure_gates` found; UsageError where a file holds no such figures."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or _FIGURES - found.keys():
        raise UsageError(
            "not the figures of a U-Net's gates",
            where=str(path),
            hint=f"give the {GATES} that `casl-bench train gates` wrote",
        )
    return found


def inversion(figures: Mapping[str, Any], kind: str) -> Mapping[str, Mapping[str, float]]:
    """Suite → PSNR and attribute agreement, by one of `KINDS`.

    Older figures have those of plain inversion on the longest walk alone.
    """
    older = (
        {"plain_inversion": {"full": figures}, "inversion": {}} if "psnr" in figures else figures
    )
    found: Mapping[str, Mapping[str, float]] = older[kind]
    return found


def gate_rows(
    figures: Mapping[str, Any], concepts: tuple[str, ...], before: Mapping[str, Any] | None
) -> list[GateRow]:
    """(gate, measured, wanted, reached) of every gate, attribute by attribute where it is of each.

    Args:
        figures: of `measure_gates`.
        concepts: ranked attributes; those that settings are tuned on are measured but not gated.
        before: figures of the model to be replaced, for the gates that are relative.
    """

    def least(gate: str, value: float, limit: float) -> GateRow:
        return gate, f"{value:.3f}", f">= {limit}", value >= limit

    def smaller(gate: str, value: float, was: float | None, share: float, of: bool) -> GateRow:
        if was is None:
            return gate, f"{value:.4f}", "", None
        return gate, f"{value:.4f}", f"<= {share * was:.4f}", of and value <= share * was

    rows = [
        least(f"{name} of {kind}, suite {suite}", own[name], limit)
        for kind in KINDS
        for suite, own in inversion(figures, kind).items()
        for name, limit in INVERSION.items()
    ]
    entropy, of_renders = figures["sample_entropy"], figures["render_entropy"]
    told = f"{entropy:.3f} bit (renders {of_renders:.3f})"
    rows.append(("sample_entropy", told, f"<= {ENTROPY}", entropy <= ENTROPY))
    name = "sample_kernel_distance"
    was = None if before is None else before[name]
    rows.append(smaller(name, figures[name], was, SMALLER[name], of=True))
    for name, limit in EACH.items():
        rows += [least(f"{name}: {c}", figures[name][c], limit) for c in concepts]
    name = "direction_kernel_distance"
    mean = float(np.mean([figures[name][c] for c in concepts]))
    # Of its own attributes: the former drawings have other ones.
    was = None if before is None else float(np.mean(list(before[name].values())))
    # An edit that does nothing is whole as well: only those that flip count.
    flipped = all(figures["direction_flip_rate"][c] >= FLIPPED for c in concepts)
    rows.append(smaller(f"{name}, mean", mean, was, SMALLER[name], of=flipped))
    return rows


@click.command("gates")
@click.option("--domain", type=click.Choice(list(RENDERED)), required=True)
@click.option("--unet", type=LocalPath(exists=True), required=True,
              help="Folder of the shipped U-Net.")  # fmt: skip
@click.option("--classifier", "classifiers", type=LocalPath(exists=True),
              multiple=True, required=True, help="Folder of a shipped classifier. May be given "
              "several times: their mean logit decides.")  # fmt: skip
@click.option("--out", type=LocalPath(), required=True, help="Folder of gates.json "
              "and samples.png.")  # fmt: skip
@click.option("--ship", type=LocalPath(), help="Folder for gates.json, too: the shipped U-Net's, "
              "where its domain looks for what h carries.")  # fmt: skip
@click.option("--before", type=LocalPath(exists=True), help="gates.json of the "
              "model to be replaced.")  # fmt: skip
@click.option("--train", type=BoundedInt(16), default=Sizes.train, show_default=True)
@click.option("--held-out", type=BoundedInt(16), default=Sizes.held_out, show_default=True)
@click.option("--edited", type=BoundedInt(2), default=Sizes.edited, show_default=True)
@click.option("--samples", type=BoundedInt(2), default=Sizes.samples, show_default=True)
def main(
    domain: str, unet: Path, classifiers: tuple[Path, ...], out: Path, ship: Path | None,
    before: Path | None,
    train: int, held_out: int, edited: int, samples: int,
) -> None:  # fmt: skip
    """Measure all gates of a U-Net with classifiers of the same renders."""
    drawing = RENDERED[domain].drawing
    old = None if before is None else read_figures(before)
    figures, drawn = measure_gates(
        Backbone.from_folder(unet),
        RenderedDataset(drawing),
        [AttributeClassifier.load(folder) for folder in classifiers],
        WALKS,
        Sizes(train, held_out, edited, samples),
    )
    make_folder(out)
    for folder in (out, ship or out):
        write_json(folder / GATES, figures)
    sheet = contact_sheet(to_pixels(drawn[:SHEET].numpy().astype(np.float32)), 8)
    Image.fromarray(sheet).save(out / "samples.png", optimize=True)
    concepts = tuple(c.attribute for c in drawing.concepts)
    for gate, measured, wanted, reached in gate_rows(figures, concepts, old):
        mark = {True: "reached", False: "NOT REACHED", None: ""}[reached]
        click.echo(f"{gate:40} {measured:28} {wanted:12} {mark}")
