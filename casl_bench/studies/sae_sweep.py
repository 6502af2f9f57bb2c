"""Which dictionary of activations should be the default? A sweep, beside what it must beat.

The records are those of `casl-bench sae --suite sweep`, without pictures, latents and what was
measured of single attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from casl_bench.core.files import write_text
from casl_bench.metrics.dictionaries import HEADLINE
from casl_bench.report.columns import Column, table_of
from casl_bench.report.markdown import escape
from casl_bench.report.sae_tables import SaeRow, metric_column, rows_of
from casl_bench.results.record import Frozen
from casl_bench.results.sae_record import SaeRecord
from casl_bench.sae.dictionary import SaeConfig
from casl_bench.studies import parse_study, read_records, section, to_lines, write_page

ROWS, PAGE = "sae_sweep.jsonl", "sae_sweep.md"
RUN_COMMAND = (
    "casl-bench sae --suite sweep --saes top_k,untrained,pca,raw_channels --out runs/sae-sweep"
)
COMMAND = "casl-bench study sae-sweep runs/sae-sweep"
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
    """With the numbers of the page and nothing else."""
    measured = {
        name: {metric: own[metric] for metric in SHOWN if metric in own}
        for name, own in record.measurements.items()
    }
    return record.model_copy(update={"measurements": measured, "latents": (), "seconds": {}})


def read_sweep(folder: Path) -> list[SaeRecord]:
    """What `stored_sweep` wrote into a folder; UsageError where there is nothing."""

    def parsed(text: str, where: str) -> list[SaeRecord]:
        return parse_study(text, SweepHeader, TypeAdapter(SaeRecord), where)[1]

    return read_records(folder / ROWS, parsed, f"make them with {RUN_COMMAND}; {COMMAND}")


def best_row(records: Sequence[SaeRecord]) -> SaeRow:
    """The trained dictionary with the highest mean of the metric that chooses."""
    return next(row for row in rows_of(records) if not row.control)


def sweep_page(records: Sequence[SaeRecord]) -> str:
    """Markdown of the study."""
    rows = rows_of(records)
    columns = [
        Column[SaeRow]("dictionary", "dictionary", lambda row: row.label, text=True),
        Column[SaeRow]("target_l0", "target L0", lambda row: str(row.variant[3] or ""), text=True),
        *map(metric_column, SHOWN),
    ]
    _, site, width, k, vectors, per_range = best_row(records).variant
    default = SaeConfig(d_in=1)
    datasets = ", ".join(sorted({escape(r.id.dataset) for r in records}))
    length = "as many vectors as the suite has" if vectors is None else f"{vectors:,} vectors"
    timesteps = "one per range of timesteps" if per_range else "one for all timesteps"
    about = (
        "Site, width, target L0, number of training vectors, and whether one dictionary knows all "
        f"timesteps or each range has its own, on {datasets}; `mid` is h, where nothing else is "
        "said. In italics, what training must beat: an autoencoder of the same shape at its "
        "initial weights, as many principal components as active latents, and the channels "
        "themselves. Means over data sets and ranges of timesteps, with t intervals over these."
    )
    choice = (
        f"Highest mean pair score: {escape(site)}, {width or default.d_sae} wide, target L0 "
        f"{k or default.k}, {length}, {timesteps}. The default of `--sae top_k` is mid, "
        f"{default.d_sae} wide, target L0 {default.k}, one for all timesteps."
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
