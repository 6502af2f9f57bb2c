"""What a run is said to cost before it begins, beside what runs were counted to cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.conformance.toy_domain import ToyTasks
from casl_bench.core.errors import UsageError
from casl_bench.diffusion.trajectories import DISK_BUDGET_VARIABLE
from casl_bench.methods.method import METHODS
from casl_bench.models.unet import BackboneConfig
from casl_bench.photos.checkpoints.formats import Architecture
from casl_bench.results.run_folder import read_jsonl
from casl_bench.runs.dry_run import FULL_SIZE_FLOPS, cost_text, estimate_cost, pass_flops
from casl_bench.runs.names import load_registries, resolve_methods
from casl_bench.runs.plan import (
    MATCHED_IMAGES,
    NULL_IMAGES,
    Cell,
    DomainIdentity,
    card_of,
    fit_work,
    info_of,
    make_method,
    plan,
    shared_work,
    work_of_fit,
)
from casl_bench.runs.suites import RunConfig, suite

load_registries()
ROOT = Path(__file__).parents[3]
OURS = [name for name in METHODS if "/" not in name and not info_of(name).control]


def planned(
    tmp_path: Path, methods: tuple[str, ...] = ("all",), concepts: tuple[str, ...] | None = None
) -> tuple[RunConfig, tuple[Cell, ...]]:
    """A run of `paper` on faces whose files are absent."""
    config = RunConfig(
        methods=resolve_methods(methods), datasets=("celeba_hq",), concepts=concepts,
        suite=suite("paper"), seed=0, device="cpu", out=tmp_path / "run",
    )  # fmt: skip
    return config, plan(config, {"celeba_hq": DomainIdentity(card_of("celeba_hq"), "absent")})


def test_the_published_records_cost_about_what_is_estimated() -> None:
    standard = suite("full").model_copy(update={"num_steps": 20})  # as those records have it
    seen = set()
    for r in read_jsonl(ROOT / "leaderboards" / "archive" / "all-standard-seed0.jsonl.gz"):
        same = r.method in OURS and r.method_version == info_of(r.method).version
        if r.kind == "edit" and same and r.beside is None and r.cost is not None:
            work = fit_work(make_method(r.method, standard), standard)
            assert work == pytest.approx(r.cost.unet_calls, rel=0.25), r.method
            assert standard.num_steps == pytest.approx(r.cost.edit_unet_calls, rel=0.25), r.method
            seen.add(r.method)
    # Of the others the published records are of another version.
    assert seen >= {"h_linear", "h_pca", "sae_steer"}


@pytest.fixture(scope="module")
def toy() -> ToyTasks:
    return ToyTasks()


@pytest.mark.parametrize("name", OURS)
def test_a_toy_fit_costs_about_what_is_estimated(name: str, toy: ToyTasks, tmp_path: Path) -> None:
    factory = METHODS.factory(name)
    toy_config = getattr(factory, "toy_config", None)
    method = factory(toy_config()) if toy_config else factory()
    walk = suite("paper").model_copy(update={"num_steps": 4})  # the toy's, evenly spaced
    spent = method.fit(toy.task(method.info, tmp_path)).cost.unet_calls
    assert fit_work(method, walk) == pytest.approx(spent, rel=0.25)


def test_phases_by_hand(tmp_path: Path) -> None:
    methods = ("diffusionclip", "casl", "casl_steer")
    config, cells = planned(tmp_path, methods=methods, concepts=("smiling", "young"))
    cost = estimate_cost(config, cells)
    assert cost.inversion == shared_work(config) == 2 * 40 * (1000 + 96 + 300)
    # CASL and CASL-Steer share one fit of a concept.
    casl = fit_work(make_method("casl", config.suite), config.suite)
    assert cost.fits == 2 * (250 * 6 + casl)
    a_method = (32 * 5 + 8 * (6 + 1)) * 40  # five levels, six strengths and where they led
    beside = MATCHED_IMAGES * 40
    null = 8 * NULL_IMAGES * 6 * 40  # eight random directions at six strengths, for all concepts
    # Of the two references one runs no U-Net.
    assert cost.edits == 2 * (3 * (a_method + beside) + a_method) + null
    assert cost.sae == 16 * 40 * 2.5
    assert cost.unet_calls == cost.inversion + cost.fits + cost.edits + cost.sae
    assert cost.trajectories == 1300 * 40 * (3 * 256**2 + 512 * 64) * 4
    smaller = estimate_cost(config, cells, {"celeba_hq": (512, 4, 4)})
    assert smaller.trajectories < cost.trajectories
    without, cells = planned(tmp_path, methods=("diffusionclip",), concepts=("smiling",))
    assert estimate_cost(without, cells).sae == 0


def test_a_method_on_weights_of_others_is_not_fitted(tmp_path: Path) -> None:
    config, cells = planned(tmp_path, methods=("asyrp",), concepts=("smiling",))
    given = config.model_copy(update={"method_weights": {"asyrp": tmp_path}})
    fit = fit_work(make_method("asyrp", config.suite), config.suite)
    assert work_of_fit(make_method("asyrp", config.suite), given) == 0
    assert estimate_cost(config, cells).fits == fit > 0
    assert estimate_cost(given, cells).fits == 0


def test_what_a_dry_run_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, cells = planned(tmp_path, methods=("asyrp",), concepts=("smiling",))
    cost = estimate_cost(config, cells)
    text = cost_text(config, cells, unet_speed=20)
    assert f"about {cost.unet_calls:,.0f} U-Net calls (in images): inversion 111,680" in text
    assert f"{cost.unet_calls / 20 / 3600:.1f} h at 20 images a second" in text
    assert "of which trajectories 47.7 GB (budget 200 GB)" in text
    hours = cost.unet_calls * FULL_SIZE_FLOPS / 48.7e9 / 3600
    assert f"{hours:,.1f} h on one thread of a CPU (measured: 48.7 G" in cost_text(config, cells)
    there = config.model_copy(update={"device": "cuda:0"})
    hours = cost.unet_calls * 1e12 / (0.4 * 19.5e12) / 3600
    assert f"A100 {hours:,.1f} h, " in (told := cost_text(there, cells, flops=1e12))
    assert "arithmetic: 1,000.0 GFLOP a pass at 0.4 of the float32 peak" in told
    assert cost_text(config, ()) == "nothing to do: no U-Net call"
    monkeypatch.setenv(DISK_BUDGET_VARIABLE, "much")
    with pytest.raises(UsageError, match="no disk budget"):
        cost_text(config, cells)


def test_the_passes_of_the_published_network_are_those_of_its_form() -> None:
    published = Architecture("ddpm", 3, 3, 128, (1, 1, 2, 2, 4, 4), 2, (4,))
    config = BackboneConfig(name="ddpm", image_size=256, unet=published.unet_config(256))
    assert pass_flops(config) == pytest.approx(FULL_SIZE_FLOPS, rel=0.01)


def test_the_whole_paper_suite_on_faces_is_estimated_without_its_files(tmp_path: Path) -> None:
    config, cells = planned(tmp_path)
    cost = estimate_cost(config, cells)
    assert len({c.concept.name for c in cells}) == len(card_of("celeba_hq").concepts)
    assert cost.edits > cost.inversion > 100_000
