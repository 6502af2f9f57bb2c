"""`casl-bench train …`: a table of subcommands, each imported when it is called."""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = {
    "attributes": "Train a classifier of photographs' attributes",
    "classifier": "Train an attribute classifier",
    "clip": "Train a small CLIP on a domain's pictures",
    "domain": "Train and ship every model of a domain",
    "embedder": "Train the `render_embedder` of a domain",
    "factors": "Train the `factor_regressor` of a domain",
    "unet": "Train the diffusion model of a synth domain",
}
"""Name, of a module `train_NAME.py` with a command `main` → its line in the help."""


class TrainGroup(click.Group):
    """The commands of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all trainings."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of this name and return its command."""
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = import_module(f"{__package__}.train_{cmd_name}").main
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each name with its line."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


train_group = TrainGroup(
    "train", help="Train what a domain needs: the shipped models, or a classifier of photographs."
)
