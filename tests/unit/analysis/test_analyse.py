"""Analysis of stored scores: everything complete is ranked, whoever ran it, with any metric."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from casl_bench.analysis.analyse import NUMBERS_FILE, analyse, read_numbers
from casl_bench.analysis.measure import flags_of
from casl_bench.cli.main import main
from casl_bench.core.errors import InvalidBenchmarkError, UsageError
from casl_bench.metrics.metric import METRICS
from casl_bench.results.record import Comparison, Measurement, RunRecord, headline_level
from casl_bench.results.run_folder import CellKey, RecordStore, write_jsonl
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

GOOD, FAIR, POOR = (MadeUpMethod(damage=d) for d in (0.1, 0.2, 0.4))
METRIC = """
from casl_bench.metrics.metric import EditMetric, MetricInfo, first_column, register_metric

register_metric(EditMetric(
    MetricInfo("twice_the_change", 3, True, "sd", (None, None), "twice the change"),
    lambda s: 2 * ((s.edit - s.base)[:, [s.target]] / s.spread[s.target]),
    first_column,
))
"""


@pytest.fixture
def metric_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mine.py"
    path.write_text(METRIC)
    yield path
    METRICS._factories.pop("twice_the_change", None)


def comparison_of(numbers: list[RunRecord]) -> Comparison:
    (found,) = [r.comparison for r in numbers if r.comparison is not None]
    return found


def write(folder: Path, **methods: MadeUpMethod) -> Path:
    write_made_up_run(folder, MadeUpRun(methods))
    return folder


def test_two_commands_in_one_folder_are_ranked_together(tmp_path: Path) -> None:
    run = write(tmp_path / "run", first=GOOD)
    write(run, second=FAIR, third=POOR)
    found = comparison_of(analyse([run]))
    assert [s.method for s in found.standings] == ["first", "second", "third"]
    assert found.incomplete == () and len(found.pairs) == 3


def test_a_method_without_every_concept_is_named_and_not_ranked(tmp_path: Path) -> None:
    run = write(tmp_path / "run", first=GOOD, second=FAIR)
    RecordStore(run).remove(CellKey("made_up", "edit", "second", None, "beard"))
    found = comparison_of(analyse([run]))
    assert [s.method for s in found.standings] == ["first"]
    assert found.incomplete == ("second",)


def test_mine_beside_the_published_one(tmp_path: Path) -> None:
    published = write(tmp_path / "published", casl=GOOD, asyrp=FAIR)
    mine = write(tmp_path / "mine", my_method=POOR)
    together = comparison_of(analyse([published, mine]))
    assert [s.method for s in together.standings] == ["casl", "asyrp", "my_method"]
    alone = comparison_of(analyse([published]))
    assert together.standings[0].epr_plus.value == alone.standings[0].epr_plus.value


@pytest.mark.parametrize(
    ("share", "flagged"), [(0.6, True), (0.7, False), (1.4, False), (1.6, True)]
)
def test_an_effect_on_test_images_that_is_not_what_was_asked_is_flagged(
    tmp_path: Path, share: float, flagged: bool
) -> None:
    numbers = analyse([write(tmp_path / "run", casl=GOOD)])
    record = next(r for r in numbers if r.method == "casl" and r.levels)
    headline = headline_level(record.levels)
    assert (
        headline is not None
        and headline.status == "reached"
        and "off the goal" not in flags_of(record)
    )
    effect = {"signed_target_change": Measurement.of(share * headline.goal, 32, "sd")}
    moved = record.model_copy(update={"measurements": record.measurements | effect})
    assert ("off the goal" in flags_of(moved)) == flagged


def test_analysis_is_a_function_of_what_is_stored(tmp_path: Path) -> None:
    run = write(tmp_path / "run", casl=GOOD, asyrp=FAIR)
    numbers = analyse([run])
    assert numbers == analyse([run]) == read_numbers(run)
    path = run / NUMBERS_FILE
    write_jsonl(path, numbers)
    assert read_numbers(path) == numbers
    with pytest.raises(UsageError, match="no records"):
        read_numbers(tmp_path / "empty")


def test_random_directions_are_needed_in_full(tmp_path: Path) -> None:
    run = write(tmp_path / "run", casl=GOOD)
    for concept in ("hat", "beard"):
        for draw in (0, 1):
            place = CellKey("made_up", "edit", "random_direction", None, concept, draw)
            RecordStore(run).remove(place)
    numbers = analyse([run])
    assert not [r for r in numbers if r.kind == "comparison"]
    (hat,) = [r for r in numbers if (r.method, r.concept) == ("casl", "hat")]
    assert hat.measurements["epr_plus"].status == "missing"


def test_scores_without_their_unit_are_refused(tmp_path: Path) -> None:
    run = write(tmp_path / "run", casl=GOOD)
    RecordStore(run).remove(CellKey("made_up", "scorer"))
    with pytest.raises(InvalidBenchmarkError, match="units of the scores on made_up"):
        analyse([run])


def test_a_metric_in_a_file_is_a_column_of_an_old_run(
    tmp_path: Path, metric_file: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = write(tmp_path / "run", casl=GOOD, asyrp=FAIR)
    monkeypatch.setattr("casl_bench.analysis.controls.check_bounds", lambda *a: None)
    assert main(["analyse", str(run), "--metric", str(metric_file)]) == 0
    assert "twice the change" in (run / "table.md").read_text()
    summary = capsys.readouterr().out
    assert "casl" in summary and f"more in {run}: table.md" in summary
    assert len(summary.splitlines()) <= 25
    (cell,) = [r for r in read_numbers(run / "numbers.jsonl")
               if (r.method, r.concept) == ("casl", "hat")]  # fmt: skip
    own, change = (cell.measurements[n] for n in ("twice_the_change", "signed_target_change"))
    assert own.value == pytest.approx(2 * (change.value or np.nan))
    assert cell.metric_versions["twice_the_change"] == 3


def test_only_these_metrics(tmp_path: Path) -> None:
    run = write(tmp_path / "run", casl=GOOD)
    chosen = [METRICS.create("flip_rate")]
    (cell, *_) = [r for r in analyse([run], chosen) if r.method == "casl"]
    assert {"flip_rate", "epr_plus"} <= cell.measurements.keys()
    assert "epr_raw" not in cell.measurements


def test_a_concept_that_every_image_shows_is_left_out_for_all(tmp_path: Path) -> None:
    methods = {"first": GOOD, "second": POOR}
    write_made_up_run(tmp_path / "some", MadeUpRun(methods, shown=("hat",)))
    (found,) = (r.comparison for r in analyse([tmp_path / "some"]) if r.kind == "comparison")
    assert found is not None and found.concepts == ("made_up/beard",)
    write_made_up_run(tmp_path / "none", MadeUpRun(methods, shown=("hat", "beard")))
    assert not [r for r in analyse([tmp_path / "none"]) if r.kind == "comparison"]
