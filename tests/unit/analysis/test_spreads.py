"""Spreads read back from a stored record stand in the order of a score table's columns."""

from __future__ import annotations

from pathlib import Path

from casl_bench.analysis.spreads import spreads_of
from casl_bench.results.record import Measurement, Provenance, RunRecord, SuiteRef
from casl_bench.results.run_folder import CellKey, RecordStore

SPREADS = {"smiling": 3.0, "bangs": 1.0, "hat": 2.0}


def test_columns_are_in_the_order_of_the_attributes(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    named = {f"plain.spread/{a}": Measurement.of(v, 9, "logit") for a, v in SPREADS.items()}
    named |= {f"deep.spread/{a}": Measurement.of(2 * v, 9, "logit") for a, v in SPREADS.items()}
    named |= {"plain.accuracy": Measurement.of(0.9, 9), "plain.slope/hat": Measurement.of(7.0, 9)}
    store.write(
        RunRecord(
            kind="scorer", world="synth", dataset="faces", dataset_revision="r", seed=0,
            suite=SuiteRef(name="tiny", version=1), attributes=tuple(SPREADS), measurements=named,
            provenance=Provenance(
                package_version="0", git_commit=None, git_dirty=None, packages={}, device="cpu",
                platform="Linux x86_64", started_at="2026-01-01T00:00:00+00:00",
            ),
        )
    )  # fmt: skip
    record = store.find(CellKey("faces", "scorer"))
    assert record is not None
    assert list(record.measurements) == sorted(record.measurements)  # as JSON is stored
    found = spreads_of(record)
    assert found["plain"].tolist() == [3.0, 1.0, 2.0]
    assert found["deep"].tolist() == [6.0, 2.0, 4.0]
    assert set(found) == {"plain", "deep"}
