"""Measure a trained U-Net: `casl-bench train gates --help`.

Prints each gate beside what is wanted and writes all figures, so that two models can be compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from casl_bench.core.files import make_folder, write_json
from casl_bench.core.option_types import BoundedFloat, BoundedInt, LocalPath
from casl_bench.domains.rendered import RENDERED
from casl_bench.domains.rendering.renderer import RenderedDataset
from casl_bench.domains.rendering.shapes import contact_sheet
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import Backbone
from casl_bench.models.noise_schedule import power_timesteps
from casl_bench.results.edited_images import to_pixels
from casl_bench.training.unet_gates import FLIPPED, Sizes, measure_gates

SHEET = 64
STEPS, POWER = 20, 1.5
"""The walk of the `standard` suite."""
SMALLER = {"sample_kernel_distance": 0.1, "direction_kernel_distance": 0.3}
"""At most this share of the figure before."""


def gate_rows(
    figures: dict[str, Any], concepts: tuple[str, ...], before: dict[str, Any] | None
) -> list[tuple[str, str, str, bool | None]]:
    """(gate, measured, wanted, reached) of every gate, concept by concept where it is of each.

    Args:
        figures: of `measure_gates`.
        concepts: ranked ones; what settings are tuned on is measured but not gated.
        before: figures of the model to be replaced, for the gates that are relative.
    """
    rows: list[tuple[str, str, str, bool | None]] = []
    for name, least in (("psnr", 34.0), ("attribute_agreement", 0.985)):
        value = figures[name]
        rows.append((name, f"{value:.3f}", f">= {least}", value >= least))
    rows.append(
        ("sample_entropy", f"{figures['sample_entropy']:.3f} bit "
         f"(renders {figures['render_entropy']:.3f})", "<= 0.08",
         figures["sample_entropy"] <= 0.08)
    )  # fmt: skip
    value = figures["sample_kernel_distance"]
    limit = None if before is None else SMALLER["sample_kernel_distance"] * before[
        "sample_kernel_distance"]  # fmt: skip
    rows.append(
        ("sample_kernel_distance", f"{value:.4f}", "" if limit is None else f"<= {limit:.4f}",
         None if limit is None else value <= limit)
    )  # fmt: skip
    for name, least in (
        ("donor_h_transfer", 0.8), ("direction_flip_rate", FLIPPED), ("probe_on_h", 0.95),
    ):  # fmt: skip
        for concept in concepts:
            value = figures[name][concept]
            rows.append((f"{name}: {concept}", f"{value:.3f}", f">= {least}", value >= least))
    mean = float(np.mean([figures["direction_kernel_distance"][c] for c in concepts]))
    # An edit that does nothing is whole as well: only those that flip count.
    flipped = all(figures["direction_flip_rate"][c] >= FLIPPED for c in concepts)
    limit = None
    if before is not None:
        # Of its own concepts: the former domains have other ones.
        was = float(np.mean(list(before["direction_kernel_distance"].values())))
        limit = SMALLER["direction_kernel_distance"] * was
    rows.append(
        ("direction_kernel_distance, mean", f"{mean:.4f}",
         "" if limit is None else f"<= {limit:.4f}",
         None if limit is None else flipped and mean <= limit)
    )  # fmt: skip
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
@click.option("--before", type=LocalPath(exists=True), help="gates.json of the "
              "model to be replaced.")  # fmt: skip
@click.option("--steps", type=BoundedInt(2), default=STEPS, show_default=True)
@click.option("--power", type=BoundedFloat(0.1, 10), default=POWER, show_default=True,
              help="Power of the timesteps.")  # fmt: skip
@click.option("--train", type=BoundedInt(16), default=Sizes.train, show_default=True)
@click.option("--held-out", type=BoundedInt(16), default=Sizes.held_out, show_default=True)
@click.option("--edited", type=BoundedInt(2), default=Sizes.edited, show_default=True)
@click.option("--samples", type=BoundedInt(2), default=Sizes.samples, show_default=True)
def main(
    domain: str, unet: Path, classifiers: tuple[Path, ...], out: Path, before: Path | None,
    steps: int, power: float, train: int, held_out: int, edited: int, samples: int,
) -> None:  # fmt: skip
    """Measure all gates of a U-Net with classifiers of the same renders."""
    drawing = RENDERED[domain].drawing
    figures, drawn = measure_gates(
        Backbone.from_folder(unet),
        RenderedDataset(drawing),
        [AttributeClassifier.load(folder) for folder in classifiers],
        power_timesteps(steps, 999, power),
        Sizes(train, held_out, edited, samples),
    )
    make_folder(out)
    write_json(out / "gates.json", figures)
    sheet = contact_sheet(to_pixels(drawn[:SHEET].numpy().astype(np.float32)), 8)
    Image.fromarray(sheet).save(out / "samples.png", optimize=True)
    old = None if before is None else json.loads(before.read_text("utf-8"))
    concepts = tuple(c.attribute for c in drawing.concepts)
    for gate, measured, wanted, reached in gate_rows(figures, concepts, old):
        mark = {True: "reached", False: "NOT REACHED", None: ""}[reached]
        click.echo(f"{gate:40} {measured:28} {wanted:12} {mark}")
