"""What a complete run of a suite holds, asked of the package that is installed.

The only part of the leaderboards that knows methods and data sets, and so imports torch; pages and
exports do without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import UsageError
from casl_bench.records.record import RunRecord


@dataclass(frozen=True)
class Expected:
    """What records are held against.

    Attributes:
        suite_version: today's of the suite; None where there is no such suite.
        suite_hash: of all its settings, as in a run folder's manifest.
        images: test images a concept, at most.
        draws: of each control that is drawn.
        concepts: data set → its concepts; one that is not known here is absent.
        every_dataset: all data sets that the suite is meant for.
        alone: control that every concept has → whether it is drawn several times.
        beside: entrant → controls that stand beside it; one that is not known here is absent.
        versions: method → its version.
        settings: method → its settings in this suite.
    """

    suite_version: int | None
    suite_hash: str
    images: int
    draws: int
    concepts: Mapping[str, tuple[str, ...]]
    every_dataset: tuple[str, ...]
    alone: Mapping[str, bool]
    beside: Mapping[str, tuple[str, ...]]
    versions: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def expected_of(records: Sequence[RunRecord]) -> Expected:
    """What a run with these records' suite, data sets and methods should hold.

    Args:
        records: at least one, all of one suite.
    """
    from casl_bench.images.dataset import DATASETS
    from casl_bench.methods.method import METHODS
    from casl_bench.runs.planning.config import suite as suite_named
    from casl_bench.runs.planning.config import world_of_suite
    from casl_bench.runs.planning.entrants import load_entrants
    from casl_bench.runs.planning.names import resolve_datasets
    from casl_bench.runs.planning.plan import card_of, info_of, make_method

    name = records[0].suite.name
    load_entrants()
    try:
        suite = suite_named(name)
    except UsageError:
        return Expected(None, "", 0, 0, {}, (), {}, {})
    infos = {m: info_of(m) for m in METHODS}
    known = sorted({r.method for r in records if r.method in infos})
    methods = {m: make_method(m, suite) for m in known}
    datasets = sorted({r.dataset for r in records} & set(DATASETS.names()))
    return Expected(
        suite_version=suite.version,
        suite_hash=hash_json(suite.model_dump(mode="json")),
        images=suite.test_images_per_concept,
        draws=suite.random_draws,
        concepts={d: tuple(c.name for c in card_of(d).concepts) for d in datasets},
        every_dataset=resolve_datasets(["all"], world_of_suite(name)),
        alone={m: i.draws for m, i in infos.items() if i.control and not i.beside},
        beside={
            m: tuple(c for c, i in infos.items() if i.beside and i.space == infos[m].space)
            for m in known
            if not infos[m].control
        },
        versions={m: method.info.version for m, method in methods.items()},
        settings={m: method.config.model_dump(mode="json") for m, method in methods.items()},
    )
