"""What makes or scores a picture computes on one thread, whatever the process has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from casl_bench.core.errors import UsageError
from casl_bench.gate.compare_runs import BaseRevision
from casl_bench.runs import executor, rescoring, tuning, worker
from casl_bench.studies.headline import study as headline

NOTHING: Any = None
SWEEP: Any = SimpleNamespace(config=SimpleNamespace(suite=None), trials={"m": ()}, domains={})


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("act", "first"),
    [
        (lambda: executor.run(NOTHING, NOTHING), (executor, "check_engine")),
        (lambda: worker.carry_out(NOTHING, NOTHING, NOTHING), (worker, "BufferedProgress")),
        (lambda: tuning.tune(SWEEP, NOTHING), (tuning, "prepare_domains")),
        (lambda: rescoring.rescore(Path()), (rescoring, "RecordStore")),
        (lambda: headline.make_headline_study(8, 0, "", print), (headline, "load_registries")),
    ],
)
def test_within_the_package_one_thread_computes(
    act: Callable[[], Any], first: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*given: Any, **named: Any) -> Any:
        raise UsageError(f"{torch.get_num_threads()} threads")

    monkeypatch.setattr(*first, look)
    with pytest.raises(UsageError, match=r"^1 threads$"):
        act()
    assert torch.get_num_threads() == 2


def test_the_base_of_a_comparison_computes_on_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    package = tmp_path / "casl_bench" / "cli"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "main.py").write_text(
        "import os\ndef main():\n    return 0 if os.environ['OMP_NUM_THREADS'] == '1' else 1\n"
    )
    BaseRevision("0" * 40, tmp_path, tmp_path, tmp_path).run([], frozenset())
