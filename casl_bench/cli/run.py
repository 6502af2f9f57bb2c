"""The default command and `tune`: options → RunConfig → run, tables and pictures, or a sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from casl_bench.cli.gate import compare_option
from casl_bench.cli.options import (
    EXECUTION_OPTIONS,
    METHOD_OPTIONS,
    NAME_OPTIONS,
    PATH,
    PHOTO_OPTIONS,
    Section,
    cache_option,
    deferred,
    device_option,
    devices_option,
    option,
    plugin_option,
    pop_execution,
    sae_option,
    seed_option,
    together,
)
from casl_bench.core.command import EXIT_INCOMPLETE, log_of_errors, say, show
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.core.option_types import MOST_JOBS, BoundedFloat, BoundedInt

if TYPE_CHECKING:
    from casl_bench.runs.suites import RunConfig, Suite

RUN_OPTIONS = together(
    (
        NAME_OPTIONS,
        option("Run", "--suite", metavar="NAME", help="How much of everything: default (minutes), "
               "full, quick or paper.  [default: default]"),
        option("Run", "--quick", is_flag=True, help="Short for --suite quick: a minute, to "
               "see that it runs; shows no number."),
        seed_option,
        option("Run", "--fit-seeds", rare=True, type=BoundedInt(most=1_000), metavar="N",
               help="Fits of every method, each with random numbers of its own: separates chance "
               "in fitting from chance in images.  [default: 3 in suite full, else 1]"),
        sae_option,
        plugin_option,
        option("Run", "--out", type=PATH, help="Run folder.  [default: "
               "runs/DATASET-SUITE-seedSEED, so that the same command finds it again]"),
        option("Run", "--list", "list_names", is_flag=True,
               help="Show what can be named, and stop."),
        option("Run", "--dry-run", is_flag=True,
               help="Show the cells, done and to do, and their cost, and stop."),
        option("Run", "--unet-speed", rare=True, type=BoundedFloat(1e-3, 1e9), metavar="IMAGES",
               help="With --dry-run: show hours at so many U-Net passes per second."),
        compare_option,
        option("Execution", "--jobs", type=BoundedInt(most=MOST_JOBS), metavar="N",
               help="Processes that run cells, of one thread each. Affects speed only, never "
               "results.  [default: what cores and free memory bear]"),
        device_option,
        devices_option,
        EXECUTION_OPTIONS,
        cache_option,
        PHOTO_OPTIONS,
        option("Help", "--debug", rare=True, is_flag=True, help="Print the traceback of an error."),
        click.version_option(package_name="casl-bench", prog_name="casl-bench", cls=Section,
                             section="Help", rare=True),
    )
)  # fmt: skip


_WITHOUT_EFFECT = {"jobs", "devices", "memory_budget", "batch_size", "cache", "debug",
                   "data_root", "weights_root", "on_bad_image", "allow_download"}  # fmt: skip
"""Options without effect on what a command makes of rendered data sets."""


@deferred
def run_command(
    *,
    methods: tuple[str, ...],
    datasets: tuple[str, ...],
    concepts: tuple[str, ...],
    suite: str | None,
    quick: bool,
    seed: int,
    fit_seeds: int | None,
    sae: str,
    device: str,
    devices: str | None,
    out: Path | None,
    cache: Path | None,
    plugins: tuple[Path, ...],
    memory_budget: float | None,
    batch_size: int | None,
    jobs: int | None,
    list_names: bool,
    dry_run: bool,
    unet_speed: float | None,
    compare: Callable[[RunConfig, Callable[[RunConfig], int]], int] | None,
    debug: bool,
    **given: Any,
) -> int | str:
    """What a command line without a command's name does: it is carried out when called."""
    asked = {n: str(v) for n, v in sorted(locals().items()) if n not in _WITHOUT_EFFECT}

    from casl_bench.runs.declared import check_names
    from casl_bench.runs.run_lock import FinishedCommand
    from casl_bench.runs.suites import DEFAULT_SAE, DEFAULT_SUITE, domain_kind_of_suite
    from casl_bench.runs.suites import suite as suite_named

    photographs = dict(given)
    execution = pop_execution(photographs, jobs or 1)
    if quick and suite not in (None, "quick"):
        raise UsageError(f"--quick and --suite {suite} contradict each other", hint="give one")
    if unet_speed is not None and not dry_run:
        raise UsageError("--unet-speed is for --dry-run", hint="add --dry-run or leave it out")
    chosen_suite = suite_named("quick" if quick else suite or DEFAULT_SUITE)
    if not list_names:
        check_names(methods, datasets, concepts, plugins)
    finished = None
    own_files = (
        plugins or sae != DEFAULT_SAE or {n for n, v in photographs.items() if v} - _WITHOUT_EFFECT
    )
    if not (list_names or dry_run or compare or own_files):
        place = (out, chosen_suite.name, datasets, seed, execution.shard)
        finished = FinishedCommand.of(asked, *place)
    if finished is not None and finished.is_current():
        show(finished.table)
        say(f"finished before: {finished.out}")
        return 0

    from casl_bench.runs.progress import SilentProgress, open_progress
    from casl_bench.runs.system_info import check_torch

    quiet = list_names or dry_run
    shown = SilentProgress() if quiet else open_progress()
    with shown as progress, progress.task("loading torch and the methods", 0):
        check_torch()
        from casl_bench.runs import names
        from casl_bench.runs.dry_run import dry_run_text
        from casl_bench.runs.parallel import default_jobs

        names.load_registries(plugins)
    if list_names:
        return names.list_text()
    for module, reason in names.broken_modules().items():
        say(f"warning: {module} is left out, it fails to import: {reason}")
    config = _config(
        methods, datasets, concepts, photographs, suite=chosen_suite, seed=seed,
        fit_seeds=fit_seeds or chosen_suite.fit_seeds, sae=sae, device=device, devices=devices,
        here=not dry_run, out=out, cache=cache, plugins=plugins, memory_budget=memory_budget,
        batch_size=batch_size, jobs=jobs or 1, execution=execution,
    )  # fmt: skip
    if config.devices:
        config = config.model_copy(update={"jobs": jobs or len(config.devices)})
    elif jobs is None and execution.engine(jobs=2) == "local":
        bearable = default_jobs(config.device, domain_kind_of_suite(chosen_suite.name))
        config = config.model_copy(update={"jobs": bearable})
    if dry_run:
        return dry_run_text(config, unet_speed)
    with log_of_errors(config.out):
        if compare is not None:
            return compare(config, _run_and_report)
        code = _run_and_report(config)
        if finished is not None and code == 0:
            finished.write()
        return code


def _run_and_report(config: RunConfig) -> int:
    from casl_bench.report.run_report import remove_tables, write_run_report
    from casl_bench.runs.executor import run
    from casl_bench.runs.progress import open_progress
    from casl_bench.runs.run_lock import claim_run_folder

    with claim_run_folder(config):
        try:
            with open_progress() as progress:
                code = run(config, progress)
                with progress.task("tables and pictures", 0):
                    summary = write_run_report(config.out)
        except InvalidBenchmarkError:
            remove_tables(config.out)  # not to be believed any more
            raise
    show(summary)
    return code


def _config(
    methods: tuple[str, ...],
    datasets: tuple[str, ...],
    concepts: tuple[str, ...],
    photographs: dict[str, Any],
    *,
    suite: Suite,
    device: str,
    out: Path | None,
    cache: Path | None,
    devices: str | None = None,
    here: bool = True,
    sae: str = "top_k",
    **settings: Any,
) -> RunConfig:
    """Names and other options, checked: everything with a name has been imported."""
    from casl_bench.cache.store import default_cache
    from casl_bench.runs import names
    from casl_bench.runs.suites import Execution, RunConfig, default_out, domain_kind_of_suite
    from casl_bench.runs.system_info import resolve_device, resolve_devices

    if devices is not None and device != "cpu":
        raise UsageError(f"--device {device} and --devices {devices}", hint="give one of them")
    several = () if devices is None else resolve_devices(devices, here)
    found = names.resolve_datasets(datasets, domain_kind_of_suite(suite.name))
    chosen = names.resolve_methods(methods)
    weights = names.resolve_method_weights(photographs.pop("method_weights"), chosen)
    shard = settings.get("execution", Execution()).shard
    dictionary, weights_hash = names.resolve_sae(sae)
    return RunConfig(
        methods=chosen,
        datasets=found,
        concepts=names.resolve_concepts(concepts, found),
        suite=suite,
        device=several[0] if several else resolve_device(device, here),
        devices=several,
        options=names.checked_options(photographs, found),
        method_weights=weights,
        out=out or default_out(found, suite.name, settings["seed"], shard, dictionary),
        sae=dictionary,
        sae_hash=weights_hash,
        cache=cache or default_cache(),
        **settings,
    )


@click.command("tune")
@METHOD_OPTIONS
@click.option("--trials", type=BoundedInt(), default=8, show_default=True,
              help="Settings tried of each method, its default included.")  # fmt: skip
@click.option("--images", type=BoundedInt(), default=12, show_default=True,
              help="Validation images per concept.")  # fmt: skip
@click.option("--suite", default="full", show_default=True, metavar="NAME")
@seed_option
@device_option
@plugin_option
@PHOTO_OPTIONS
@click.option("--out", type=PATH, required=True, help="Folder of the sweep.")
@cache_option
@deferred
def tune_command(
    methods: tuple[str, ...],
    datasets: tuple[str, ...],
    trials: int,
    images: int,
    suite: str,
    seed: int,
    device: str,
    plugins: tuple[Path, ...],
    out: Path,
    cache: Path | None,
    **given: Any,
) -> int:
    """Try settings of each method on concepts held out for it, keep the best: docs/tuning.md."""
    from casl_bench.runs.declared import check_names
    from casl_bench.runs.suites import suite as suite_named

    chosen = suite_named(suite)
    check_names(methods, datasets, ("all",), plugins)
    if given["method_weights"]:
        raise UsageError("--method-weights leaves nothing to tune", hint="leave it out")

    from casl_bench.runs.system_info import check_torch

    check_torch()
    from casl_bench.runs import names
    from casl_bench.runs.progress import open_progress
    from casl_bench.runs.run_lock import claim_run_folder
    from casl_bench.runs.tuning import make_sweep, tune, write_outputs

    names.load_registries(plugins)
    config = _config(
        methods, datasets, ("all",), dict(given), suite=chosen, seed=seed, device=device,
        out=out, cache=cache, plugins=plugins,
    )  # fmt: skip
    sweep = make_sweep(config, trials, images)
    with log_of_errors(out), claim_run_folder(sweep.config):
        with open_progress() as progress:
            for module, reason in names.broken_modules().items():
                progress.note(f"{module} is left out, it fails to import: {reason}")
            results = tune(sweep, progress)
        write_outputs(sweep, results)
    return EXIT_INCOMPLETE if any(result.error for _, result in results) else 0
