"""One judge for all tests of studies."""

from __future__ import annotations

import pytest

from casl_bench.runs.planning.entrants import load_entrants
from casl_bench.studies.metric_validity.alternatives import Candidate, candidates
from casl_bench.studies.metric_validity.judging import Judge
from casl_bench.worlds.synth import synth_world


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge(synth_world("rendered_dogs"))


@pytest.fixture(scope="session")
def metrics() -> list[Candidate]:
    load_entrants()
    return candidates()
