"""Which classifiers score a method: never only one that it was optimised against."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from casl_bench.core.errors import UsageError
from casl_bench.methods.method import MethodInfo
from casl_bench.runs import plan as plan_module
from casl_bench.runs.plan import check_guides, guides_of, scoring_classifiers

INFO = MethodInfo(name="mine", title="mine", source="nowhere", version=1)
NAMES = ("plain", "depthwise")


def test_the_first_classifier_decides_unless_it_guided_the_method() -> None:
    assert scoring_classifiers(INFO, NAMES) == NAMES
    assert scoring_classifiers(replace(INFO, guided_by=("plain",)), NAMES) == ("depthwise", "plain")
    assert scoring_classifiers(replace(INFO, guided_by=("primary",)), NAMES) == (
        "depthwise",
        "plain",
    )
    assert scoring_classifiers(replace(INFO, guided_by=("somebody_else",)), NAMES) == NAMES
    assert guides_of(replace(INFO, guided_by=("primary", "x")), NAMES) == ("plain", "x")


def test_a_method_that_every_classifier_guided_cannot_be_judged() -> None:
    with pytest.raises(UsageError, match="every classifier"):
        scoring_classifiers(replace(INFO, guided_by=NAMES), NAMES)


def test_a_control_is_judged_in_the_domain_s_order() -> None:
    assert scoring_classifiers(replace(INFO, control=True, guided_by=("primary",)), NAMES) == NAMES


def scorer(name: str) -> Any:
    return SimpleNamespace(info=SimpleNamespace(name=name))


@pytest.mark.parametrize(
    ("guided_by", "fault"),
    [(NAMES, "every classifier"), (("looks",), "'looks'"), (("words",), "'words'")],
)
def test_a_run_is_refused_whose_judge_was_its_guide(
    guided_by: tuple[str, ...], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain: Any = SimpleNamespace(
        classifiers=tuple(map(scorer, NAMES)), score_clip=scorer("words"), embedder=scorer("looks")
    )
    config: Any = SimpleNamespace(methods=("mine",))
    monkeypatch.setattr(plan_module, "info_of", lambda name: INFO)
    check_guides(config, {"faces": domain})
    monkeypatch.setattr(plan_module, "info_of", lambda name: replace(INFO, guided_by=guided_by))
    with pytest.raises(UsageError, match=fault) as raised:
        check_guides(config, {"faces": domain})
    assert raised.value.where == "faces"
