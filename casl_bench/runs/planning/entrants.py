"""Makes everything with a name known: our modules, installed packages, the user's own files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from casl_bench.core.registry import discover, load_plugin
from casl_bench.images.dataset import DATASETS
from casl_bench.methods.method import METHODS
from casl_bench.metrics.metric import METRICS
from casl_bench.worlds.world import WORLDS


def load_entrants(plugins: Sequence[Path] = ()) -> None:
    """Import every place where entrants may live. A module that fails takes no other down.

    `baselines` is named here as a string: the benchmark does not depend on its entrants, and a
    checkout without that folder still runs CASL.

    Raises:
        UsageError: if a plugin file is absent or fails to import.
    """
    discover("casl_bench.images", DATASETS)
    discover("casl_bench.metrics", METRICS)
    discover("casl_bench.worlds", WORLDS, DATASETS)
    discover("casl_bench.methods", METHODS)
    discover("baselines", METHODS)
    for plugin in plugins:
        load_plugin(plugin)
