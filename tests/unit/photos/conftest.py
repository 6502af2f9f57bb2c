"""Where real photographs and the real annotation are, on machines that have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def golden_path() -> Callable[[str], Path]:
    """A path under the golden folder, beside or in the checkout; skipped where it is absent."""

    def path_of(name: str) -> Path:
        places = [base / "shared" / "golden" / name for base in (ROOT.parent, ROOT)]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            pytest.skip(f"{places[0]} is absent")
        return found

    return path_of
