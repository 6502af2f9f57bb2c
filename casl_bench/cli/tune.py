"""`casl-bench tune`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from casl_bench.cli.errors import EXIT_INCOMPLETE, log_of_errors
from casl_bench.cli.options import (
    NAME_OPTIONS,
    PHOTO_OPTIONS,
    cache_option,
    device_option,
    plugin_option,
    seed_option,
)
from casl_bench.core.errors import UsageError
from casl_bench.core.option_types import BoundedInt, LocalFolder


@click.command("tune")
@NAME_OPTIONS
@click.option("--trials", type=BoundedInt(), default=8, show_default=True,
              help="Settings tried of each method, its default included.")  # fmt: skip
@click.option("--images", type=BoundedInt(), default=12, show_default=True,
              help="Validation images per concept.")  # fmt: skip
@click.option("--suite", default="standard", show_default=True, metavar="NAME")
@seed_option
@device_option
@plugin_option
@PHOTO_OPTIONS
@click.option("--out", type=LocalFolder(path_type=Path), required=True, help="Folder of the sweep.")
@cache_option
def tune_command(
    methods: tuple[str, ...],
    datasets: tuple[str, ...],
    concepts: tuple[str, ...],
    trials: int,
    images: int,
    suite: str,
    seed: int,
    device: str,
    plugins: tuple[Path, ...],
    out: Path,
    cache: Path | None,
    **given: Any,
) -> Callable[[], int]:
    """Try settings of each method on validation images and keep the best: docs/tuning.md."""

    def action() -> int:
        from casl_bench.runs.declared import check_names
        from casl_bench.runs.suites import RunConfig, domain_kind_of_suite
        from casl_bench.runs.suites import suite as suite_named

        photographs = dict(given)
        chosen = suite_named(suite)
        check_names(methods, datasets, concepts, plugins)
        if photographs.pop("method_weights"):
            raise UsageError("--method-weights leaves nothing to tune", hint="leave it out")

        from casl_bench.runs.preflight import check_torch, resolve_device

        check_torch()
        from casl_bench.cache.store import default_cache
        from casl_bench.runs import listing, names
        from casl_bench.runs.progress import open_progress
        from casl_bench.runs.run_lock import claim_run_folder
        from casl_bench.runs.tuning import make_sweep, tune, write_outputs

        names.load_registries(plugins)
        dataset_names = names.resolve_datasets(datasets, domain_kind_of_suite(chosen.name))
        config = RunConfig(
            methods=names.resolve_methods(methods),
            datasets=dataset_names,
            concepts=names.resolve_concepts(concepts, dataset_names),
            suite=chosen,
            seed=seed,
            device=resolve_device(device),
            out=out,
            cache=cache or default_cache(),
            plugins=plugins,
            options=names.checked_options(photographs, dataset_names),
        )
        sweep = make_sweep(config, trials, images)
        with log_of_errors(out), claim_run_folder(sweep.config):
            with open_progress() as progress:
                for module, reason in listing.broken_modules().items():
                    progress.note(f"{module} is left out, it fails to import: {reason}")
                results = tune(sweep, progress)
            write_outputs(sweep, results)
        return EXIT_INCOMPLETE if any(result.error for _, result in results) else 0

    return action
