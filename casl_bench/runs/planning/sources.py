"""Whose code takes part in a record, beyond this package's own.

The package declares versions, which are part of every key. Who develops a method, a metric or a
data set edits its file and declares nothing: a record keeps the hashes of such files, and counts
for its cell as long as they are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from casl_bench.cache.code_version import source_to_compare
from casl_bench.core.content_hash import hash_json
from casl_bench.metrics.metric import METRICS
from casl_bench.records.record import RunRecord
from casl_bench.worlds.world import WORLDS, World

Sources = Mapping[str, str]
"""What it is the source of, such as "method asyrp" → SHA-256, hex."""


def sources_of_methods(factories: Mapping[str, object]) -> dict[str, str]:
    """Of those entrants and controls that have their source elsewhere.

    Args:
        factories: name → what is registered under it.
    """
    found = {f"method {name}": source_to_compare(made_by) for name, made_by in factories.items()}
    return {name: source for name, source in sorted(found.items()) if source is not None}


def sources_of_metrics() -> dict[str, str]:
    """Of all metrics that have their source elsewhere: each is part of every record of an edit."""
    found = {f"metric {name}": source_to_compare(METRICS.factory(name)) for name in METRICS}
    return {name: source for name, source in found.items() if source is not None}


def parts_of_world(world: World) -> list[object]:
    """What of a world may be somebody else's: plugins may bring worlds."""
    name = world.dataset.card.name
    made_by = [WORLDS.factory(name)] if name in WORLDS else []
    return [world.dataset, world.backbone, *world.classifiers, *made_by]


def sources_of_world(world: World) -> dict[str, str]:
    """One hash of all that a data set's world has of others."""
    found = [source_to_compare(part) for part in parts_of_world(world)]
    return {f"data set {world.dataset.card.name}": hash_json(found)} if any(found) else {}


def with_sources(record: RunRecord, sources: Sources) -> RunRecord:
    """The record, saying what made it."""
    provenance = record.provenance.model_copy(update={"sources": dict(sources)})
    return record.model_copy(update={"provenance": provenance})


def changed(before: Sources, now: Sources) -> tuple[str, ...]:
    """What has another source now than that which made a result; what either lacks is equal."""
    return tuple(name for name, source in now.items() if before.get(name, source) != source)


def note_of_changed(names: Iterable[str], what: str) -> str:
    """One line.

    Args:
        names: of what has changed.
        what: is made again, such as "3 cells".
    """
    return f"edited since: {', '.join(sorted(set(names)))}; {what} made again"
