"""`casl-bench convert`: a published checkpoint → a folder that we and diffusers read.

torch is imported once the command runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from casl_bench.core.amounts import Count
from casl_bench.core.errors import UsageError

if TYPE_CHECKING:
    from casl_bench.backbones.convert import Conversion

_PATH = click.Path(path_type=Path)


@click.command("convert")
@click.argument("checkpoint", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder to write; absent or empty.")
@click.option("--config", metavar="NAME|FILE",
              help="What is known of the network: docs/checkpoints.md.")  # fmt: skip
@click.option("--image-size", type=Count(most=65_536), help="Side, pixels.  [default: 256]")
@click.option("--head-channels", type=Count(),
              help="Channels of an attention head, ADM only.  [default: 64]")  # fmt: skip
@click.option("--half", is_flag=True, help="Keep the weights in half precision.")
def convert_command(
    checkpoint: Path,
    out: Path,
    config: str | None,
    image_size: int | None,
    head_channels: int | None,
    half: bool,
) -> Callable[[], int]:
    """Make a backbone folder of CHECKPOINT, a published file of the DDPM or ADM family."""

    def action() -> int:
        if not checkpoint.exists():
            raise UsageError("no such file", where=str(checkpoint))
        if checkpoint.is_dir():
            raise UsageError(
                "a folder is no checkpoint file",
                where=str(checkpoint),
                mend="a diffusers folder is read as it is and needs no conversion",
            )
        import torch

        from casl_bench.backbones.convert import convert
        from casl_bench.backbones.diffusers_files import check_vacant, write_diffusers_folder
        from casl_bench.core.content_hash import hash_file

        check_vacant(out)
        made = convert(
            checkpoint,
            name=out.resolve().name,
            image_size=image_size,
            config=config,
            head_channels=head_channels,
        )
        source = {
            "file": checkpoint.name,
            "sha256": hash_file(checkpoint),
            "taken": made.taken,
            "config": config or "",
            "assumed": list(made.assumed),
        }
        write_diffusers_folder(
            out,
            made.config,
            made.unet,
            dtype=torch.float16 if half else torch.float32,
            source=source,
        )
        click.echo(report(made), nl=False)
        click.echo(f"written       {out} ({'half' if half else 'single'} precision)")
        return 0

    return action


def report(made: Conversion) -> str:
    """What was found, a line a fact."""
    found, size = made.architecture, made.config.image_size
    side = size // 2 ** (len(found.multipliers) - 1)
    heads = made.config.unet["attention_head_dim"]
    sides = ", ".join(f"{s} px" for s in found.attention_resolutions(size)) or "the middle only"
    facts = {
        "weights": made.taken or "the file's only state dict",
        "family": found.family,
        "image size": f"{size} px",
        "channels": f"{found.base_channels} × {', '.join(map(str, found.multipliers))}; "
        f"{found.res_blocks} residual block{'s' if found.res_blocks > 1 else ''} a level",
        "attention": f"{sides}; {f'{heads} channels a head' if heads else 'one head'}",
        "output": f"{made.config.prediction}{' and a variance' if found.learned_sigma else ''}",
        "parameters": f"{sum(p.numel() for p in made.unet.parameters()):,}",
        "h-space": f"{found.mid_channels} × {side} × {side}",
    }
    if made.assumed:
        facts["assumed"] = f"{', '.join(made.assumed)}: the file does not tell"
    return "".join(f"{name:<14}{value}\n" for name, value in facts.items())
