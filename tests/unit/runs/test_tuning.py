"""Trials that a sweep draws, the number it maximises, settings that a suite carries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casl_bench.core.errors import UsageError
from casl_bench.methods.method import METHODS, MethodConfig, MethodInfo
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import info_of, make_method
from casl_bench.runs.suites import SUITES, TUNED, RunConfig, Suite, read_settings, suite
from casl_bench.runs.tuning import (
    BUDGET_FIELDS,
    Objective,
    draw_trials,
    objective,
    search_space,
    strength_of_flips,
)

QUICK = suite("quick")


class Config(MethodConfig):
    fit_steps: int = 7
    batch_size: int = 2
    rate: float = 0.1
    window: int = 3
    name: str = "a"


class Method:
    info: ClassVar[MethodInfo] = MethodInfo("m", "m", "here", 1)

    def __init__(self, config: MethodConfig | None = None, **settings: Any) -> None:
        self.config = config or Config(**settings)


SPACE = {"rate": (0.01, 0.1, 1.0), "window": (1, 2, 3), "name": ("a", "b")}


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load_registries()
    monkeypatch.setattr(METHODS, "_factories", dict(METHODS._factories))
    yield


def register(space: Any = SPACE, name: str = "m") -> None:
    body: dict[str, Any] = {"info": MethodInfo(name, name, "here", 1)}
    if space is not None:
        body["search_space"] = classmethod(lambda cls: space)
    METHODS._factories[name] = type("Made", (Method,), body)


# Trials ----------------------------------------------------------------------------


def test_the_default_comes_first_and_no_setting_twice() -> None:
    register()
    trials = draw_trials("m", QUICK, 18, seed=0)
    assert [t.number for t in trials] == list(range(18))
    assert trials[0].settings == {}
    tried = [{"rate": 0.1, "window": 3, "name": "a"} | t.settings for t in trials]
    assert len({json.dumps(t, sort_keys=True) for t in tried}) == 18  # the whole grid, default once
    for trial in trials[1:]:
        assert all(trial.settings[field] in SPACE[field] for field in SPACE)


def test_fewer_trials_are_the_beginning_of_more() -> None:
    register()
    assert draw_trials("m", QUICK, 5, seed=3) == draw_trials("m", QUICK, 11, seed=3)[:5]


def test_the_draw_depends_on_seed_and_name_and_on_nothing_else() -> None:
    register()
    register(dict(reversed(SPACE.items())), name="other_order")
    drawn = draw_trials("m", QUICK, 6, seed=0)
    assert drawn == draw_trials("m", QUICK, 6, seed=0)
    assert drawn != draw_trials("m", QUICK, 6, seed=1)
    assert drawn != draw_trials("other_order", QUICK, 6, seed=0)
    register(dict(reversed(SPACE.items())))
    assert drawn == draw_trials("m", QUICK, 6, seed=0)


def test_the_draw_is_fair() -> None:
    register()
    first = [draw_trials("m", QUICK, 2, seed)[1].settings["rate"] for seed in range(300)]
    share = first.count(1.0) / len(first)  # 6 of the 17 points that are not the default
    assert abs(share - 6 / 17) < 4 * (6 / 17 * 11 / 17 / 300) ** 0.5


def test_a_method_without_a_space_has_its_default() -> None:
    register(None)
    assert [t.settings for t in draw_trials("m", QUICK, 9, seed=0)] == [{}]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"rat": (1.0,)}, "unknown setting 'rat'.*did you mean 'rate'"),
        ({"fit_steps": (1, 2)}, "varies 'fit_steps'.*same budget"),
        ({"batch_size": (1, 2)}, "varies 'batch_size'.*same budget"),
        ({"rate": ()}, "'rate' has no values"),
        ({"rate": 0.1}, "'rate' has no values"),
        ({"rate": (float("nan"),)}, "'rate' has no values"),
        ({"rate": (object(),)}, "'rate' has no values"),
        ({"rate": ("fast",)}, "rate: Input should be a valid number"),
        ({"rate": (0.1, 0.2)}, "holds 2 settings.*fewer than 3 trials.*--trials 2"),
        ({"rate": tuple(range(1000)), "window": tuple(range(1000))}, "more than 100,000"),
    ],
)
def test_a_space_at_fault_is_one_line(space: dict[str, Any], said: str) -> None:
    register(space)
    with pytest.raises(UsageError, match=said) as caught:
        draw_trials("m", QUICK, 3, seed=0)
    assert "\n" not in str(caught.value)


def test_every_entrant_has_a_space_of_like_size_or_none() -> None:
    for name in METHODS:
        space = search_space(name)
        assert not (info_of(name).control and space), name
        if space:
            assert len(draw_trials(name, suite("full"), 8, seed=0)) == 8
            assert all(2 <= len(values) <= 5 for values in space.values()), name
            assert not set(space) & set(BUDGET_FIELDS)


# Objective ----------------------------------------------------------------------------


def responses(base: Any, edits: Any, spread: Any, target: int = 0) -> dict[float, EditScores]:
    """Scores at strengths 0.5, 1, … of base [n, A] and edits [S, n, A]."""
    base = np.asarray(base, float)
    return {
        (place + 1) / 2: EditScores(
            base, base, np.asarray(edit, float), target, 1, np.asarray(spread, float)
        )
        for place, edit in enumerate(edits)
    }


def test_precision_by_hand() -> None:
    base = [[-1.0, 0.0, 0.0], [-3.0, 0.0, 0.0]]
    weak = [[-0.5, 0.0, 0.0], [-2.5, 0.0, 0.0]]
    half = [[2.0, 1.0, 0.0], [-2.0, -1.0, 4.0]]
    strong = [[3.0, 1.0, 0.0], [1.0, -1.0, 4.0]]
    # Half of the images flip at most: C = ((1 + 1) / 2 / 1 + (0 + 4) / 2 / 4) / 2.
    found = objective(responses(base, [weak, half], [2.0, 1.0, 4.0]))
    assert (found.strength, found.flip_rate) == (1.0, 0.5)
    assert (found.target_change, found.collateral) == (1.0, 0.75)
    assert found.precision == pytest.approx(0.5 / 0.9 * 1.0 / 1.75)
    # All do: flips are no factor, and T = (4 + 4) / 2 / 2.
    found = objective(responses(base, [weak, half, strong, strong], [2.0, 1.0, 4.0]))
    assert (found.strength, found.flip_rate, found.target_change) == (1.5, 1.0, 2.0)
    assert found.precision == pytest.approx(2.0 / 2.75)


def test_the_score_is_the_share_of_precise_edits_where_it_is_largest() -> None:
    base = [[-1.0, 0.0], [-1.0, 0.0]]
    # The other attribute moves by 0.4 sd, 0.2 of a full flip: within 7 of the 10 tolerances.
    first = [[1.0, 0.4], [-1.0, 0.0]]
    both = [[1.0, 0.8], [1.0, 4.0]]  # 0.4: within 3; and far beyond all
    found = objective(responses(base, [first, both], [1.0, 1.0]))
    assert found.score == pytest.approx(0.7 / 2)
    assert found.strength == 1.0, "and precision is that of the strength at which both flip"


def test_no_scorer_takes_part_in_tuning() -> None:
    own = responses([[-1.0, 0.0]], [[[1.0, 0.0]]], [1.0, 1.0])
    kept = objective(own).score
    spoilt = {
        s: replace(
            scores, factor_worst=np.ones(1), identity=np.zeros(1), unrelated_identity=0.0,
            perceptual=np.ones(1), unrelated_perceptual=1.0,
        )
        for s, scores in own.items()
    }  # fmt: skip
    assert kept == objective(spoilt).score == 1
    outside = {s: replace(scores, background=np.ones(1)) for s, scores in own.items()}
    assert objective(outside).score == 0, "the background's pixels are no scorer's"


def test_a_trial_is_led_to_where_nine_of_ten_flip() -> None:
    base = [[-1.0, 0.0]] * 10
    none, all_flip = [[-1.0, 0.0]] * 10, [[1.0, 0.0]] * 10
    assert strength_of_flips(responses(base, [none, all_flip], [1.0, 1.0])) == pytest.approx(0.95)
    some = [[1.0, 0.0]] * 5 + [[-0.5, 0.0]] * 5
    further = [[1.0, 0.0]] * 5 + [[-0.1, 0.0]] * 5
    assert strength_of_flips(responses(base, [some, further, none], [1.0, 1.0])) == 1.0


@pytest.mark.parametrize(
    "nothing",
    [
        Objective(0.0, 1.0, 0.0, 1.0, 0.5),
        Objective(0.0, 1.0, 1.0, 0.0, 0.0),
        Objective(0.0, 1.0, 0.5, -1.0, 0.5),
    ],
)
def test_nothing_gained_scores_nothing(nothing: Objective) -> None:
    assert nothing.precision == 0


def test_a_lone_attribute_has_no_collateral() -> None:
    found = objective(responses([[-1.0]], [[[1.0]]], [1.0]))
    assert found.collateral == 0 and found.score == found.precision == 1


logits = st.floats(-1e4, 1e4, width=32)


@given(st.lists(st.tuples(*[logits] * 9), min_size=1, max_size=5))
def test_the_objective_is_bounded(rows: list[tuple[float, ...]]) -> None:
    values = np.array(rows).reshape(len(rows), 3, 3).swapaxes(0, 1)
    found = objective(responses(values[0], values[1:], [0.5, 1.0, 2.0], target=1))
    assert 0 <= found.score <= 1
    assert 0 <= found.precision <= found.flip_rate / 0.9 + 1e-12


@given(st.floats(0, 1), st.floats(0.01, 50), st.floats(0, 50), st.floats(1.01, 9))
def test_more_target_never_hurts_and_more_collateral_never_helps(
    flips: float, target: float, collateral: float, factor: float
) -> None:
    precision = Objective(0.0, 1.0, flips, target, collateral).precision
    assert Objective(0.0, 1.0, flips, target * factor, collateral).precision >= precision - 1e-12
    assert Objective(0.0, 1.0, flips, target, collateral * factor).precision <= precision + 1e-12


# Settings of a suite ----------------------------------------------------------------------------


def tuned(settings: dict[str, Any], **changes: Any) -> Suite:
    return Suite(**(QUICK.model_dump() | {"settings": settings} | changes))


def test_settings_lie_over_defaults_and_the_budget_over_both() -> None:
    register()
    budget = {"fit_image_steps": 10}
    config = make_method("m", tuned({"m": {"rate": 0.5, "fit_steps": 99}}, **budget)).config
    assert config == Config(rate=0.5, fit_steps=5)
    own = make_method("m", tuned({"m": {"rate": 0.5}}, fit_image_steps=None)).config
    assert own == Config(rate=0.5)
    assert make_method("m", tuned({"other": {"x": 1}}, fit_image_steps=None)).config == Config()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rat": 1.0}, r"unknown setting 'rat' \(settings of 'm' in suite 'quick'\); did you mean"),
        ({"rate": "fast"}, "rate: Input should be a valid number"),
    ],
)
def test_settings_that_a_method_refuses_are_one_line(settings: dict[str, Any], said: str) -> None:
    register()
    with pytest.raises(UsageError, match=said) as caught:
        make_method("m", tuned({"m": settings}))
    assert "\n" not in str(caught.value)


def test_settings_are_part_of_every_key() -> None:
    keys = [
        RunConfig(
            methods=("m",), datasets=("d",), concepts=None, suite=tuned(settings), seed=0,
            device="cpu", out=Path("run"),
        ).key()
        for settings in ({}, {"m": {"rate": 0.5}})
    ]  # fmt: skip
    assert keys[0] != keys[1]


@pytest.mark.parametrize("text", ["", "[]", '{"casl": 3}', "{"])
def test_a_file_of_settings_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "chosen.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="not a file of method settings"):
        read_settings(path)
    with pytest.raises(UsageError, match="not a file of method settings"):
        read_settings(tmp_path / "absent.json")


def test_committed_settings_are_those_of_known_methods() -> None:
    settings = read_settings(TUNED)
    assert set(settings) <= set(METHODS.names())
    for made in (SUITES["full"], SUITES["quick"]):
        assert set(made.settings) >= set(settings)
        for name, chosen in settings.items():
            # The quick suite may shrink a method, never undo what was chosen for it.
            assert made.settings[name] | chosen == made.settings[name]
            make_method(name, made)
    assert SUITES["full"].settings == settings
    # They were chosen on drawn images, for small networks.
    paper = SUITES["paper"]
    assert set(paper.settings) == {"asyrp", "diffusionclip"}
    assert make_method("diffusionclip", paper).config.learning_rate == 8e-6  # type: ignore[attr-defined]
