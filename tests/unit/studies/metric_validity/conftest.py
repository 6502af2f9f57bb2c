"""The scorers and metrics of all tests of this study."""

from __future__ import annotations

import pytest

from casl_bench.domains.rendered import rendered_domain
from casl_bench.metrics.metric import EditMetric
from casl_bench.runs.names import load_registries
from casl_bench.studies.metric_validity.study import StudyScorers, candidates


@pytest.fixture(scope="session")
def scorers() -> StudyScorers:
    return StudyScorers(rendered_domain("rendered_dogs"))


@pytest.fixture(scope="session")
def metrics() -> list[EditMetric]:
    load_registries()
    return candidates()
