"""From a training checkpoint to the shipped U-Net: `python -m casl_bench.training.export_unet`.

`casl-bench train gates` measures what comes out.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_file, write_bytes, write_json
from casl_bench.core.option_types import LocalPath
from casl_bench.domains.rendered import ASSETS, RENDERED
from casl_bench.domains.rendering.renderer import IMAGE_SIZE
from casl_bench.models.unet import BackboneConfig, build_unet, save_folder
from casl_bench.models.weights import read_content

MICRO_BATCH = 16


@click.command()
@click.option("--training", type=LocalPath(exists=True), required=True,
              help="Folder of `train_unet`.")  # fmt: skip
@click.option("--out", type=LocalPath(), help="[default: of a rendered domain the package's "
              "assets]")  # fmt: skip
@click.option("--note", default="", help="What the card should say of the training.")
def main(training: Path, out: Path | None, note: str) -> None:
    """Write the EMA weights in fp16 with a card and the curve."""
    saved = read_content(training / "checkpoint.pt")
    trained = saved["config"]
    domain = trained["domain"]
    rendered = domain in RENDERED
    if out is None and not rendered:
        raise UsageError(f"a U-Net of {domain} is not shipped", hint="give --out FOLDER")
    out = out or ASSETS / domain / "unet"
    config = BackboneConfig(
        name=f"{domain}_unet",
        image_size=IMAGE_SIZE,
        patch_size=trained["patch_size"],
        bands=trained["bands"],
        prediction=trained["prediction"],
        micro_batch=MICRO_BATCH,
        unet=trained["unet"],
    )
    unet = build_unet(config.unet)
    unet.load_state_dict(saved["average"])
    save_folder(out, config, unet)
    write_bytes(out / "curve.csv", (training / "curve.csv").read_bytes())
    card = {
        "name": config.name,
        "what": f"DDPM of {'the' if rendered else 'photographs of'} {domain}"
        f"{' domain' if rendered else ''}, v-prediction in preconditioned cosine bands of 4×4 "
        "patches; skip channels dropped while training.",
        "command": f"casl-bench train unet --{'domain' if rendered else 'dataset'} {domain} "
        f"--steps {saved['step']}, then python -m casl_bench.training.export_unet",
        "date": time.strftime("%Y-%m-%d"),
        "training": {
            **trained,
            "steps_done": saved["step"],
            "note": note,
            "seconds": round(saved["seconds"]),
        },
        "parameters": sum(p.numel() for p in unet.parameters()),
        "sha256": hash_file(out / "unet.safetensors"),
    }
    write_json(out / "card.json", card)
    click.echo(f"wrote {out}: {saved['step']:,} steps")


if __name__ == "__main__":
    main()
