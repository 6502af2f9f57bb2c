"""`casl-bench train …`: one subcommand a `train_*.py` module of this folder, imported when asked.

A training module has a click command named `main`.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import click

_PREFIX = "train_"


class TrainGroup(click.Group):
    """Finds training modules by file name and reads their help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all training modules, sorted."""
        return sorted(_sources())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of this name and return its command."""
        if cmd_name not in _sources():
            return None
        module = importlib.import_module(f"{__package__}.{_PREFIX}{cmd_name}")
        found: click.Command = module.main
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each name with the first sentence of its module."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, text in sorted(_sources().items())])


def _sources() -> dict[str, str]:
    """Name → first sentence, of every training module that has a command."""
    found = {}
    for path in Path(__file__).parent.glob(f"{_PREFIX}*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            summary = (ast.get_docstring(tree) or "").split("\n")[0].split(": `")[0]
            found[path.stem.removeprefix(_PREFIX)] = summary
    return found


train_group = TrainGroup(
    "train", help="Train what a domain needs: the shipped models, or a classifier of photographs."
)
