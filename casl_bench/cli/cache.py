"""What is on this machine: `casl-bench cache ls|prune|verify` and `doctor`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from casl_bench.cache.store import ABOUT, KINDS, default_cache
from casl_bench.cli.options import PATH, cache_option, deferred
from casl_bench.core.command import show

EXIT_DAMAGED = 5
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SPANS = {"": 86400, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DAY = 86400
_MOST = 1e18
"""Bytes or seconds: an exabyte."""

kind_option = click.option(
    "--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only these.  [default: all]"
)


def _measure(units: dict[str, int], example: str) -> Callable[..., float | None]:
    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
        if value is None:
            return None
        match = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z]*)", value.strip().lower())
        if match is None or match[2] not in units:
            raise click.BadParameter(f"'{value}' is no amount, give e.g. {example}", ctx, param)
        amount = float(match[1]) * units[match[2]]
        if amount > _MOST:
            raise click.BadParameter(f"'{value[:40]}' is too much", ctx, param)
        return amount

    return parse


@click.group("cache")
def cache_group() -> None:
    """Look after the artifacts that runs share: docs/caching.md."""


@cache_group.command("ls")
@cache_option
@kind_option
@deferred
def ls_command(cache: Path | None, kinds: tuple[str, ...]) -> int:
    """List what is in the cache, the most recently used last."""
    import time

    from tabulate import tabulate

    from casl_bench.cache.maintenance import stored_in

    root = cache or default_cache()
    entries = sorted(stored_in(root, kinds or KINDS), key=lambda e: e.last_used)
    now = time.time()
    rows = [
        (e.kind, e.hash[:12], _size(e.bytes), _age(now - e.last_used), _about(e)) for e in entries
    ]
    if rows:
        heads = ("kind", "entry", "size", "unused for", "what")
        show(tabulate(rows, heads, colalign=("left", "left", "right", "right", "left")))
    total = _size(sum(e.bytes for e in entries))
    click.echo(f"{len(entries)} entries, {total} in {root}")
    return 0


@cache_group.command("prune")
@cache_option
@kind_option
@click.option("--size-budget", callback=_measure(_UNITS, "20GB"), metavar="SIZE",
              help="Delete the longest unused until this is left, e.g. 20GB.")  # fmt: skip
@click.option("--older-than", callback=_measure(_SPANS, "30d"), metavar="TIME",
              help="Delete what was not used for so long, e.g. 12h, 30d.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, and stop.")
@deferred
def prune_command(
    cache: Path | None,
    kinds: tuple[str, ...],
    size_budget: float | None,
    older_than: float | None,
    dry_run: bool,
) -> int:
    """Delete entries, the longest unused first; what a process makes or reads stays.

    With --kind alone, all entries of that kind.
    """
    from casl_bench.cache.maintenance import delete, select_for_pruning, stored_in

    root = cache or default_cache()
    if size_budget is None and older_than is None and not kinds:
        raise click.UsageError("say what may go: --size-budget, --older-than or --kind")
    entries = list(stored_in(root, kinds or KINDS))
    going = entries
    if size_budget is not None or older_than is not None:
        budget = None if size_budget is None else round(size_budget)
        going = select_for_pruning(entries, size_budget=budget, older_than=older_than)
    gone = freed = 0
    for entry in going:
        if dry_run:
            click.echo(f"would delete {entry.kind} {entry.hash[:12]} ({_size(entry.bytes)})")
        elif not delete(root, entry):
            click.echo(f"kept, in use: {entry.kind} {entry.hash[:12]}")
            continue
        gone, freed = gone + 1, freed + entry.bytes
    verb = "would be deleted" if dry_run else "deleted"
    click.echo(f"{gone} of {len(entries)} entries {verb}: {_size(freed)}")
    return 0


@cache_group.command("verify")
@cache_option
@kind_option
@click.option("--delete-damaged", is_flag=True, help="Delete them: the next run makes them anew.")
@deferred
def verify_command(cache: Path | None, kinds: tuple[str, ...], delete_damaged: bool) -> int:
    """Hash every file of every entry; exit code 5 where one is not what was written."""
    from casl_bench.cache.maintenance import delete, stored_in
    from casl_bench.cache.maintenance import verify as fault_of

    root = cache or default_cache()
    checked = damaged = left = 0
    for entry in stored_in(root, kinds or KINDS):
        checked += not entry.unfinished
        fault = fault_of(entry)
        if not fault:
            continue
        damaged += 1
        gone = delete_damaged and delete(root, entry)
        left += not gone
        show(f"damaged{', deleted' if gone else ''}: {entry.folder}: {fault}")
    click.echo(f"{checked} entries checked, {damaged} damaged")
    return EXIT_DAMAGED if left else 0


@click.command("doctor")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 … or mps.")
@cache_option
@click.option("--data-root", type=PATH, envvar="CASL_BENCH_DATA", show_envvar=True)
@click.option("--weights-root", type=PATH, envvar="CASL_BENCH_WEIGHTS", show_envvar=True)
@deferred
def doctor_command(
    device: str, cache: Path | None, data_root: Path | None, weights_root: Path | None
) -> int:
    """Look at this machine: versions, devices, cache, data and weights."""
    from casl_bench.domains.options import default_weights_root
    from casl_bench.runs.system_info import doctor_page

    weights_root = weights_root or default_weights_root()
    page, code = doctor_page(device, cache or default_cache(), data_root, weights_root)
    show(page)
    return code


def _size(count: int) -> str:
    for unit in ("GB", "MB", "kB"):
        size = _UNITS[unit.lower()]
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _age(seconds: float) -> str:
    """In whole days, hours or minutes; nothing is used in the future."""
    seconds = max(seconds, 0)
    for span, unit in ((_DAY, "d"), (3600, "h"), (60, "min")):
        if seconds >= span:
            return f"{seconds // span:.0f} {unit}"
    return "now"


def _about(entry: Any) -> str:
    if entry.fault:
        return f"damaged: {entry.fault}"
    if entry.sidecar is None:
        return "unfinished"
    return " / ".join(str(part) for part in entry.sidecar.inputs.get(ABOUT, []))
