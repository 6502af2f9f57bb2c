"""One judge for all tests of studies."""

from __future__ import annotations

import pytest

from casl_bench.domains.rendered import rendered_world
from casl_bench.runs.names import load_entrants
from casl_bench.studies.metric_validity.scored_edits import Candidate, Judge, candidates


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge(rendered_world("rendered_dogs"))


@pytest.fixture(scope="session")
def metrics() -> list[Candidate]:
    load_entrants()
    return candidates()
