"""One judge for all tests of studies."""

from __future__ import annotations

import pytest

from casl_bench.domains.rendered import rendered_domain
from casl_bench.runs.names import load_registries
from casl_bench.studies.metric_validity.scored_edits import Candidate, Judge, candidates


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge(rendered_domain("rendered_dogs"))


@pytest.fixture(scope="session")
def metrics() -> list[Candidate]:
    load_registries()
    return candidates()
