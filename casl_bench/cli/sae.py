"""`casl-bench sae`: which dictionary of a diffusion model is any good?"""

from __future__ import annotations

from pathlib import Path

import click

from casl_bench.cli.options import PATH, cache_option, deferred, plugin_option
from casl_bench.core.command import EXIT_INCOMPLETE, log_of_errors, say, show
from casl_bench.core.errors import UsageError
from casl_bench.core.option_types import MOST_JOBS, BoundedInt


@click.command("sae")
@click.option("--saes", default="all", show_default=True, metavar="NAMES",
              help="Dictionaries, with commas: names, or folders of some trained "
              "elsewhere.")  # fmt: skip
@click.option("--datasets", default="all", show_default=True, metavar="NAMES")
@click.option("--suite", metavar="NAME", help="quick, standard or full.  [default: standard]")
@click.option("--quick", is_flag=True, help="Short for --suite quick: to try out, in minutes.")
@click.option("--jobs", type=BoundedInt(most=MOST_JOBS), metavar="N",
              help="Processes of one thread each.  [default: one per core]")  # fmt: skip
@plugin_option
@click.option("--out", type=PATH, help="Run folder.  [default: runs/sae-SUITE]")
@cache_option
@deferred
def sae_command(
    saes: str,
    datasets: str,
    suite: str | None,
    quick: bool,
    jobs: int | None,
    plugins: tuple[Path, ...],
    out: Path | None,
    cache: Path | None,
) -> int:
    """Measure dictionaries of activations on every metric, where the true factors are known.

    Writes records, tables, a plot of sparsity against each metric and a report with a page of each
    matched latent. Interrupted, the same command goes on where it stopped. See docs/sae_track.md.
    """
    if quick and suite not in (None, "quick"):
        raise UsageError(f"--quick and --suite {suite} contradict each other", hint="give one")

    from casl_bench.runs.system_info import check_torch

    check_torch()
    from joblib import cpu_count

    from casl_bench.cache.store import default_cache
    from casl_bench.core.files import make_folder, write_text
    from casl_bench.report.html.sae_pages import write_sae_report
    from casl_bench.report.sae_tables import sae_tables
    from casl_bench.results.sae_record import read_records
    from casl_bench.runs import names
    from casl_bench.runs.progress import open_progress
    from casl_bench.sae.dictionary import SAES
    from casl_bench.sae_track.run import TrackConfig, check_datasets, run_track
    from casl_bench.sae_track.suites import sae_suite

    names.load_registries(plugins)
    chosen = sae_suite("quick" if quick else suite or "standard")
    wanted = saes.replace(",", " ").split()
    known = [n for w in wanted for n in (sorted(SAES) if w == "all" else [w])]
    config = TrackConfig(
        suite=chosen,
        saes=tuple(dict.fromkeys(names.resolve_sae(n)[0] for n in known)),
        datasets=names.resolve_datasets(datasets.replace(",", " ").split()),
        out=out or Path("runs") / f"sae-{chosen.name}",
        cache=cache or default_cache(),
        plugins=plugins,
        jobs=jobs or cpu_count(),
    )
    check_datasets(config.datasets)
    make_folder(config.out)
    with log_of_errors(config.out):
        with open_progress() as progress:
            failed = run_track(config, progress)
        records = [r for r in read_records(config.out) if r.suite == chosen.name]
        if not records:
            raise UsageError("no dictionary could be measured", hint="; ".join(failed)[:300])
        table = sae_tables(records)
        write_text(config.out / "table.md", table)
        made = [f"records and table: {config.out}"]
        if not chosen.quick:
            page = write_sae_report(config.out, records, config.out / "report")
            made.append(f"report: {page}")
    show(table)
    for line in failed:
        say(f"failed: {line}")
    say("; ".join(made))
    return EXIT_INCOMPLETE if failed else 0
