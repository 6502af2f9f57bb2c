"""Ranks of dictionaries: paired over concepts, controls outside, metrics without power named."""

from __future__ import annotations

from casl_bench.analysis.sae_ranking import cannot_tell_apart, concept_scores, paired, standings
from casl_bench.report.html.sae_pages import front_of, place_map
from casl_bench.report.sae_tables import questions, sae_tables
from casl_bench.results.record import Measurement
from casl_bench.results.sae_record import SaeCellId, SaeRecord

ATTRIBUTES = tuple("abcdefgh")


def record(
    sae: str, values: list[float], control: bool = False, seed: int = 0, **extra: float
) -> SaeRecord:
    measured = {
        f"pair_score/{a}": Measurement.of(v, 8) for a, v in zip(ATTRIBUTES, values, strict=True)
    }
    measured["pair_score"] = Measurement.of(sum(values) / len(values), 8)
    measured |= {name: Measurement.of(v, 8) for name, v in extra.items()}
    return SaeRecord(
        id=SaeCellId(dataset="toy", sae=sae, k=8, seed=seed),
        key="0", title=sae, control=control, signed=False, source="s", suite="toy", quick=False,
        d_sae=16, attributes=ATTRIBUTES, ranges=("all t",),
        measurements={"all t": measured}, content_hash="0",
        domain_kind="toy",
    )  # fmt: skip


GOOD = [0.8, 0.9, 0.85, 0.8, 0.9, 0.85, 0.8, 0.9]
BAD = [0.3, 0.42, 0.36, 0.3, 0.41, 0.35, 0.3, 0.4]
NEAR = [v + d for v, d in zip(GOOD, [0.01, -0.01, 0.02, -0.02, 0.01, -0.01, 0.01, -0.01],
                              strict=True)]  # fmt: skip


def test_better_ones_rank_first_and_equal_ones_share_a_place() -> None:
    found = standings([record("bad", BAD), record("good", GOOD), record("near", NEAR)])
    by_name = {v[0]: s for v, s in found.items()}
    assert (by_name["good"].low, by_name["good"].high) == (1, 2)
    assert (by_name["near"].low, by_name["near"].high) == (1, 2)
    assert (by_name["bad"].low, by_name["bad"].high) == (3, 3)
    assert set(by_name["good"].letters) & set(by_name["near"].letters)
    assert not set(by_name["good"].letters) & set(by_name["bad"].letters)


def test_controls_are_not_ranked_and_seeds_are_averaged() -> None:
    records = [
        record("good", GOOD),
        record("good", BAD, seed=1),
        record("oracle", [1.0] * 8, control=True),
    ]
    (place,) = standings(records).values()
    assert (place.low, place.high) == (1, 1)
    (scores,) = concept_scores(records[:2]).values()
    assert scores["toy/a"] == (0.8 + 0.3) / 2


def test_only_shared_concepts_are_compared() -> None:
    (pair,) = paired({"a": {"x": 1.0, "y": 2.0}, "b": {"y": 1.0}})
    assert pair.difference.value == 1 and pair.difference.n == 1 and pair.p is None


def test_a_metric_that_a_floor_wins_is_named() -> None:
    records = [
        record("good", GOOD, absorption=0.5),
        record("untrained", BAD, control=True, absorption=0.1),
    ]
    assert cannot_tell_apart(records, "pair_score", "higher", ["untrained"]) == []
    assert cannot_tell_apart(records, "absorption", "lower", ["untrained"]) == [
        ("good", "untrained")
    ]
    table = sae_tables(records)
    assert "- absorption: no trained dictionary above *untrained*" in table
    assert "| *untrained*" in table


def test_questions_compare_what_is_there() -> None:
    found = questions([record("top_k", GOOD), record("raw_channels", BAD, control=True)])
    assert "Does sparsity help at all over raw channels?" in found
    assert "top_k minus raw_channels: 0.495" in found
    assert "untrained" not in found


def test_the_front_is_what_nothing_beats() -> None:
    points = [(8.0, 0.5), (16.0, 0.4), (16.0, 0.7), (32.0, 0.7), (64.0, 0.9)]
    assert front_of(points, higher=True) == [(8.0, 0.5), (16.0, 0.7), (64.0, 0.9)]
    assert front_of(points, higher=False) == [(8.0, 0.5), (16.0, 0.4)]


def test_a_place_map_is_dark_where_the_latent_is() -> None:
    assert place_map([0, 0, 0, 1]) == "   \n  #"
    assert place_map([0.0] * 4).strip() == ""


def test_a_suite_for_trying_out_shows_what_ran_and_no_number() -> None:
    tried = record("good", GOOD).model_copy(update={"quick": True})
    shown = sae_tables([tried])
    assert "What ran" in shown and "| 1 of " in shown
    assert "0.8" not in shown and "CASL's questions" not in shown
