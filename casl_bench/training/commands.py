"""`casl-bench train …`: a table of subcommands, each imported when it is called."""

from __future__ import annotations

from importlib import import_module

import click

_COMMANDS = {
    "attributes": ("train_attributes:main", "Train a classifier of photographs' attributes"),
    "classifier": ("train_classifier:main", "Train an attribute classifier"),
    "clip": ("train_embeddings:clip", "Train a small CLIP on a domain's pictures or photographs"),
    "domain": ("train_domain:main", "Train every model of a domain, or of pictures of your own"),
    "embedder": ("train_embeddings:embedder", "Train the embedder of a domain or of photographs"),
    "gates": ("train_gates:main", "Measure a trained diffusion model"),
    "factors": ("train_factors:main", "Train the `factor_regressor` of a domain"),
    "unet": ("train_unet:main", "Train a diffusion model on rendered pictures or photographs"),
}
"""Name → where its click command is in this folder, and its line in the help."""


class TrainGroup(click.Group):
    """The commands of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all trainings."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None where there is none of this name."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(f"{__package__}.{module}"), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each name with its line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


train_group = TrainGroup(
    "train", help="Train what a domain needs: the shipped models, or models of photographs."
)
