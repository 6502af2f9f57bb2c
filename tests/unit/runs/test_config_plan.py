"""Suites, run configurations, cells and their keys, the run folder, progress."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from casl_bench.conformance.toy_domain import toy_domain
from casl_bench.core.errors import UsageError
from casl_bench.core.registry import Registry
from casl_bench.domains.dataset import Concept, DatasetCard
from casl_bench.methods.method import MethodConfig, MethodInfo
from casl_bench.metrics.epr_plus import EPR_PLUS_INFO
from casl_bench.metrics.metric import metric_infos, register_info
from casl_bench.results.record import CellRecord, Provenance, SuiteRef
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs import names as names_module
from casl_bench.runs import plan as plan_module
from casl_bench.runs.dry_run import cost_text, dry_run_text
from casl_bench.runs.plan import (
    KEY_ARTIFACT,
    MATCHED_CONCEPTS,
    MATCHED_IMAGES,
    Cell,
    DomainIdentity,
    done,
    plan,
    shared_work,
)
from casl_bench.runs.progress import LineProgress, SilentProgress, open_progress
from casl_bench.runs.run_lock import MANIFEST, check_run_folder, claim_run_folder
from casl_bench.runs.suites import (
    DEFAULT_SUITE,
    MIN_TEST_IMAGES,
    SUITES,
    RunConfig,
    default_out,
    domain_kind_of_suite,
    suite,
)

# Without the tuned settings, which the fakes below do not have.
QUICK = suite("quick").model_copy(update={"settings": {}})


@pytest.fixture(autouse=True)
def several_concepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casl_bench.runs.suites.QUICK_CONCEPTS", 3)


CONCEPTS = tuple(Concept(n, "a face", f"a {n} face", n) for n in ("smiling", "hat"))
CARD = DatasetCard(
    "toy", "synth", "r1", 16, ("smiling", "hat"), CONCEPTS, "toy", "CC0", "drawn here"
)  # fmt: skip


class FitConfig(MethodConfig):
    fit_steps: int = 7
    batch_size: int = 3


class FakeMethod:
    info: ClassVar[MethodInfo]
    config_class: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(self, config: MethodConfig | None = None, **settings: Any) -> None:
        self.config = config or self.config_class(**settings)


def fake(name: str, config: type[MethodConfig] = MethodConfig, **info: Any) -> type[FakeMethod]:
    declared = MethodInfo(name, name, "here", info.pop("version", 1), **info)
    return type(name, (FakeMethod,), {"info": declared, "config_class": config})


def register(registry: Registry[Any], *classes: type[FakeMethod]) -> None:
    for cls in classes:
        registry.register(cls.info.name, cls)


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> Registry[Any]:
    """Only these methods and this data set exist; the controls of this repository are there."""
    names_module.load_registries()
    methods: Registry[Any] = Registry("method", "casl_bench.tests.none")
    datasets: Registry[Any] = Registry("dataset", "casl_bench.tests.none")
    register(
        methods,
        fake("casl", FitConfig, supervision="text", space="h_space", uses_sae=True),
        fake("mean_difference", supervision="labels", space="h_space"),
        fake("fine_tuned", supervision="text", space="weights"),
        fake("pixels", supervision="text"),
        fake("identity", control=True),
        fake("oracle", control=True, needs_oracle=True),
        fake("random_rotation", control=True, beside=True, space="h_space"),
        fake("random_weights", control=True, beside=True, space="weights"),
    )
    datasets.register("toy", lambda: SimpleNamespace(card=CARD))
    for module in (plan_module, names_module):
        monkeypatch.setattr(module, "METHODS", methods)
        monkeypatch.setattr(module, "DATASETS", datasets)
    return methods


def config(tmp_path: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "methods": ("casl", "mean_difference"),
        "datasets": ("toy",),
        "concepts": None,
        "suite": QUICK,
        "seed": 0,
        "device": "cpu",
        "out": tmp_path / "run",
    }
    return RunConfig(**(settings | changes))


def cells(run: RunConfig, fingerprint: str = "f") -> tuple[Cell, ...]:
    return plan(run, {"toy": DomainIdentity(CARD, fingerprint)})


# Suites ----------------------------------------------------------------------------


def test_only_the_quick_suite_is_a_toy() -> None:
    assert set(SUITES) == {"default", "full", "quick", "paper"}
    assert [name for name, found in SUITES.items() if found.quick] == ["quick"]
    assert all(s.test_images_per_concept >= MIN_TEST_IMAGES for s in SUITES.values() if not s.quick)
    assert DEFAULT_SUITE in SUITES
    assert {n: s.fit_seeds for n, s in SUITES.items() if s.fit_seeds > 1} == {"full": 3}


def test_a_renamed_suite_answers_with_its_new_name() -> None:
    with pytest.raises(UsageError, match="suite 'standard' is now 'full'"):
        suite("standard")


def test_the_paper_suite_has_the_papers_counts() -> None:
    paper = suite("paper")
    assert (paper.num_steps, paper.timestep_power, paper.extrapolate) == (40, 1.0, False)
    assert paper.test_images_per_concept == 32 and not paper.quick
    assert paper.fit_image_steps is None
    assert [s for s in SUITES if domain_kind_of_suite(s) == "real"] == ["paper"]


def test_a_concept_that_most_photos_show_finds_its_images() -> None:
    """A fifth lacks it: two and a half standard deviations below that suffice."""
    paper, share = suite("paper"), 0.2
    for pool, wanted in (
        (paper.validation_pool_images, paper.validation_images),
        (paper.test_pool_images, paper.test_images_per_concept),
    ):
        assert pool * share - 2.5 * (pool * share * (1 - share)) ** 0.5 > wanted


def test_unknown_suite_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'default'"):
        suite("defualt")


@pytest.mark.parametrize(
    "change",
    [
        {"strengths": (0.0, 1.0)},
        {"strengths": (1.0, 0.5)},
        {"strengths": ()},
        {"probe_ks": (4, 1)},
        {"test_images_per_concept": MIN_TEST_IMAGES - 1},
        {"test_images_per_concept": 10_000},
        {"probe_train_images": 10_000},
        {"num_steps": 1},
        {"version": 0},
        {"no_such_field": 1},
    ],
)
def test_a_suite_refuses_nonsense(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        type(suite("full"))(**(suite("full").model_dump() | change))


def test_the_same_command_finds_its_folder_again() -> None:
    assert default_out(("rendered_faces",), "standard", 3) == Path(
        "runs/rendered_faces-standard-seed3"
    )


# Names ----------------------------------------------------------------------------


def test_names_are_resolved_in_order_and_once() -> None:
    everything = ("mean_difference", "casl", "fine_tuned", "pixels")
    assert names_module.resolve_methods(["mean_difference", "all"]) == everything
    assert names_module.resolve_concepts(["hat", "hat"], ["toy"]) == ("hat",)
    assert names_module.resolve_concepts(["hat", "all"], ["toy"]) is None
    assert names_module.resolve_datasets(["all"]) == ("toy",)


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown method 'cals'; did you mean 'casl'"):
        names_module.resolve_methods(["cals"])
    with pytest.raises(UsageError, match="unknown dataset 'toi'; did you mean 'toy'"):
        names_module.resolve_datasets(["toi"])
    with pytest.raises(UsageError, match=r"unknown concept 'smilling' \(toy\); did you mean 'smil"):
        names_module.resolve_concepts(["smilling"], ["toy"])


# Cells ----------------------------------------------------------------------------


def test_a_quick_suite_edits_the_first_concepts_unless_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casl_bench.runs.suites.QUICK_CONCEPTS", 1)
    full = suite("full").model_copy(update={"settings": {}})

    def concepts(**changes: Any) -> set[str]:
        return {c.concept.name for c in cells(config(tmp_path, **changes))}

    assert concepts() == {"smiling"}
    assert concepts(concepts=("hat", "smiling")) == concepts(suite=full) == {"smiling", "hat"}


def test_controls_are_always_planned_those_matched_to_a_method_after_it(
    tmp_path: Path,
) -> None:
    planned = [(c.method, c.beside) for c in cells(config(tmp_path, concepts=("hat",)))]
    assert planned == [
        ("identity", None),
        ("oracle", None),
        ("casl", None),
        ("random_rotation", "casl"),
        ("mean_difference", None),
        ("random_rotation", "mean_difference"),
    ]


def test_a_random_control_stands_beside_the_entrants_of_its_space(tmp_path: Path) -> None:
    methods = ("casl", "fine_tuned", "pixels")
    run = config(tmp_path, methods=methods, concepts=("hat",))
    planned = [(c.method, c.beside) for c in cells(run)]
    assert planned == [
        ("identity", None),
        ("oracle", None),
        ("casl", None),
        ("random_rotation", "casl"),
        ("fine_tuned", None),
        ("random_weights", "fine_tuned"),
        ("pixels", None),
    ]


def test_a_control_matched_to_a_method_is_run_on_the_first_concepts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MATCHED_CONCEPTS > 1
    monkeypatch.setattr(plan_module, "MATCHED_CONCEPTS", 1)
    beside = [c.concept.name for c in cells(config(tmp_path)) if c.beside == "casl"]
    assert beside == ["smiling"]


def test_controls_alone_can_be_asked_for(tmp_path: Path) -> None:
    planned = {c.method for c in cells(config(tmp_path, methods=("oracle",)))}
    assert planned == {"identity", "oracle"}


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to run"):
        cells(config(tmp_path, concepts=()))


def test_keys_are_distinct_and_stable(tmp_path: Path) -> None:
    keys = [c.key for c in cells(config(tmp_path))]
    assert len(set(keys)) == len(keys)
    assert keys == [c.key for c in cells(config(tmp_path))]


@pytest.mark.parametrize(
    "change",
    [
        {"out": Path("elsewhere")},
        {"batch_size": 1},
        {"plugins": (Path("mine.py"),)},
        {"methods": ("casl",)},
        {"concepts": ("hat",)},
    ],
)
def test_what_moves_no_number_moves_no_key(tmp_path: Path, change: dict[str, Any]) -> None:
    before = {c.label: c.key for c in cells(config(tmp_path))}
    after = {c.label: c.key for c in cells(config(tmp_path, **change))}
    assert after and all(before[label] == key for label, key in after.items())


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"device": "cuda:0"}]
    + [
        {"suite": QUICK.model_copy(update=update)}
        for update in (
            {"num_steps": 11},
            {"timestep_power": 2.0},
            {"extrapolate": False},
            {"strengths": (1.0,)},
            {"fit_image_steps": 13},
            {"doublings": 2},
            {"sae_steps": 101},
            {"train_images": 33},
            {"version": QUICK.version + 1},
        )
    ],
)
def test_what_moves_a_number_moves_every_key(tmp_path: Path, change: dict[str, Any]) -> None:
    before = {c.key for c in cells(config(tmp_path))}
    assert before.isdisjoint(c.key for c in cells(config(tmp_path, **change)))


def test_other_weights_move_every_key(tmp_path: Path) -> None:
    before = {c.key for c in cells(config(tmp_path))}
    assert before.isdisjoint(c.key for c in cells(config(tmp_path), fingerprint="g"))


def test_a_new_version_of_a_method_moves_its_keys_and_those_beside_it(
    tmp_path: Path, methods: Registry[Any]
) -> None:
    before = {c.label: c.key for c in cells(config(tmp_path))}
    methods._factories["casl"] = fake(
        "casl", FitConfig, supervision="text", space="h_space", version=2
    )
    after = {c.label: c.key for c in cells(config(tmp_path))}
    moved = {label for label in before if before[label] != after[label]}
    assert moved == {label for label in before if "casl" in label}


def test_a_new_version_of_a_control_moves_its_own_cells_alone(
    tmp_path: Path, methods: Registry[Any]
) -> None:
    before = {c.label: c.key for c in cells(config(tmp_path))}
    methods._factories["random_rotation"] = fake(
        "random_rotation", control=True, beside=True, space="h_space", version=2
    )
    after = {c.label: c.key for c in cells(config(tmp_path))}
    moved = {label for label in before if before[label] != after[label]}
    assert moved == {label for label in before if "random_rotation" in label}


def test_no_metric_is_in_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cells(config(tmp_path))
    raised = replace(EPR_PLUS_INFO, version=EPR_PLUS_INFO.version + 1)
    monkeypatch.setattr("casl_bench.metrics.epr_plus.EPR_PLUS_INFO", raised)
    register_info(raised)
    try:
        assert {i.name: i.version for i in metric_infos()}["epr_plus"] == raised.version
        assert [c.key for c in cells(config(tmp_path))] == [c.key for c in before]
        assert "epr" not in json.dumps(before[0].inputs)
    finally:
        register_info(EPR_PLUS_INFO)


def test_the_suite_gives_the_fit_budget(tmp_path: Path) -> None:
    def steps(budget: int | None) -> int:
        made = QUICK.model_copy(update={"fit_image_steps": budget})
        return plan_module.make_method("casl", made).config.fit_steps  # type: ignore[attr-defined]

    # In batches of 3; never more than the method asks for, and never none.
    assert [steps(budget) for budget in (12, 14, 3, 1, 99, None)] == [4, 4, 1, 1, 7, 7]


def test_references_are_in_every_run_before_the_methods_asked_for(
    tmp_path: Path, methods: Registry[Any]
) -> None:
    register(methods, fake("pixel_reference", supervision="labels", reference=True))
    for asked in (("casl",), ("casl", "pixel_reference")):
        made = [c for c in cells(config(tmp_path, methods=asked)) if not c.control]
        assert {c.method for c in made} == {"casl", "pixel_reference"}
        assert len(made) == 2 * len(CONCEPTS)
    without = QUICK.model_copy(update={"references": False})
    made = [c for c in cells(config(tmp_path, methods=("casl",), suite=without)) if not c.control]
    assert {c.method for c in made} == {"casl"}


def test_a_fit_without_chance_is_made_once(tmp_path: Path, methods: Registry[Any]) -> None:
    register(methods, fake("always_the_same", supervision="labels", deterministic=True))
    asked = config(tmp_path, methods=("casl", "always_the_same"), fit_seeds=3)
    made = [(c.method, c.fit_seed) for c in cells(asked) if not c.control]
    fits = {name: sorted({fit for n, fit in made if n == name}) for name, _ in made}
    assert fits == {"casl": [0, 1, 2], "always_the_same": [0]}


def test_work_is_estimated_in_unet_calls(tmp_path: Path) -> None:
    run = config(tmp_path)
    by_method = {c.method: c.work for c in cells(run)}
    s = run.suite
    # The grid and the strength of half of the effect; on test images five levels.
    edit = s.validation_images * (len(s.strengths) + 1) + s.test_images_per_concept * 5
    edit *= s.num_steps
    assert by_method["identity"] == by_method["oracle"] == 0
    images = min(MATCHED_IMAGES, s.test_images_per_concept)
    assert by_method["random_rotation"] == images * s.num_steps
    assert QUICK.fit_image_steps is not None
    assert by_method["casl"] == edit + min(QUICK.fit_image_steps // 3, 7) * 3
    assert shared_work(run) == 2 * s.num_steps * (
        s.train_images + s.validation_pool_images + s.test_pool_images
    )


def test_done_means_done_with_these_very_inputs(tmp_path: Path) -> None:
    run = config(tmp_path, methods=("casl",), concepts=("hat",))
    store = RecordStore(run.out)
    cell = next(c for c in cells(run) if c.method == "casl")
    assert done(store, cell) is None
    record = CellRecord(
        kind="edit",
        domain_kind="synth",
        dataset="toy",
        dataset_revision="r1",
        suite=SuiteRef(name="quick", version=1, quick=True),
        seed=0,
        method="casl",
        concept="hat",
        attribute="hat",
        artifacts={KEY_ARTIFACT: "0" * 64},
        provenance=Provenance(
            package_version="0",
            git_commit=None,
            git_dirty=None,
            packages={},
            device="cpu",
            platform="test",
            started_at="2026-01-01T00:00:00+00:00",
        ),
    )
    store.write(record)
    assert done(store, cell) is None
    store.write(record.model_copy(update={"artifacts": {KEY_ARTIFACT: cell.key}}))
    assert done(store, cell) is not None


def test_a_dry_run_shows_the_matrix_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = SimpleNamespace(
        name="synth",
        dataset=SimpleNamespace(card=CARD),
        backbone=SimpleNamespace(
            weights_hash="b", h_shape=(16, 4, 4), config=toy_domain().backbone.config
        ),
        guide_clip=SimpleNamespace(name="guide", weights_hash="g"),
        scorer_hashes={"classifier": "c"},
        classifiers=(),
    )
    domains: Registry[Any] = Registry("world", "casl_bench.tests.none")
    domains.register("toy", lambda device, options: domain)
    monkeypatch.setattr("casl_bench.runs.plan.DOMAINS", domains)
    run = config(tmp_path, methods=("casl",))
    text = dry_run_text(run)
    lines = [line.split() for line in text.splitlines()]
    assert ["casl", "to", "do", "to", "do"] in lines
    assert ["random_rotation", "beside", "casl", "to", "do", "to", "do"] in lines
    assert "8 cells: 0 done, 8 to do\n" in text
    assert cost_text(run, cells(run)) in text
    assert cost_text(run, cells(run), unet_speed=7.0) in dry_run_text(run, 7.0)
    assert list(tmp_path.iterdir()) == []


# The run folder ----------------------------------------------------------------------------


def test_a_run_folder_is_found_again(tmp_path: Path) -> None:
    run = config(tmp_path)
    with claim_run_folder(run):
        (run.out / "cells").mkdir()
    manifest = json.loads((run.out / MANIFEST).read_text())
    assert manifest["key"] == run.key()
    with claim_run_folder(config(tmp_path, methods=("casl",), batch_size=1)):
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed 0 there, 1 asked for"),
        ({"device": "cuda:0"}, "device 'cpu' there, 'cuda' asked for"),
        ({"suite": suite("full")}, "suite.name 'quick' there, 'full' asked for"),
    ],
)
def test_a_folder_of_another_configuration_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    run = config(tmp_path)
    with claim_run_folder(run):
        (run.out / "cells").mkdir()
    with pytest.raises(UsageError, match=said) as caught:
        check_run_folder(config(tmp_path, **change))
    assert len(str(caught.value)) < 300


def test_a_run_that_kept_nothing_leaves_no_folder(tmp_path: Path) -> None:
    run = config(tmp_path, out=tmp_path / "a" / "b")
    with pytest.raises(RuntimeError), claim_run_folder(run):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    run = config(tmp_path)
    run.out.mkdir()
    (run.out / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds no run"), claim_run_folder(run):
        pass
    (run.out / "thesis.tex").unlink()
    (run.out / MANIFEST).write_text("{")
    with pytest.raises(UsageError, match="manifest can be read"):
        check_run_folder(run)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    run = config(tmp_path)
    with (
        claim_run_folder(run),
        pytest.raises(UsageError, match="another process"),
        claim_run_folder(run),
    ):
        pass


# Progress ----------------------------------------------------------------------------


def test_time_left_is_that_of_the_whole_run() -> None:
    now = [0.0]
    progress = SilentProgress(clock=lambda: now[0])
    progress.start(100)
    assert progress.seconds_left() is None
    with progress.task("first", total=4, work=20) as advance:
        now[0] = 5.0
        advance(2)
        assert progress.seconds_left() == pytest.approx(5 * 90 / 10)
        advance(99)  # more than announced: counted as what was announced
        assert progress.seconds_left() == pytest.approx(5 * 80 / 20)
    with progress.task("cached", total=10, work=80):
        pass
    assert progress.seconds_left() == 0


def test_plain_lines_are_few() -> None:
    now, out = [0.0], io.StringIO()
    progress = open_progress(out)
    assert isinstance(progress, LineProgress)
    progress = LineProgress(out, clock=lambda: now[0])
    progress.start(100)
    with progress.task("casl / hat: fit", total=100, work=100) as advance:
        for _ in range(100):
            now[0] += 1
            advance(1)
            progress._beat()
    lines = out.getvalue().splitlines()
    assert lines[0] == "casl / hat: fit …"
    assert "casl / hat: fit 20/100: 20%, 20 s so far, about 80 s left" in lines
    assert len(lines) == 26


def test_bars_are_drawn_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with open_progress(out) as progress:
        progress.start(10)
        progress.note("[a note, not markup]")
        with progress.task("[casl] fit", total=10, work=10) as advance:
            advance(5)
    assert "[a note, not markup]" in out.getvalue()
