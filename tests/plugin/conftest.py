import sys

import pytest

from casl_bench.domains.dataset import DATASETS
from casl_bench.domains.domain import DOMAINS
from casl_bench.methods.method import METHODS
from casl_bench.runs.names import load_registries

STRANGERS = ("casl_bench_plugin_", "fake_casl_method", "broken_casl_method")


@pytest.fixture
def fresh_registry(monkeypatch):
    """What a test makes known is forgotten after it, and may be made known again."""
    load_registries()  # a module registers on its first import only: do that before the copy
    for registry in (METHODS, DATASETS, DOMAINS):
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
        monkeypatch.setattr(registry, "_broken", dict(registry._broken))
        monkeypatch.setattr(registry, "_entry_points_loaded", False)
    yield
    for name in [n for n in sys.modules if n.startswith(STRANGERS)]:
        del sys.modules[name]
