"""The track on the toy domain: cells, resuming, failing alone, sites."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from casl_bench.conformance.toy_domain import register_toy_domain
from casl_bench.core.errors import InputError
from casl_bench.metrics.dictionaries import SAE_METRICS
from casl_bench.report.sae_tables import rows_of
from casl_bench.results.record import Measurement
from casl_bench.results.sae_record import (
    SaeCellId,
    SaeRecord,
    read_record,
    read_records,
    record_path,
)
from casl_bench.runs import suites
from casl_bench.runs.progress import LineProgress, SilentProgress
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import SAES, Activations, SaeInfo
from casl_bench.sae_track.run import TrackConfig, cells_of, run_track
from casl_bench.sae_track.suites import SAE_SUITES, SaeSuite, TimeRange
from casl_bench.studies.sae_sweep import chosen_row, read_sweep, sweep_page, write_sweep
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.usefixtures("own_entrants")


class Failing(TopK):
    info = SaeInfo(name="failing", title="t", source="s", version=1)

    def fit(self, activations: Activations) -> None:
        raise InputError("it cannot be")


@pytest.fixture(autouse=True)
def toy(own_entrants: None) -> Iterator[None]:
    register_toy_domain()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SAES, "_factories", {**SAES._factories, "failing": Failing})
        patch.setitem(suites.SUITES, "tiny", tiny_suite())
        yield


def small(**changes: object) -> SaeSuite:
    fields = SAE_SUITES["quick"].model_dump() | {
        "name": "tiny", "run_suite": "tiny", "targets": (4,), "pair_images": 3, "widths": (32,),
    }  # fmt: skip
    return SaeSuite.model_validate(fields | changes)


def config(tmp_path: Path, saes: tuple[str, ...], **changes: object) -> TrackConfig:
    return TrackConfig(
        small(**changes), saes, ("toy_shapes",), tmp_path / "run", tmp_path / "cache"
    )


def test_sizes_and_seeds_multiply_only_what_depends_on_them(tmp_path: Path) -> None:
    found = cells_of(
        config(tmp_path, ("top_k", "pca", "raw_channels", "untrained"), seeds=2, targets=(4, 8)),
        "toy_shapes",
    )
    count = {name: sum(c.sae == name for c in found) for name in {c.sae for c in found}}
    assert count == {"top_k": 4, "untrained": 4, "pca": 2, "raw_channels": 1}


def test_one_that_fails_is_a_line_and_the_others_are_measured(tmp_path: Path) -> None:
    own = config(tmp_path, ("failing", "oracle"))
    failed = run_track(own, SilentProgress())
    assert len(failed) == 1 and "it cannot be" in failed[0] and "failing" in failed[0]
    assert [r.id.sae for r in read_records(own.out)] == ["oracle"]


def test_what_is_done_is_not_measured_again_but_what_changed_is(tmp_path: Path) -> None:
    own = config(tmp_path, ("raw_channels",))
    run_track(own, SilentProgress())
    path = record_path(own.out, cells_of(own, "toy_shapes")[0])
    first, when = read_record(path), path.stat().st_mtime_ns
    run_track(own, SilentProgress())
    assert path.stat().st_mtime_ns == when
    run_track(config(tmp_path, ("raw_channels",), edit_images=3), SilentProgress())
    assert read_record(path).key != first.key
    path.write_text("{}")
    run_track(own, SilentProgress())
    again = read_record(path)
    assert again.measurements == first.measurements  # the same seed, the same numbers


PLUGIN = """
from casl_bench.conformance.toy_domain import register_toy_domain
from casl_bench.runs import suites
from tests.support.tiny_suite import tiny_suite

register_toy_domain()
suites.SUITES["tiny"] = tiny_suite()
"""


@pytest.mark.slow
def test_two_processes_measure_what_one_does_and_say_how_far_they_are(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    alone = config(tmp_path, ("pca", "raw_channels", "oracle"))
    both = replace(alone, out=tmp_path / "both", plugins=(tmp_path / "plugin.py",), jobs=2)
    stream = io.StringIO()
    assert run_track(alone, SilentProgress()) == []
    with LineProgress(stream) as progress:
        assert run_track(both, progress) == []
    one, two = ({r.id.sae: r.measurements for r in read_records(own.out)} for own in (alone, both))
    assert one == two
    assert "3 of 3 dictionaries to measure" in stream.getvalue()


def test_at_an_up_block_and_by_range_every_metric_has_its_number(tmp_path: Path) -> None:
    ranges = [TimeRange(name="low", low=0, high=400), TimeRange(name="high", low=400, high=9999)]
    own = config(
        tmp_path,
        ("top_k", "oracle"),
        sites=("up_0",),
        ranges=[r.model_dump() for r in ranges],
        seeds=2,
    )
    assert run_track(own, SilentProgress()) == []
    for record in read_records(own.out):
        assert record.id.site == "up_0" and record.ranges == ("low", "high")
        for measured in record.measurements.values():
            assert set(SAE_METRICS) <= set(measured)
            for name, info in SAE_METRICS.items():
                value = measured[name].value
                if value is not None:
                    assert info.bounds[0] - 1e-9 <= value <= info.bounds[1] + 1e-9, name
                else:
                    assert measured[name].reason


def test_raw_channels_lose_nothing(tmp_path: Path) -> None:
    own = config(tmp_path, ("raw_channels",))
    run_track(own, SilentProgress())
    (record,) = read_records(own.out)
    (measured,) = record.measurements.values()
    assert measured["explained_variance"].value == pytest.approx(1)
    assert measured["eps_error"].value == pytest.approx(0, abs=1e-9)
    assert measured["attribute_agreement"].value == 1
    assert record.id == SaeCellId(dataset="toy_shapes", sae="raw_channels")


SWEEP = {
    "ranges": [{"name": "t < 400", "low": 0, "high": 400},
               {"name": "t ≥ 400", "low": 400, "high": 9999}],
    "vectors": (1024, 3072), "per_range": True, "acting_seeds": 0,
}  # fmt: skip


def test_length_and_timesteps_of_training_are_axes_of_what_is_trained(tmp_path: Path) -> None:
    saes = ("top_k", "untrained", "pca", "raw_channels", "oracle")
    found = cells_of(config(tmp_path, saes, **SWEEP), "toy_shapes")
    count = {name: sum(c.sae == name for c in found) for name in saes}
    # Two lengths, on all timesteps and on either range.
    assert count == {"top_k": 6, "untrained": 1, "pca": 1, "raw_channels": 1, "oracle": 1}
    assert len({c.name for c in found}) == len(found)


def test_a_sweep_and_its_page(tmp_path: Path) -> None:
    own = config(tmp_path, ("top_k", "untrained", "pca", "raw_channels"), **SWEEP)
    assert run_track(own, SilentProgress()) == []
    records = read_records(own.out)
    trained = {(r.id.vectors, r.id.trained_on): r for r in records if r.id.sae == "top_k"}
    early, pooled = trained[3072, "t < 400"], trained[3072, None]
    assert early.ranges == ("t < 400",) and pooled.ranges == ("t < 400", "t ≥ 400")
    assert len({r.content_hash for r in trained.values()}) == len(trained)
    measured = early.measurements["t < 400"]
    assert measured["explained_variance"].value is not None
    assert measured["cause"].status == "missing", "a sweep changes no code"
    page = write_sweep(tmp_path / "docs", records).read_text("utf-8")
    assert "| top_k, 32 wide, 3,072 vectors, one per range |" in " ".join(page.split())
    for control in ("*untrained*, 32 wide", "*pca*", "*raw_channels*"):
        assert control in page
    stored = read_sweep(tmp_path / "docs")
    assert sweep_page(stored) == page and not any(r.latents for r in stored)
    each = [row for row in rows_of(records) if row.variant[4:] == (3072, True)]
    assert [len(row.values("pair_score")) for row in each] == [2], "both ranges are one row"
    assert chosen_row(stored).variant == chosen_row(records).variant


def planted(score: float, noise: float, vectors: int, span: str | None = None) -> SaeRecord:
    """A record whose attributes score so, up and down by `noise`."""
    values = [score + noise * (-1) ** i for i in range(8)]
    measured = {f"pair_score/{i}": value for i, value in enumerate(values)}
    measured["pair_score"] = score
    cell = SaeCellId(dataset="d", sae="top_k", site="mid", d_sae=8, k=4, seed=0, vectors=vectors,
                     trained_on=span)  # fmt: skip
    return SaeRecord(
        id=cell, key="0" * 64, title="t", control=False, signed=False, source="s", suite="sweep",
        quick=False, d_sae=8, attributes=("a",), ranges=("all",), latents=(), content_hash="0" * 64,
        domain_kind="synth", seconds={},
        measurements={"all": {name: Measurement.of(v, 1) for name, v in measured.items()}},
    )  # fmt: skip


def test_the_cheapest_that_is_not_significantly_worse_is_chosen() -> None:
    # Eight differences of 0.04 ± 0.04 have t = 0.04 / (0.04 √(8/7) / √8) = 2.65: p = 0.03.
    best = planted(0.8, 0.0, vectors=4000)
    beyond, within = planted(0.76, 0.04, vectors=1000), planted(0.79, 0.04, vectors=2000)
    assert chosen_row([best, beyond, within]).variant[4] == 2000
    assert chosen_row([best, beyond]).variant[4] == 4000
    each = [planted(0.79, 0.04, vectors=1500, span=span) for span in ("low", "high")]
    assert chosen_row([best, within, *each]).variant[4] == 2000, "two dictionaries cost twice"
