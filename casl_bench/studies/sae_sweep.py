"""Which dictionary of activations should be the default? A sweep, beside what it must beat.

The records are those of `casl-bench sae --suite sweep`, without pictures, latents and what was
measured of single attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pydantic import TypeAdapter
from scipy.stats import ttest_rel

from casl_bench.core.files import write_text
from casl_bench.metrics.dictionaries import HEADLINE
from casl_bench.report.columns import Column, table_of
from casl_bench.report.markdown import escape
from casl_bench.report.sae_tables import SaeRow, metric_column, rows_of
from casl_bench.results.record import Frozen
from casl_bench.results.sae_record import SaeRecord
from casl_bench.sae.dictionary import SaeConfig, SaeTraining
from casl_bench.sae.sites import MID
from casl_bench.studies import parse_study, read_records, section, to_lines, write_page

ROWS, PAGE = "sae_sweep.jsonl", "sae_sweep.md"
RUN_COMMAND = (
    "casl-bench sae --suite sweep --saes top_k,untrained,pca,raw_channels "
    "--datasets rendered_faces --out runs/sae-sweep"
)
COMMAND = "casl-bench study sae-sweep runs/sae-sweep"
SIGNIFICANT = 0.05
_EXPANSION = SaeConfig(d_in=16).d_sae // 16
SHOWN = (
    HEADLINE, "probe_labels", "localisation", "explained_variance", "eps_error",
    "attribute_agreement", "l0", "dead_share",
)  # fmt: skip
"""Metrics of the page, the first of which chooses."""


class SweepHeader(Frozen):
    """First line of the records."""

    command: str = f"{RUN_COMMAND}; {COMMAND}"


def stored_sweep(records: Sequence[SaeRecord]) -> str:
    """Records as JSON lines."""
    return to_lines([SweepHeader(), *map(_alone, records)])


def _alone(record: SaeRecord) -> SaeRecord:
    """With the numbers of the page and what chooses, of each attribute, and nothing else."""
    measured = {
        name: {m: own[m] for m in own if m in SHOWN or m.startswith(f"{HEADLINE}/")}
        for name, own in record.measurements.items()
    }
    return record.model_copy(update={"measurements": measured, "latents": (), "seconds": {}})


def read_sweep(folder: Path) -> list[SaeRecord]:
    """What `stored_sweep` wrote into a folder; UsageError where there is nothing."""

    def parsed(text: str, where: str) -> list[SaeRecord]:
        return parse_study(text, SweepHeader, TypeAdapter(SaeRecord), where)[1]

    return read_records(folder / ROWS, parsed, f"make them with {RUN_COMMAND}; {COMMAND}")


def chosen_row(records: Sequence[SaeRecord], site: str = MID) -> SaeRow:
    """The cheapest trained dictionary of a site that is not significantly worse than its best.

    The best has the highest mean of the metric that chooses. Significant at 5 % by a paired t test
    over data sets, ranges of timesteps and attributes; cost is vectors times width, of all ranges.
    """
    rows = _trained_rows(records, site)
    best = _by_attribute(rows[0])

    def close(row: SaeRow) -> bool:
        own = _by_attribute(row)
        shared = sorted(best.keys() & own.keys())
        pairs = [[values[key] for key in shared] for values in (best, own)]
        return pairs[0] == pairs[1] or not ttest_rel(*pairs).pvalue < SIGNIFICANT

    def cost(row: SaeRow) -> int:
        _, _, width, _, vectors, _ = row.variant
        dictionaries = len({record.id.trained_on for record in row.records})
        return (width or 1) * (vectors or 1) * dictionaries

    return min(filter(close, rows), key=cost)


def _in_words(records: Sequence[SaeRecord], site: str) -> str:
    row, best = chosen_row(records, site), _trained_rows(records, site)[0]
    _, _, width, k, vectors, per_range = row.variant
    return (
        f"`{escape(site)}`: {width} wide, target L0 {k}, {vectors:,} vectors, "
        f"{'one per range of timesteps' if per_range else 'one for all timesteps'}; pair score "
        f"{fmean(row.values(HEADLINE)):.3f}, the best has {fmean(best.values(HEADLINE)):.3f}"
    )


def _trained_rows(records: Sequence[SaeRecord], site: str) -> list[SaeRow]:
    """Of a site, the best first."""
    return [r for r in rows_of(records) if not r.control and r.variant[1] == site]


def _by_attribute(row: SaeRow) -> dict[tuple[str, str, str], float]:
    """(Data set, range, attribute) → the metric that chooses."""
    return {
        (record.id.dataset, span, metric): m.value
        for record in row.records
        for span, measured in record.measurements.items()
        for metric, m in measured.items()
        if metric.startswith(f"{HEADLINE}/") and m.value is not None
    }


def sweep_page(records: Sequence[SaeRecord]) -> str:
    """Markdown of the study."""
    rows = rows_of(records)
    columns = [
        Column[SaeRow]("dictionary", "dictionary", lambda row: row.label, text=True),
        Column[SaeRow]("target_l0", "target L0", lambda row: str(row.variant[3] or ""), text=True),
        *map(metric_column, SHOWN),
    ]
    datasets = ", ".join(sorted({escape(r.id.dataset) for r in records}))
    about = (
        "Site, width, target L0, number of training vectors, and whether one dictionary knows all "
        f"timesteps or each range has its own, on {datasets}; `mid` is h, where nothing else is "
        "said. In italics, what training must beat: an autoencoder of the same shape at its "
        "initial weights, as many principal components as active latents, and the channels "
        "themselves. Means over data sets and ranges of timesteps, with t intervals over these. A "
        "record holds the pair score of each attribute, too."
    )
    sites = sorted({r.id.site for r in records}, key=lambda site: site != MID)
    choice = (
        "The cheapest that is not significantly worse than the best at its site: by a paired t "
        "test of the pair score over data sets, ranges and attributes, at 5 %. Cost is vectors "
        "times width, of all ranges.\n\n"
        + "\n".join(f"- {_in_words(records, site)}" for site in sites)
        + "\n\n"
        f"Methods edit h, so the first is the default of `--sae top_k`, {_EXPANSION} times as many "
        "latents as channels; how long it is trained is the suite's `sae_steps`, of "
        f"{SaeTraining().batch:,} vectors each."
    )
    parts = (
        "# Which dictionary of activations?",
        about,
        f"```bash\n{RUN_COMMAND}\n{COMMAND}\n```",
        section("Choice", choice),
        section("All", table_of(columns, rows)),
    )
    return "\n\n".join(parts) + "\n"


def write_sweep(out: Path, records: Sequence[SaeRecord]) -> Path:
    """Write records and page into a folder; returns the page."""
    write_text(out / ROWS, stored_sweep(records))
    return write_page(out / PAGE, sweep_page(read_sweep(out)), {})
