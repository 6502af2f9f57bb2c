"""`casl-bench leaderboard` and `casl-bench submit`: the work is imported once one of them runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from casl_bench.cli.options import PATH, deferred
from casl_bench.core.command import show
from casl_bench.core.option_types import LocalPath

if TYPE_CHECKING:
    from casl_bench.report.submission import Expected
    from casl_bench.results.record import RunRecord

_records = click.option(
    "--records", type=PATH, default=Path("leaderboards/records"), show_default=True,
    help="Folder of the committed record files.",
)  # fmt: skip


@click.command("leaderboard")
@_records
@click.option("--out", type=PATH, default=Path("leaderboards"), show_default=True,
              help="Folder of the pages.")  # fmt: skip
@click.option("--check", is_flag=True, help="Write nothing; fail (exit 5) where a page is stale or "
              "was edited by hand.")  # fmt: skip
@click.option("--format", "form", default="markdown", show_default=True,
              type=click.Choice(["markdown", "latex", "csv", "json"]),
              help="Pages in --out, or one of the others on standard output.")  # fmt: skip
@click.option("--quotes", multiple=True, type=LocalPath(exists=True, dir_okay=False),
              metavar="FILE", help="A document that quotes tables of the pages, such as README.md: "
              "kept equal to them, too. May be given several times.")  # fmt: skip
@deferred
def leaderboard_command(
    records: Path, out: Path, check: bool, form: str, quotes: tuple[Path, ...]
) -> int | str:
    """Make the leaderboards anew of the committed records: docs/leaderboards.md."""
    from casl_bench.core.errors import UsageError
    from casl_bench.report.exports import export
    from casl_bench.report.leaderboard import ARCHIVE, read_sources
    from casl_bench.report.leaderboard_pages import (
        check_pages,
        check_quotes,
        render_pages,
        write_pages,
        write_quotes,
    )

    if (check or quotes) and form != "markdown":
        option = "--check" if check else "--quotes"
        raise UsageError(f"{option} is for the markdown pages", hint="leave --format out")
    sources, archived = read_sources(records), read_sources(records.parent / ARCHIVE)
    if not sources and not (archived and form == "markdown"):
        raise UsageError(
            "no record files", where=str(records), hint="add one with casl-bench submit RUN"
        )
    if form != "markdown":
        return export(sources, form)
    pages = render_pages(sources, archived)
    if check:
        check_pages(out, pages)
        check_quotes(quotes, pages)
    else:
        # First, since a quote of nothing is the likelier fault: it leaves all as it is.
        write_quotes(quotes, pages)
        write_pages(out, pages)
    done = "are those of the records" if check else "written"
    show(f"{len(pages)} pages {done}: {out}")
    return 0


@click.command("submit")
@click.argument("run_or_jsonl", type=LocalPath(exists=True))
@_records
@click.option("--name", help="Name of the file, without ending.  [default: of data sets, suite, "
              "its version and the seed]")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check only; add nothing.")
@deferred
def submit_command(run_or_jsonl: Path, records: Path, name: str | None, dry_run: bool) -> int:
    """Rank the methods of a run beside the published ones, or publish a whole run.

    RUN_OR_JSONL is a run folder or a file of its numbers, numbers.jsonl. Where scores of the same
    suite and seed are published, only the run's own methods are added, paired image by image with
    those: one method on one data set is enough. Else the records of the whole run are.
    """
    from casl_bench.report.submission import submit

    is_scores = run_or_jsonl.name.endswith(".scores.npz")
    if (run_or_jsonl.is_dir() or is_scores) and name is None:
        from casl_bench.report import method_submission as own

        published = own.published_beside(run_or_jsonl, records)
        if published is not None:
            found = own.check_method(run_or_jsonl, published, expected_of)
            show(own.submission_text(found))
            path = published if dry_run or is_scores else own.add_method(found)
            done = (
                "may be ranked beside it"
                if path == published
                else "added; now run casl-bench leaderboard"
            )
            show(f"{path}: {done}")
            return 0

    path = submit(run_or_jsonl, records, expected_of, name=name, dry_run=dry_run)
    done = "may be added" if dry_run else "added; now run casl-bench leaderboard"
    show(f"{path}: {done}")
    return 0


def expected_of(records: Sequence[RunRecord]) -> Expected:
    """What a run with the suite, data sets and methods of these records should hold."""
    from casl_bench.core.errors import UsageError
    from casl_bench.core.files import hash_json
    from casl_bench.domains.dataset import DATASETS
    from casl_bench.domains.domain import DOMAINS
    from casl_bench.methods.method import METHODS
    from casl_bench.report.submission import Expected
    from casl_bench.runs.cell import common_fields, method_fields
    from casl_bench.runs.names import load_registries, resolve_datasets
    from casl_bench.runs.plan import (
        MATCHED_CONCEPTS,
        card_of,
        guides_of,
        info_of,
        open_domain,
        scoring_classifiers,
    )
    from casl_bench.runs.scoring import Scorers
    from casl_bench.runs.suites import RunConfig, domain_kind_of_suite
    from casl_bench.runs.suites import suite as suite_named

    name = records[0].suite.name
    load_registries()
    try:
        suite = suite_named(name)
    except UsageError:
        return Expected(None, "", 0, 0, {}, (), {}, {})
    infos = {m: info_of(m) for m in METHODS}
    known = sorted({r.method for r in records if r.method in infos})
    datasets = sorted({r.dataset for r in records} & set(DATASETS.names()))
    config = RunConfig(methods=tuple(infos), datasets=tuple(DATASETS.names()), concepts=None,
                       suite=suite, seed=0, device="cpu", out=Path())  # fmt: skip
    methods = {m: method_fields(m, config) for m in known}
    # Of the others the models are the user's own.
    domains = {d: open_domain(d, config) for d in datasets
               if d in DOMAINS and card_of(d).domain_kind == "synth"}  # fmt: skip
    of_run = {"world", "suite", "seed"}

    def fields_of(record: RunRecord) -> dict[str, Any]:
        found: dict[str, Any] = {}
        domain = domains.get(record.dataset)
        if domain is not None:
            found = {k: v for k, v in common_fields(domain, config).items() if k not in of_run}
        if record.kind != "edit" or record.status != "done" or record.method not in methods:
            return found
        found |= methods[record.method]
        if domain is not None:
            info, names = infos[record.method], Scorers(domain).names
            found["judges"] = scoring_classifiers(info, names)
            found["guided_by"] = guides_of(info, names)
            attributes = {c.name: c.attribute for c in domain.dataset.card.concepts}
            found["attribute"] = attributes.get(record.concept or "")
        return found

    return Expected(
        suite_version=suite.version,
        suite_hash=hash_json(suite.model_dump(mode="json")),
        images=suite.test_images_per_concept,
        draws=suite.random_draws,
        concepts={d: tuple(c.name for c in card_of(d).concepts) for d in datasets},
        every_dataset=resolve_datasets(["all"], domain_kind_of_suite(name)),
        alone={m: i.draws for m, i in infos.items() if i.control and not i.beside},
        beside={
            m: tuple(c for c, i in infos.items() if i.beside and i.space == infos[m].space)
            for m in known
            if not infos[m].control
        },
        matched_concepts=MATCHED_CONCEPTS,
        single_fit=frozenset(m for m, i in infos.items() if i.deterministic),
        fields_of=fields_of,
    )
