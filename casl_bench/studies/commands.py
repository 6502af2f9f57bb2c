"""`casl-bench study …`: studies of the benchmark itself. torch is imported once one runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from casl_bench.core.command import say, show
from casl_bench.core.option_types import (
    SEED,
    BoundedFloat,
    BoundedInt,
    LocalPath,
)


@click.group("study")
def study_group() -> None:
    """Make a study of the benchmark itself: its records, its page and its figures."""


@study_group.command("headline")
@click.option("--out", type=LocalPath(), default=Path("docs/studies"),
              show_default=True, help="Folder of records and page.")  # fmt: skip
@click.option("--images", type=BoundedInt(4), default=24, show_default=True,
              help="Images per concept to choose strengths on; as many are measured.")  # fmt: skip
@click.option("--seed", type=SEED, default=20, show_default=True, help="Of the fresh scorers.")
@click.option("--domains", metavar="NAMES", default="", help="[default: all that are rendered]")
@click.option("--cache", type=LocalPath(), help="Folder of rendered pictures.")
@click.option(
    "--render-only", is_flag=True, help="Make the page anew of the records in the folder."
)
def headline_command(
    out: Path, images: int, seed: int, domains: str, cache: Path | None, render_only: bool
) -> Callable[[], int]:
    """Which number should rank methods: candidates on synthetic editors and attacks.

    Some five minutes for each domain on one core.
    """

    def action() -> int:
        from casl_bench.core.files import write_text
        from casl_bench.studies.headline.page import (
            RECORDS,
            read_headline_study,
            write_headline_study,
        )

        if not render_only:
            from casl_bench.core.errors import unknown_name
            from casl_bench.domains.rendered import RENDERED
            from casl_bench.runs.system_info import check_torch
            from casl_bench.studies.headline.study import make_headline_study

            check_torch()
            names = tuple(domains.replace(",", " ").split()) or tuple(RENDERED)
            for name in names:
                if name not in RENDERED:
                    raise unknown_name("domain", name, RENDERED)
            asked = f" --images {images} --seed {seed}"
            asked += f" --domains {','.join(names)}" if set(names) != {*RENDERED} else ""
            records = make_headline_study(
                images, seed, f"casl-bench study headline{asked}", say, names, cache
            )
            write_text(out / RECORDS, records.to_jsonl())
        show(str(write_headline_study(out, read_headline_study(out))))
        return 0

    return action


@study_group.command("unet-gates")
@click.option("--out", type=LocalPath(), default=Path("docs/backbone_trials"), show_default=True,
              help="Folder of the figures before; the page comes beside them.")  # fmt: skip
def unet_gates_command(out: Path) -> Callable[[], str]:
    """Every gate of every U-Net, before and now, in one table."""

    def action() -> str:
        from casl_bench.core.files import write_text
        from casl_bench.studies.unet_gates import PAGE, gates_page

        page = gates_page(out)
        write_text(out / PAGE, page)
        return page

    return action


@study_group.command("sae-sweep")
@click.argument("run", metavar="[RUN]", type=LocalPath(exists=True, file_okay=False),
                required=False)  # fmt: skip
@click.option("--out", type=LocalPath(), default=Path("docs/studies"),
              show_default=True, help="Folder of records and page.")  # fmt: skip
def sae_sweep_command(run: Path | None, out: Path) -> Callable[[], int]:
    """Which dictionary of activations should be the default?

    RUN is the folder of `casl-bench sae --suite sweep`; without it the page is made anew of the
    records in the folder.
    """

    def action() -> int:
        from casl_bench.core.errors import UsageError
        from casl_bench.results.sae_record import read_records
        from casl_bench.studies import sae_sweep as study

        records = study.read_sweep(out) if run is None else read_records(run)
        if all(r.control for r in records):
            raise UsageError("no trained dictionary", where=str(run), hint=study.RUN_COMMAND)
        show(str(study.write_sweep(out, records)))
        return 0

    return action


@study_group.command("photographs-gate")
@click.option("--dataset", default="celeba", show_default=True, help="A data set with labels.")
@click.option("--data-root", type=LocalPath(exists=True), required=True, envvar="CASL_BENCH_DATA")
@click.option("--weights-root", type=LocalPath(exists=True), required=True,
              envvar="CASL_BENCH_WEIGHTS")  # fmt: skip
@click.option("--guide-clip", metavar="PLACE", help="As of a run.")
@click.option("--score-clip", metavar="PLACE", help="As of a run.")
@click.option("--images", type=BoundedInt(2), default=64, show_default=True,
              help="Held-out images of each figure.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True)
@click.option("--out", type=LocalPath(), default=Path("docs/studies"), show_default=True,
              help="Folder of record and table.")  # fmt: skip
def photographs_gate_command(
    dataset: str, data_root: Path, weights_root: Path, guide_clip: str | None,
    score_clip: str | None, images: int, device: str, out: Path,
) -> Callable[[], int]:  # fmt: skip
    """Is a U-Net of photographs good enough to compare methods on? Exit code 1 where it is not."""

    def action() -> int:
        from casl_bench.core.files import write_json, write_text
        from casl_bench.domains.domain import DOMAINS
        from casl_bench.domains.options import DomainOptions
        from casl_bench.models.micro_batch import one_thread
        from casl_bench.runs.names import load_registries
        from casl_bench.runs.system_info import check_torch, resolve_device
        from casl_bench.studies.photographs import measure_gate

        check_torch()
        load_registries()
        options = DomainOptions(
            data_root=data_root, weights_root=weights_root, guide_clip=guide_clip,
            score_clip=score_clip,
        )  # fmt: skip
        with one_thread():
            domain = DOMAINS.create(dataset, resolve_device(device), options)
            gate = measure_gate(
                domain, images=images, train_images=4 * images, pool=6 * images, say=say
            )
        write_json(out / "photographs_gate.json", gate.to_json())
        write_text(out / "photographs_gate.md", gate.to_markdown())
        show(gate.to_markdown())
        return 0 if gate.holds else 1

    return action


_RUN = LocalPath(exists=True, file_okay=False)
_plugins = click.option("--plugin", "plugins", type=LocalPath(exists=True), multiple=True,
                        help="As of the run, whose methods it registers.")  # fmt: skip


@study_group.command("headline-rates")
@click.argument("run", metavar="RUN", type=LocalPath(exists=True))
@click.option("--runs", type=BoundedInt(20, 1_000_000), default=400, show_default=True,
              help="Runs to simulate.")  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True)
def headline_rates_command(run: Path, runs: int, seed: int) -> Callable[[], str]:
    """Measure how often the headline's intervals and tests err, on the scores stored in RUN.

    RUN is a run folder or a file of published scores; some seconds on one core.
    """

    def action() -> str:
        from casl_bench.studies import headline_rates as rates

        found = rates.measure_headline_rates(rates.stored_concepts(run), runs, seed)
        return rates.headline_rates_text(found)

    return action


@study_group.command("gate-rates")
@click.argument("run", type=_RUN)
@click.option("--runs", type=BoundedInt(20, 1_000_000), default=400, show_default=True,
              help="Runs to resample unchanged, and with a 10 % loss in each cell.")  # fmt: skip
@click.option("--methods", metavar="NAMES", default="", help="Methods that count.  [default: all "
              "with two fits]")  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--shared", type=BoundedFloat(0, 1), default=0.0, show_default=True,
              help="Probability that a seed leads to the same fit on both sides.")  # fmt: skip
@click.option("--against", type=_RUN,
              help="A run of other code: instead, how often it fails against RUN, and how much "
              "the fits of the same seeds lost.")  # fmt: skip
def gate_rates_command(
    run: Path, runs: int, methods: str, seed: int, shared: float, against: Path | None
) -> Callable[[], str]:
    """Measure how often the gate errs, on runs resampled from the fits stored in RUN."""

    def action() -> str:
        from casl_bench.studies import gate_error_rates as rates

        names = frozenset(methods.replace(",", " ").split()) or None
        stored = rates.stored_fits(run, names)
        if against is None:
            return rates.rates_markdown(rates.measure_rates(stored, runs, seed, shared=shared))
        head = rates.stored_fits(against, names)
        return rates.against_text(stored, head, runs, seed, shared)

    return action


def _names(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Names with commas or spaces."""
    return tuple(dict.fromkeys(value.replace(",", " ").split()))


@study_group.command("deviations")
@click.option("--only", callback=_names, default="all", show_default=True, metavar="NAMES",
              help="Deviations.")  # fmt: skip
@click.option("--datasets", callback=_names, default="rendered_faces", show_default=True,
              metavar="NAMES", help="Data sets.")  # fmt: skip
@click.option("--concepts", callback=_names, default="all", show_default=True, metavar="NAMES",
              help="Concepts, four at least.")  # fmt: skip
@click.option("--suite", default="full", show_default=True, metavar="NAME")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--out", type=LocalPath(), default=Path("docs/studies"),
              show_default=True, help="Folder of rows and page.")  # fmt: skip
@click.option("--cache", type=LocalPath(), help="Cache folder.")
@click.option("--render-only", is_flag=True, help="Make the page anew of the rows in the folder.")
def deviations_command(
    only: tuple[str, ...],
    datasets: tuple[str, ...],
    concepts: tuple[str, ...],
    suite: str,
    seed: int,
    out: Path,
    cache: Path | None,
    render_only: bool,
) -> Callable[[], int]:
    """What it is worth to run each method as its authors do, before and after.

    Two fits for each deviation and concept, some two minutes each on one core; fits that are in the
    cache are not made again.
    """

    def action() -> int:
        from casl_bench.studies import deviations as study
        from casl_bench.studies import read_records

        if render_only:
            hint = f"make them with {study.COMMAND}"
            rows = read_records(out / study.ROWS, study.DeviationRows.from_jsonl, hint)
        else:
            from casl_bench.runs.system_info import check_torch

            check_torch()
            from casl_bench.runs import names
            from casl_bench.runs.progress import SilentProgress
            from casl_bench.runs.suites import suite as suite_named

            names.load_registries()
            found = names.resolve_datasets(datasets)
            config = study.config_of(
                found, names.resolve_concepts(concepts, found), suite_named(suite), seed, out, cache
            )
            rows = study.make_rows(config, study.chosen(only), SilentProgress(), say)
        show(str(study.write_study(out, rows)))
        return 0

    return action


@study_group.command("more-edits")
@click.argument("run", metavar="RUN", type=_RUN)
@click.option("--out", type=LocalPath(), help="Folder of rows and page.  [default: RUN]")
@click.option("--kinds", default="removal,pair", show_default=True, metavar="NAMES",
              help="removal (negative strengths), pair (two concepts), or both.")  # fmt: skip
@click.option(
    "--images", type=BoundedInt(), help="Test images of each row.  [default: the suite's]"
)
@click.option("--cache", type=LocalPath(), help="Cache folder of the run.")
@_plugins
def more_edits_command(
    run: Path, out: Path | None, kinds: str, images: int | None, cache: Path | None,
    plugins: tuple[Path, ...],
) -> Callable[[], int]:  # fmt: skip
    """Take concepts away, and put two in: tables of their own, with the fits of RUN.

    Some 40 seconds per concept and method on one core; what is done is not done again.
    """

    def action() -> int:
        from typing import get_args

        from casl_bench.core.errors import unknown_name
        from casl_bench.runs.names import load_registries
        from casl_bench.runs.system_info import check_torch
        from casl_bench.studies import more_edits

        known = get_args(more_edits.Kind)
        names = [name for name in kinds.replace(",", " ").split()]
        for name in names:
            if name not in known:
                raise unknown_name("kind", name, known)
        check_torch()
        load_registries(plugins)
        chosen = [kind for kind in known if kind in names]
        place = run if out is None else out
        rows = more_edits.make_more_edits(run, place, chosen, images=images, cache=cache, say=say)
        show(str(more_edits.write_more_edits(place, rows)))
        return 0

    return action


@click.command("rejudge")
@click.argument("run", metavar="RUN", type=_RUN)
@click.option("--seed", type=SEED, required=True,
              help="Of everything fresh: keep it to yourself until all is run.")  # fmt: skip
@click.option("--fresh-split", is_flag=True,
              help="Edit other test images, too, with the fits in the cache.")  # fmt: skip
@click.option("--steps", type=BoundedInt(), help="Of each classifier's training.  [default: 200]")
@click.option("--images", type=BoundedInt(), help="Pictures to train on.  [default: 6144]")
@click.option("--cache", type=LocalPath(), help="Cache folder of the run.")
@_plugins
def rejudge_command(
    run: Path, seed: int, fresh_split: bool, steps: int | None, images: int | None,
    cache: Path | None, plugins: tuple[Path, ...],
) -> Callable[[], int]:  # fmt: skip
    """Train fresh scorers, score the pictures of RUN again, say how much each method loses.

    Some two minutes for each domain on one core. The result stays in RUN, and leaderboards show
    it beside the headline; a method that loses more than a quarter is not ranked there.
    """

    def action() -> int:
        from casl_bench.runs.names import load_registries
        from casl_bench.runs.system_info import check_torch
        from casl_bench.studies.fresh_scorers import IMAGES, STEPS
        from casl_bench.studies.rejudge import rejudge, rejudged_text

        check_torch()
        load_registries(plugins)
        found = rejudge(
            run, seed, steps=steps or STEPS, images=images or IMAGES, fresh_split=fresh_split,
            cache=cache, say=say,
        )  # fmt: skip
        show(rejudged_text(found))
        return 0

    return action
