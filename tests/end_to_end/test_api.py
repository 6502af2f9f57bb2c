"""`casl_bench.evaluate` on the toy domain: functions, classes and names, as in a notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

import casl_bench
from casl_bench.conformance.toy_domain import toy_domain
from casl_bench.core.errors import UsageError
from casl_bench.domains.dataset import Concept
from casl_bench.methods.method import METHODS
from casl_bench.runs.suites import SUITES
from tests.support.tiny_suite import tiny_suite


def brighten(images: Tensor, concept: Concept, strength: float) -> Tensor:
    """More light; what is asked for is not looked at."""
    assert images.shape[1:] == (3, 16, 16) and isinstance(concept, Concept)
    return (images + strength).clamp(-1, 1)


@pytest.fixture(scope="module")
def suites() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        more = {"quick": False, "test_images_per_concept": 32, "test_pool_images": 96}
        patch.setitem(SUITES, "tiny", tiny_suite(**more))
        patch.setitem(SUITES, "tried", tiny_suite(name="tried"))
        yield


@pytest.fixture(scope="module")
def run(suites: None, tmp_path_factory: pytest.TempPathFactory) -> casl_bench.Run:
    return casl_bench.evaluate(
        [brighten, "h_linear"], toy_domain(), suite="tiny", concepts=["bright", "red"],
        out=tmp_path_factory.mktemp("api") / "run", progress=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_plain_function_stands_in_the_table(run: casl_bench.Run) -> None:
    assert set(run.table["method"]) == {"brighten", "h_linear"}
    assert {"epr_plus", "epr_plus_low", "rank_low", "flip_rate"} <= set(run.table.columns)
    assert run.failed.empty
    assert "brighten" not in METHODS


@pytest.mark.slow
def test_scores_are_a_row_per_image(run: casl_bench.Run) -> None:
    scores = run.scores
    own = scores[(scores["method"] == "brighten") & (scores["concept"] == "bright")]
    own = own[own["reported"] & (own["classifier"] == own["classifier"].iloc[0])]
    assert len(own) == 32 and own["image"].is_unique
    assert own["target_change"].mean() > 0
    moved = own["edit/bright"] - own["base/bright"]
    assert (moved.mean() > 0) and own["other_change"].notna().all()


@pytest.mark.slow
def test_a_run_is_read_again_and_drawn(run: casl_bench.Run) -> None:
    again = casl_bench.load_run(run.paths[0])
    pd.testing.assert_frame_equal(again.table, run.table)
    assert casl_bench.analyse([run.paths[0]]).markdown == again.markdown
    numbers = casl_bench.load_run(run.paths[0] / "numbers.jsonl")
    pd.testing.assert_frame_equal(numbers.table, run.table)
    with pytest.raises(ValueError, match="without per-image scores"):
        _ = numbers.scores
    figure = casl_bench.plot_curves(run, "flip_rate", ["bright"])
    assert len(figure.axes[0].lines) == 3  # two methods and the axis
    assert len(casl_bench.plot_curves(run, "flip_rate", "bright").axes[0].lines) == 3
    assert len(repr(run)) < 500
    with pytest.raises(UsageError, match="did you mean 'flip_rate'"):
        casl_bench.plot_curves(run, "flip_rat")


@pytest.mark.slow
def test_a_run_for_trying_out_shows_no_number(suites: None, tmp_path: Path) -> None:
    run = casl_bench.evaluate(
        brighten, toy_domain(), suite="tried", concepts="bright", out=tmp_path / "run",
        progress=False,
    )  # fmt: skip
    assert list(run.table.columns) == ["dataset", "method", "control", "done", "failed"]
    summary = (tmp_path / "run" / "summary.txt").read_text("utf-8")
    assert "brighten: 1 of 1 concept done" in summary and "EPR" not in summary
    assert "no number is shown" in run.markdown and "EPR" not in run.markdown


@pytest.mark.slow
def test_a_function_that_returns_something_else_is_a_failed_cell(
    suites: None, tmp_path: Path
) -> None:
    def halves(images: Tensor, concept: Concept, strength: float) -> Tensor:
        return images[:, :, ::2]

    with pytest.warns(UserWarning, match="1 cells failed"):
        run = casl_bench.evaluate(
            halves, toy_domain(), suite="tried", concepts=["bright"], out=tmp_path / "run",
            progress=False,
        )  # fmt: skip
    assert "as many images of the same size" in run.failed["reason"].iloc[0]


@pytest.mark.slow
def test_methods_edit_by_the_dictionary_that_is_named(suites: None, tmp_path: Path) -> None:
    run = casl_bench.evaluate(
        "sae_steer", toy_domain(), suite="tried", concepts="bright", sae="raw_channels",
        out=tmp_path / "run", progress=False,
    )  # fmt: skip
    assert run.failed.empty
    assert json.loads((tmp_path / "run/manifest.json").read_text())["key"]["sae"][0] == (
        "raw_channels"
    )
    with pytest.raises(UsageError, match="did you mean 'jump_relu'"):
        casl_bench.evaluate("casl", toy_domain(), suite="tried", sae="jumprelu", out=tmp_path / "x")


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    domain = toy_domain()
    for method, said in (
        (lambda images, concept, strength: images, "a lambda has no name"),
        (torch.nn.Linear, "class 'Linear' is no method"),
        ("cals", "did you mean 'casl'"),
    ):
        with pytest.raises(UsageError, match=said):
            casl_bench.evaluate(method, domain, out=tmp_path / "run")
    with pytest.raises(UsageError, match="suite 'standard' is now 'full'"):
        casl_bench.evaluate("casl", domain, suite="standard", out=tmp_path / "run")
    with pytest.raises(UsageError, match="do not see what was made in this one"):
        casl_bench.evaluate(brighten, domain, jobs=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
