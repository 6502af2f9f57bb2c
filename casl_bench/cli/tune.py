"""`casl-bench tune`: names → sweep → its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from casl_bench.cache.store import default_cache
from casl_bench.core.errors import UsageError
from casl_bench.runs import names
from casl_bench.runs.listing import broken_modules
from casl_bench.runs.names import load_entrants
from casl_bench.runs.preflight import resolve_device
from casl_bench.runs.progress import open_progress
from casl_bench.runs.run_lock import claim_run_folder
from casl_bench.runs.suites import RunConfig, suite, world_of_suite
from casl_bench.runs.tuning import make_sweep, tune, write_outputs

EXIT_DONE, EXIT_INCOMPLETE = 0, 3


def run_sweep(
    methods: Sequence[str],
    datasets: Sequence[str],
    concepts: Sequence[str],
    trials: int,
    images: int,
    suite_name: str,
    seed: int,
    device: str,
    plugins: tuple[Path, ...],
    out: Path,
    cache: Path | None,
    **real: Any,
) -> int:
    """Run a sweep, or what is left of it, and write its folder.

    Args are the command's options; `real` holds those of the real world.

    Returns:
        0, or 3 where a method failed on some trial.

    Raises:
        UsageError: on unknown names, search spaces at fault, or a folder that cannot be used.
        InvalidBenchmarkError: on a damaged file in the folder.
    """
    chosen = suite(suite_name)
    load_entrants(plugins)
    dataset_names = names.resolve_datasets(datasets, world_of_suite(chosen.name))
    if real.pop("method_weights"):
        raise UsageError("--method-weights leaves nothing to tune", mend="leave it out")
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
        options=names.checked_options(real, dataset_names),
    )
    sweep = make_sweep(config, trials, images)
    with claim_run_folder(sweep.config):
        with open_progress() as progress:
            for module, reason in broken_modules().items():
                progress.note(f"{module} is left out, it fails to import: {reason}")
            results = tune(sweep, progress)
        write_outputs(sweep, results)
    failed = any(result.error is not None for _, result in results)
    return EXIT_INCOMPLETE if failed else EXIT_DONE
