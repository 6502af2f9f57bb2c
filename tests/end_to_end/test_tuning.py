"""Whole sweeps in the toy domain, through the command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from casl_bench.cli.main import main
from casl_bench.conformance.toy_domain import (
    TUNING_CARD,
    ToyShapes,
    TuningShapes,
    toy_domain,
    toy_tuning_domain,
)
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.dataset import DATASETS, ImageBatch, Split
from casl_bench.domains.domain import DOMAINS, Domain
from casl_bench.domains.options import DomainOptions
from casl_bench.methods.method import METHODS, Editor, EditTask, FitCost, MethodConfig, MethodInfo
from casl_bench.runs import suites as config_module
from casl_bench.runs.artifacts import Artifacts
from casl_bench.runs.plan import make_method
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.suites import RunConfig, Suite, read_settings
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CARD, SECOND = TUNING_CARD, "toy_tuning_2"
TUNED_ON = ("bright", "red")
TINY = tiny_suite()


class GuardedShapes(TuningShapes):
    """Has no test images to give."""

    def load(self, split: Split, count: int) -> ImageBatch:
        assert split != "test", "a sweep looked at test images"
        return super().load(split, count)


class SecondShapes(GuardedShapes):
    """The same pictures as another data set."""

    card = replace(CARD, name=SECOND)


class PaintConfig(MethodConfig):
    size: float = 0.4
    spill: float = 0.0
    breaks: bool = False


class PaintEditor:
    """Brightens the ground by `size`, and reddens everything by `spill`."""

    def __init__(self, config: PaintConfig, state: dict[str, Tensor]) -> None:
        self.config, self.fitted, self.cost = config, state, FitCost(1, 10.0)

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        change = torch.zeros_like(inversions.reconstruction)
        change[:, :, (0, 1, 15)] = self.config.size
        change[:, 0] += self.config.spill
        if self.config.breaks:
            change[:] = torch.nan
        return torch.stack([inversions.reconstruction + s * change for s in strengths])

    def state(self) -> dict[str, Tensor]:
        return self.fitted


class Paint:
    """Known to edit `bright` and nothing else, the better the larger `size` is."""

    info: ClassVar[MethodInfo] = MethodInfo("paint", "paint", "test", 1)
    fits: ClassVar[list[str]] = []
    interrupt_at: ClassVar[int | None] = None

    def __init__(self, config: PaintConfig | None = None, **settings: Any) -> None:
        self.config = config or PaintConfig(**settings)

    @classmethod
    def search_space(cls) -> dict[str, tuple[Any, ...]]:
        return {"size": (0.4, 0.8, 1.2), "spill": (0.0, 0.5), "breaks": (False, True)}

    def fit(self, task: EditTask) -> Editor:
        if len(self.fits) == self.interrupt_at:
            type(self).interrupt_at = None
            raise KeyboardInterrupt
        self.fits.append(task.concept.name)
        return PaintEditor(self.config, {"drawn": torch.randn(1, generator=task.generator)})

    def restore(self, task: EditTask, state: Mapping[str, Tensor]) -> Editor:
        return PaintEditor(self.config, dict(state))


class Plain(Paint):
    """Declares no search space."""

    info: ClassVar[MethodInfo] = MethodInfo("plain", "plain", "test", 1)
    fits: ClassVar[list[str]] = []
    search_space = None  # type: ignore[assignment]


@pytest.fixture(scope="module", autouse=True)
def guarded_toy_domain(own_entrants: None) -> Iterator[None]:
    """Data sets without test images, methods whose score is known, a suite of seconds."""

    def domain_of(dataset: type[GuardedShapes]) -> Any:
        def make(device: str, options: DomainOptions | None = None) -> Domain:
            return replace(toy_tuning_domain(device, options), dataset=dataset())

        return make

    with pytest.MonkeyPatch.context() as patch:
        for dataset in (GuardedShapes, SecondShapes):
            DATASETS.register(dataset.card.name, dataset)
            DOMAINS.register(dataset.card.name, domain_of(dataset))
        DATASETS.register("toy_shapes", ToyShapes)
        DOMAINS.register("toy_shapes", toy_domain)
        METHODS.register("paint", Paint)
        METHODS.register("plain", Plain)
        patch.setitem(config_module.SUITES, "tiny", TINY)
        yield


def tune(
    out: Path,
    *arguments: str,
    trials: int = 4,
    methods: str = "paint,plain",
) -> int:
    return main(
        ["tune", "--methods", methods, "--datasets", f"{CARD.name},{SECOND}", "--suite", "tiny",
         "--trials", str(trials), "--images", "4", "--out", str(out),
         # A cache of its own: what is fitted is counted, and whether it was there is a result.
         "--cache", str(out.with_name(f"{out.name}-cache")), *arguments]
    )  # fmt: skip


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]


def comparable(out: Path) -> list[dict[str, Any]]:
    """What may not differ between two equal sweeps."""
    varies = ("fit_seconds", "edit_seconds", "fit_reused")
    return [{k: v for k, v in line.items() if k not in varies} for line in lines(out)]


def files(out: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with entrants of every kind."""
    out = tmp_path_factory.mktemp("sweep") / "first"
    code = tune(out, methods="paint,plain,casl,casl_steer,asyrp")
    assert code == 3  # some trials of `paint` break
    return out


# What it does ----------------------------------------------------------------------------


def test_every_method_gets_as_many_trials(swept: Path) -> None:
    found = lines(swept)
    for method in ("paint", "casl", "casl_steer", "asyrp"):
        own = {(r["trial"], r["dataset"], r["concept"]) for r in found if r["method"] == method}
        assert own == {(t, d, c) for t in range(4) for d in (CARD.name, SECOND) for c in TUNED_ON}
    assert {r["trial"] for r in found if r["method"] == "plain"} == {0}
    assert "1 (no search space)" in (swept / "README.md").read_text()
    assert len(found) == (4 * 4 + 1) * 4


def test_the_budget_is_the_suites(swept: Path) -> None:
    fitted = [r for r in lines(swept) if "fit_steps" in r["method_config"]]
    assert TINY.fit_image_steps is not None
    assert {r["method_config"]["fit_steps"] for r in fitted} == {TINY.fit_image_steps // 8}
    assert len({(r["method"], r["fit_unet_calls"]) for r in fitted}) <= 2 * 3


def test_trial_0_is_the_default(swept: Path) -> None:
    bare = TINY.model_copy(update={"settings": {}})
    for line in (r for r in lines(swept) if r["trial"] == 0):
        assert line["settings"] == {}
        default = make_method(line["method"], bare).config.model_dump(mode="json")
        assert line["method_config"] == default


def test_the_guard_guards() -> None:
    """The sweeps of this file would have failed had they asked for a test image."""
    run = RunConfig(
        methods=("paint",), datasets=(CARD.name,), concepts=None, suite=TINY, seed=0,
        device="cpu", out=Path("nowhere"),
    )  # fmt: skip
    with pytest.raises(AssertionError, match="looked at test images"):
        _ = Artifacts(DOMAINS.create(CARD.name, "cpu"), run, SilentProgress()).test


def test_what_is_chosen_has_the_best_score(swept: Path) -> None:
    chosen, found = read_settings(swept / "chosen.json"), lines(swept)
    for method in {r["method"] for r in found}:
        scores: dict[int, tuple[float, float]] = {}
        for trial in {r["trial"] for r in found if r["method"] == method}:
            own = [r for r in found if (r["method"], r["trial"]) == (method, trial)]
            scores[trial] = (fmean(r["score"] for r in own), fmean(r["precision"] for r in own))
        top = max(scores, key=lambda t: (*scores[t], -t))
        settings = next(r for r in found if (r["method"], r["trial"]) == (method, top))["settings"]
        assert chosen[method] == settings


def test_a_better_setting_is_found(tmp_path: Path) -> None:
    """The whole grid is known: none that breaks or spills is as precise as one that does not."""
    out = tmp_path / "whole_grid"
    assert tune(out, trials=12, methods="paint") == 3
    chosen = read_settings(out / "chosen.json")["paint"]
    assert (chosen.get("breaks", False), chosen.get("spill", 0.0)) == (False, 0.0)
    bright = [r for r in lines(out) if r["concept"] == "bright" and r["error"] is None]
    best = max(bright, key=lambda r: (r["score"], r["precision"]))
    assert best["flip_rate"] == 1 and best["precision"] > 0.7
    # At one flip rate, how large strength 1 is does not matter.
    clean = [r for r in bright if not r["method_config"]["spill"]]
    assert len({r["method_config"]["size"] for r in clean}) == 3
    assert max(r["precision"] for r in clean) - min(r["precision"] for r in clean) < 0.1


def test_chosen_settings_can_be_a_suites(swept: Path) -> None:
    chosen = read_settings(swept / "chosen.json")
    tuned = Suite(**(TINY.model_dump() | {"settings": chosen}))
    for line in lines(swept):
        if line["settings"] == chosen[line["method"]]:
            config = make_method(line["method"], tuned).config.model_dump(mode="json")
            assert config == line["method_config"]


def test_a_setting_that_breaks_scores_nothing_and_stops_nobody(swept: Path) -> None:
    broken = [r for r in lines(swept) if r["method_config"].get("breaks")]
    assert broken
    assert all(r["score"] == 0 and "NaN" in r["error"] for r in broken)
    assert {r["error"] for r in lines(swept) if r not in broken} == {None}
    assert "NaN or infinity" in (swept / "README.md").read_text()


def test_one_fit_serves_settings_that_matter_to_the_edit_only(swept: Path) -> None:
    """An alignment is fitted once a concept, whichever of CASL and CASL-Steer asks first."""
    made: dict[str, list[bool]] = {}
    for line in lines(swept):
        if line["method"] in ("casl", "casl_steer"):
            tried = TINY.model_copy(update={"settings": {line["method"]: line["settings"]}})
            key = make_method(line["method"], tried).fit_key()
            alignment = json.dumps([line["dataset"], line["concept"], key])
            made.setdefault(alignment, []).append(not line["fit_reused"])
    assert {key: sum(fits) for key, fits in made.items()} == dict.fromkeys(made, 1)
    assert any(len(fits) > 1 for fits in made.values())
    assert not any(r["fit_reused"] for r in lines(swept) if r["method"] == "asyrp")


# Again ----------------------------------------------------------------------------


def test_equal_commands_give_equal_sweeps(swept: Path, tmp_path: Path) -> None:
    """Other methods in the same command change nothing."""
    out = tmp_path / "again"
    tune(out, methods="casl,paint")
    first = [r for r in comparable(swept) if r["method"] in ("casl", "paint")]
    assert sorted(comparable(out), key=str) == sorted(first, key=str)
    before, chosen = read_settings(swept / "chosen.json"), read_settings(out / "chosen.json")
    assert chosen == {name: before[name] for name in ("casl", "paint")}


def test_a_second_command_does_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sweep"
    monkeypatch.setattr(
        Paint, "search_space", classmethod(lambda cls: {"size": (0.4, 0.8, 1.0, 1.2)})
    )
    assert tune(out) == 0
    before = files(out)
    for method in (Paint, Plain):
        monkeypatch.setattr(method, "fit", None)
        monkeypatch.setattr(method, "restore", None)
    monkeypatch.setattr(GuardedShapes, "load", None)
    assert tune(out) == 0
    assert files(out) == before


def test_more_trials_and_methods_take_over_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    Paint.fits.clear()
    tune(out, trials=2, methods="paint")
    first = len(Paint.fits)
    tune(out, trials=5, methods="plain,paint")
    tune(tmp_path / "at_once", trials=5, methods="plain,paint")
    assert comparable(out) == comparable(tmp_path / "at_once")
    assert first == 2 * 4 and len(Paint.fits) == 5 * 4 + 5 * 4


def test_an_interrupted_sweep_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "whole"
    tune(whole, methods="paint")
    Paint.fits.clear()
    Paint.interrupt_at = 5
    out = tmp_path / "sweep"
    assert tune(out, methods="paint") == 130
    assert "run the same command again" in capsys.readouterr().err
    assert not (out / "chosen.json").exists() and len(list((out / "trials").iterdir())) == 5
    tune(out, methods="paint")
    assert comparable(out) == comparable(whole)
    assert len(Paint.fits) == 4 * 4  # none was made twice


def test_methods_stay_level_on_the_way(swept: Path) -> None:
    """Wherever a sweep is cut off, no method is more than one trial ahead on a data set."""
    seen = [(r["dataset"], r["trial"]) for r in lines(swept)]
    assert seen == sorted(seen)


# Faults ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--methods oracle", "'oracle' is a control"),
        ("--methods paintt", "unknown method 'paintt'; did you mean 'paint'"),
        ("--trials 0", "Invalid value for '--trials'"),
        ("--images 0", "Invalid value for '--images'"),
        ("--trials 99", "search_space of 'paint'"),
        ("--concepts bright", "No such option '--concepts'"),
        ("--datasets toy_shapes", "no classifier to tune by (toy_shapes)"),
        ("--suite tinny", "unknown suite 'tinny'; did you mean 'tiny'"),
        ("--plugin absent.py", "no such plugin file"),
        ("--device tpu9", "unknown device 'tpu9'"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    defaults = {"--methods": "paint", "--datasets": CARD.name, "--suite": "tiny", "--out": "sweep"}
    option, value = arguments.split()
    words = [w for pair in (defaults | {option: value}).items() for w in pair]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["tune", *words]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.startswith("error: ") and said in told.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--methods", "paint"]) == 2
    assert "Missing option '--out'" in capsys.readouterr().err


def test_a_folder_of_another_sweep_is_refused(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(swept)
    assert tune(swept, "--seed", "1") == 2
    assert "seed 0 there, 1 asked for" in capsys.readouterr().err
    assert files(swept) == before


def test_trials_that_are_damaged_or_of_another_source_are_told_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    tune(out, methods="plain")
    damaged, edited, *rest = sorted((out / "trials").iterdir())
    before = {path: json.loads(path.read_text()) for path in (damaged, edited)}
    untouched = {path: path.stat().st_mtime_ns for path in rest}
    assert "method plain" in before[edited]["sources"]
    damaged.write_text(damaged.read_text()[:-9])
    other = before[edited] | {"score": 0.0, "sources": {"method plain": "0" * 64}}
    edited.write_text(json.dumps(other))
    assert tune(out, methods="plain") == 0
    said = capsys.readouterr().err.splitlines()
    told = [line for line in said if line.startswith(("damaged", "edited since"))]
    assert len(told) == 2 and told[0].endswith(f": trials/{damaged.name}")
    assert told[1] == "edited since: method plain; 1 trial made again"
    for path, result in before.items():
        again = json.loads(path.read_text())
        assert (again["score"], again["sources"]) == (result["score"], result["sources"])
    assert untouched == {path: path.stat().st_mtime_ns for path in rest}


def test_no_method_is_tried_more_often_than_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second sweep of one method alone, or of another search space, counts as well."""
    out = tmp_path / "sweep"
    space = {"size": (0.4, 0.8, 1.0, 1.2)}
    monkeypatch.setattr(Paint, "search_space", classmethod(lambda cls: space))
    assert tune(out, methods="paint", trials=3) == 0
    before = files(out)
    capsys.readouterr()
    space["size"] = (0.4, 2.0, 3.0, 4.0)
    assert tune(out, methods="paint", trials=3) == 2
    assert "'paint' would have 5 settings tried there, others 3" in capsys.readouterr().err
    assert tune(out, methods="paint", trials=2) == 2
    assert tune(out, methods="plain,asyrp", trials=4) == 2
    assert "'paint' would have 3 settings tried there, others 4" in capsys.readouterr().err
    assert files(out) == before


def test_who_tunes_never_scores_and_what_is_tuned_on_is_never_ranked(swept: Path) -> None:
    domain = toy_tuning_domain()
    assert domain.tuning_classifier is not None
    tuner = domain.tuning_classifier.info.name
    assert tuner not in domain.scorer_hashes
    assert {r["concept"] for r in lines(swept)} == set(TUNED_ON)
    assert not {c.name for c in domain.dataset.card.concepts} & set(TUNED_ON)
    view = domain.for_tuning()
    assert [c.info.name for c in view.classifiers] == [tuner]
    text = (swept / "README.md").read_text()
    assert f"{CARD.name}/bright" in text and "seen by the tuning classifier" in text


# Entrants of others, documentation -------------------------------------------------------------


def test_a_method_of_the_users_own(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "add_a_method.md").read_text(encoding="utf-8")
    code = next(b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "register" in b)
    code = code.replace("my_method", "tuned_by_test").replace(
        "    def fit(",
        "    @classmethod\n    def search_space(cls):\n"
        '        return {"t_edit": (200, 350, 500)}\n\n    def fit(',
    )
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    out = tmp_path / "sweep"
    plugin = ["--plugin", str(tmp_path / "mine.py")]
    assert tune(out, *plugin, methods="tuned_by_test", trials=3) == 0
    assert {r["method_config"]["t_edit"] for r in lines(out)} == {200, 350, 500}
    assert "--plugin mine.py --out sweep" in (out / "README.md").read_text()
