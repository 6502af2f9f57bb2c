"""From a training checkpoint to the shipped U-Net: `python -m casl_bench.training.export_unet`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from casl_bench.core.files import hash_file, write_json
from casl_bench.core.option_types import LocalPath
from casl_bench.domains.rendered import ASSETS, CLASSIFIERS, RENDERED
from casl_bench.domains.rendering.renderer import IMAGE_SIZE, RenderedDataset
from casl_bench.domains.rendering.shapes import contact_sheet
from casl_bench.models.attribute_classifier import AttributeClassifier
from casl_bench.models.backbone import Backbone
from casl_bench.models.noise_schedule import power_timesteps
from casl_bench.models.unet import BackboneConfig, build_unet, save_folder
from casl_bench.models.weights import read_content
from casl_bench.results.edited_images import to_pixels
from casl_bench.training.train_unet import PATCH_SIZE, UNET, measure_gates

MICRO_BATCH = 16


@click.command()
@click.option("--training", type=LocalPath(exists=True), required=True,
              help="Folder of `train_unet`.")  # fmt: skip
@click.option("--out", type=LocalPath(), help="[default: the package's assets]")
@click.option("--steps", default=25, show_default=True, help="DDIM steps of the gates.")
@click.option("--note", default="", help="What the card should say of the training.")
@click.option("--power", default=1.0, show_default=True, help="Power of the timesteps.")
def main(training: Path, out: Path | None, steps: int, note: str, power: float) -> None:
    """Write the EMA weights in fp16 with a card of measured gates, samples and the curve."""
    saved = read_content(training / "checkpoint.pt")
    domain = saved["config"]["domain"]
    out = out or ASSETS / domain / "unet"
    config = BackboneConfig(
        name=f"{domain}_unet",
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        prediction="v",
        micro_batch=MICRO_BATCH,
        unet=UNET,
    )
    unet = build_unet(UNET)
    unet.load_state_dict(saved["average"])
    save_folder(out, config, unet)
    backbone = Backbone.from_folder(out)
    classifier = AttributeClassifier.load(ASSETS / domain / CLASSIFIERS[0])
    timesteps = power_timesteps(steps, 999, power)
    gates, samples = measure_gates(
        backbone,
        RenderedDataset(RENDERED[domain].drawing),
        classifier,
        timesteps,
    )
    sheet = contact_sheet(to_pixels(samples.numpy().astype(np.float32)), 8)
    Image.fromarray(sheet).save(training / "samples.png", optimize=True)
    (out / "curve.csv").write_bytes((training / "curve.csv").read_bytes())
    card = {
        "name": config.name,
        "what": f"DDPM of the {domain} domain, v-prediction on 4×4 pixel-unshuffled images.",
        "command": "python -m casl_bench.training.train_unet, then export_unet",
        "date": time.strftime("%Y-%m-%d"),
        "training": {
            **saved["config"],
            "steps_done": saved["step"],
            "note": note,
            "seconds": round(saved["seconds"]),
        },
        "parameters": sum(p.numel() for p in unet.parameters()),
        "gates": gates,
        "sha256": hash_file(out / "unet.safetensors"),
    }
    write_json(out / "card.json", card)
    click.echo(json.dumps(gates, indent=1))


if __name__ == "__main__":
    main()
