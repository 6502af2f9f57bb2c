"""Run folders of made-up scores, written once a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from casl_bench.gate.run_side import RunSide, read_side
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

MakeRun = Callable[..., Path]
MakeSide = Callable[..., RunSide]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """(name, methods; fields of `MadeUpRun`) → folder."""

    def make(name: str, methods: dict[str, MadeUpMethod], **fields: Any) -> Path:
        write_made_up_run(tmp_path / name, MadeUpRun(methods, **fields))
        return tmp_path / name

    return make


@pytest.fixture
def make_side(make_run: MakeRun) -> MakeSide:
    """The same, read."""

    def make(name: str, methods: dict[str, MadeUpMethod], **fields: Any) -> RunSide:
        return read_side(make_run(name, methods, **fields))

    return make
