"""Published scores: small, and analysed to the numbers of the run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.analysis.analyse import analyse, publish, read_numbers
from casl_bench.cli.main import main
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.results.published_scores import ENDING, read_published
from casl_bench.results.run_folder import CellKey
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "run"
    methods = {"casl": MadeUpMethod(damage=0.1), "asyrp": MadeUpMethod(gain=-1.0, damage=0.3)}
    write_made_up_run(folder, MadeUpRun(methods, fits=2))
    return folder


def test_numbers_agree_to_a_thousandth(run: Path, tmp_path: Path) -> None:
    path = tmp_path / f"ours{ENDING}"
    published = {CellKey.of(r): r for r in publish([run], path)}
    own = analyse([run])
    assert published.keys() == {CellKey.of(r) for r in own}
    compared = 0
    for record in own:
        found = published[CellKey.of(record)]
        for name, m in record.measurements.items():
            assert found.measurements[name].status == m.status
            if m.value is not None:
                assert found.measurements[name].value == pytest.approx(m.value, 1e-3, 1e-5)
                compared += 1
        if record.comparison is not None and found.comparison is not None:
            assert [s.method for s in found.comparison.standings] == [
                s.method for s in record.comparison.standings
            ]
    assert compared > 100
    assert read_numbers(path) == list(published.values())


def test_the_same_cells_are_the_same_bytes_and_small(run: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}{ENDING}" for name in ("a", "b")]
    for path in paths:
        publish([run], path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    edits = [c for c in read_published(paths[0]) if c.scores is not None]
    values = sum(c.scores.edit_logits.size for c in edits if c.scores is not None)
    assert paths[0].stat().st_size < 20_000 + 4 * values


def test_a_method_of_mine_stands_beside_the_published_ones(run: Path, tmp_path: Path) -> None:
    path = tmp_path / f"ours{ENDING}"
    assert main(["analyse", str(run), "--publish", str(path), "--out", str(tmp_path / "o")]) == 0
    mine = tmp_path / "mine"
    write_made_up_run(mine, MadeUpRun({"my_method": MadeUpMethod()}, fits=2))
    (found,) = [r.comparison for r in analyse([path, mine]) if r.comparison is not None]
    assert {s.method for s in found.standings} == {"casl", "asyrp", "my_method"}


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"bad{ENDING}"
    path.write_bytes(content)
    with pytest.raises(InvalidBenchmarkError, match="not a file of published scores"):
        read_published(path)
