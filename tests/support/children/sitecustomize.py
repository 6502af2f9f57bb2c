"""Python runs this first in every process that a test starts: it reaches this machine alone."""

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location(
    "no_network", Path(__file__).parents[1] / "no_network.py"
)
assert _SPEC is not None and _SPEC.loader is not None
_NO_NETWORK = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_NO_NETWORK)
_NO_NETWORK.block()
