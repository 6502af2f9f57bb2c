"""What is made of finished runs of the toy domain: more edits, and a submission beside them.

Their methods paint pixels, so it is known which edits are precise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from casl_bench.analysis.analyse import publish
from casl_bench.cli import main as cli
from casl_bench.conformance.toy_domain import STRIPE_ROWS
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import METHODS, EditTask, FitCost, MethodConfig, MethodInfo
from casl_bench.models.embedder import RenderEmbedder
from casl_bench.runs.executor import run
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.run_lock import claim_run_folder
from casl_bench.runs.suites import SUITES, RunConfig
from casl_bench.studies import more_edits
from casl_bench.studies.more_edits import PAGE, MoreEditsRow, read_more_edits
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

CONCEPTS = ("bright", "striped")
TINTS = {"mine": 0.03, "one_way": 0.06}
"""What some add to the square's red, so that no two have the same scores."""


class Paint:
    """Lightens the ground or paints the stripe, as far as the strength says, and no other pixel.

    With `spills` the square changes its colour, too.
    """

    def __init__(self, concept: str, spills: bool, tint: float) -> None:
        self.cost, self.concept, self.spills, self.tint = FitCost(), concept, spills, tint

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        base = inversions.reconstruction
        square = ((base[:, 0] - base[:, 2]).abs() > 0.5)[:, None].expand_as(base)
        stripe = torch.zeros_like(square)
        stripe[:, :, STRIPE_ROWS] = True
        ground = base[:, :, :1, :1].expand_as(base)
        has_stripe = base[:, :, STRIPE_ROWS].mean((1, 2, 3)) > 0.7
        if self.concept == "bright":
            change = (~square & ~(stripe & has_stripe[:, None, None, None])).float()
        else:
            change = stripe * (0.9 - torch.where(ground > 0.2, 0.5, -0.5))
        change[:, 0] += self.tint * square[:, 0]
        edits = torch.stack([base + s * change for s in strengths])
        if self.spills:
            flipped = edits.flip(2)
            edits = torch.where(square, flipped, edits)
        return edits

    def state(self) -> dict[str, Tensor]:
        return {}


def method(name: str, **fields: Any) -> type:
    class Method:
        info: ClassVar[MethodInfo] = MethodInfo(
            name=name, title=name, source="a test", version=1, deterministic=True, **fields
        )

        def __init__(self, config: MethodConfig | None = None) -> None:
            self.config = config or MethodConfig()

        def fit(self, task: EditTask) -> Paint:
            return Paint(task.concept.name, name == "spills", TINTS.get(name, 0.0))

        def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Paint:
            return self.fit(task)

    return Method


SUITE = tiny_suite(
    strengths=(0.4, 1.0),
    validation_images=6,
    test_pool_images=24,
    test_images_per_concept=3,
)


def finish(folder: Path, name: str, *methods: str) -> Path:
    """A finished run folder."""
    config = RunConfig(
        methods=methods, datasets=("toy_shapes",), concepts=CONCEPTS, suite=SUITE, seed=0,
        device="cpu", out=folder / name, cache=folder / "cache",
    )  # fmt: skip
    with claim_run_folder(config):
        assert run(config, SilentProgress()) == 0
    return config.out


@pytest.fixture(scope="module")
def finished(toy_registered: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    METHODS.register("paints", method("paints"))
    METHODS.register("spills", method("spills"))
    METHODS.register("mine", method("mine"))
    METHODS.register("one_way", method("one_way", bidirectional=False))
    with pytest.MonkeyPatch.context() as patch:
        # Results of changed code are refused, and tests run on changed code.
        patch.setattr("casl_bench.results.provenance.git_state", lambda folder: ("c" * 40, False))
        patch.setitem(SUITES, SUITE.name, SUITE)
        # A random embedder knows no subject: paint is another one to it.
        compare = RenderEmbedder.compare
        patch.setattr(RenderEmbedder, "compare", lambda *a: (compare(*a)[0], None))
        patch.setattr(RenderEmbedder, "identity_similarity", lambda *a: None)
        folder = tmp_path_factory.mktemp("painted")
        finish(folder, "mine", "mine")
        yield finish(folder, "run", "paints", "spills", "one_way")


def command(finished: Path, *more: str) -> list[str]:
    return [
        "study",
        "more-edits",
        str(finished),
        "--cache",
        str(finished.with_name("cache")),
        *more,
    ]


def test_precise_edits_are_told_from_others(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(finished)) == 0
    assert capsys.readouterr().out.strip() == str(finished / PAGE)
    rows = {(r.kind, r.method, r.concepts): r for r in read_more_edits(finished)}
    assert {k[:2] for k in rows} == {
        ("removal", "paints"), ("removal", "spills"),
        ("pair", "paints"), ("pair", "spills"), ("pair", "one_way"),
    }  # fmt: skip
    good, bad = (rows["removal", m, ("striped",)] for m in ("paints", "spills"))
    assert good.n == bad.n > 0
    assert good.precise == good.reached == 1.0 and bad.precise == 0.0
    assert good.strengths == (-1.0,)
    pair = rows["pair", "paints", CONCEPTS]
    assert pair.n > 0 and len(pair.strengths) == 2 and pair.precise <= pair.reached
    assert rows["pair", "spills", CONCEPTS].precise == 0.0
    page = (finished / PAGE).read_text(encoding="utf-8")
    removal, two = page.split("## Removal")[1].split("## Two concepts")
    assert "one_way" in two and "one_way" not in removal
    assert re.search(r"\| paints +\| +2 \|", removal)
    assert re.search(r"\| paints +\| +1 \|", two)


def test_what_is_done_is_not_done_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(command(finished, "--out", str(tmp_path), "--images", "2")) == 0
    before = [p.read_bytes() for p in sorted(tmp_path.iterdir())]
    assert all(r.n <= 2 for r in read_more_edits(tmp_path))

    def refuse(*args: object) -> MoreEditsRow:
        raise AssertionError("a finished row is made again")

    monkeypatch.setattr(more_edits._Maker, "_removal", refuse)
    monkeypatch.setattr(more_edits._Maker, "_pair", refuse)
    assert cli.main(command(finished, "--out", str(tmp_path))) == 0
    assert [p.read_bytes() for p in sorted(tmp_path.iterdir())] == before


def test_bad_input_is_refused_in_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(finished, "--kinds", "removals")) == 2
    assert "unknown kind 'removals'; did you mean 'removal'?" in capsys.readouterr().err
    assert cli.main(["study", "more-edits", str(tmp_path)]) == 2
    assert "no method has run here" in capsys.readouterr().err
    (tmp_path / more_edits.ROWS).write_text("{}\n")
    assert cli.main(command(finished, "--out", str(tmp_path))) == 5
    error = capsys.readouterr().err
    assert "no rows" in error and error.count("\n") == 1


def test_only_my_method_is_submitted(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = tmp_path / "records"
    publish([finished], records / "toy.scores.npz")
    submit = ["submit", str(finished.with_name("mine")), "--records", str(records)]
    begun = time.monotonic()
    assert cli.main([*submit, "--dry-run"]) == 0
    assert time.monotonic() - begun < 60
    said = capsys.readouterr().out
    assert "a − b, share of precise edits" in said
    assert "mine: not re-judged" in said and "may be ranked beside it" in said
    assert not list(records.glob("*@*"))

    monkeypatch.setattr(METHODS, "_factories", dict(METHODS._factories))
    monkeypatch.setitem(METHODS._factories, "mine", method("mine", supervision="labels"))
    assert cli.main(submit) == 5
    error = capsys.readouterr().err
    assert "supervision of 'mine' is not what it is here" in error and error.count("\n") == 1
    assert not list(records.glob("*@*"))
    monkeypatch.undo()
    assert cli.main(submit) == 0
    assert (records / "toy@mine.scores.npz").is_file()
