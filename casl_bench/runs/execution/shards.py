"""Equal parts of a plan for job arrays that know nothing of each other.

The plan's cells, in the graph's order, are cut into as many stretches of equal estimated work, so
that the cells of a concept stay together. What a part's nodes need comes along: where parts share
a cache, as they should, it is made by whichever comes first, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from casl_bench.cache.code_version import RECORD_CODE, code_hash
from casl_bench.core.files import write_json
from casl_bench.records.provenance import git_state
from casl_bench.runs.execution.graph import Node
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.execution import Shard
from casl_bench.runs.planning.plan import Cell
from casl_bench.runs.planning.run_folder import PLAN_FILE

_VERSION = 1
_LEFT_OUT = frozenset({"inputs", "sources"})
"""Of a cell: it is told by the rest, and once for all cells."""

_UNIT = 1.0
"""Added to a node's estimated work: nothing is done for nothing."""


def owned_by(nodes: Sequence[Node], count: int) -> dict[str, int]:
    """Name of every node with cells, and of what comes last → which part it belongs to, from 1.

    The same everywhere: it depends on the plan alone. No part has more than an equal share of the
    work and one node over.
    """
    own = [n for n in nodes if n.cells or n.kind == "last"]
    total = sum(n.work + _UNIT for n in own)
    parts, before = {}, 0.0
    for node in own:
        weight = node.work + _UNIT
        middle = (before + weight / 2) / total
        parts[node.name] = min(int(middle * count), count - 1) + 1
        before += weight
    return parts


def part_of(nodes: Sequence[Node], shard: Shard) -> tuple[Node, ...]:
    """The nodes of one part, with all that they need, in the graph's order."""
    by_name = {n.name: n for n in nodes}
    parts = owned_by(nodes, shard.count)
    wanted = [name for name, part in parts.items() if part == shard.index]
    taken: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in taken:
            taken.add(name)
            wanted += by_name[name].needs
    return tuple(n for n in nodes if n.name in taken)


def write_plan(config: RunConfig, cells: Sequence[Cell]) -> Path:
    """Keep the whole plan beside a part's records, for whoever joins them."""
    path = config.out / PLAN_FILE
    write_json(path, {"schema_version": _VERSION, "shard": str(config.execution.shard),
                      "plan": plan_json(config, cells)})  # fmt: skip
    return path


def plan_json(config: RunConfig, cells: Sequence[Cell]) -> dict[str, Any]:
    """All that a comparison of the whole run must know, and whose code it is, as JSON values."""
    commit, _ = git_state(Path(__file__).parent)
    return {
        "commit": commit,
        "code": code_hash(RECORD_CODE),
        "key": config.key(),
        "methods": list(config.methods),
        "datasets": list(config.datasets),
        "concepts": None if config.concepts is None else list(config.concepts),
        "fit_seeds": config.fit_seeds,
        "device": config.device,
        "sources": {name: source for c in cells for name, source in c.sources.items()},
        "cells": [{k: v for k, v in asdict(c).items() if k not in _LEFT_OUT} for c in cells],
    }
