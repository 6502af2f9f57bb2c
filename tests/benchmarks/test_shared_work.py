"""All methods in one run against the sum of each alone, in U-Net passes counted by hooks.

Always in the toy domain: how many passes a suite makes does not depend on the size of the network.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from casl_bench.conformance.toy_domain import toy_domain
from casl_bench.domains.domain import Domain
from casl_bench.methods.method import METHODS
from casl_bench.runs.plan import info_of
from casl_bench.runs.progress import PhaseCosts, SilentProgress
from casl_bench.runs.suites import Suite
from tests.support.tiny_suite import tiny_suite


@pytest.fixture(scope="module")
def domain(toy_registered: None) -> Domain:
    return toy_domain()


@pytest.fixture
def suite() -> Suite:
    """The tiny suite, with as many images as twice those edited ask for."""
    return tiny_suite(test_pool_images=16)


@pytest.fixture
def only_at_full_size(full_size: bool) -> None:
    if not full_size:
        pytest.skip("minutes: set CASL_BENCH_FULL_SIZE=1")


def passes(run_domain, out: Path, methods: tuple[str, ...], **changes) -> PhaseCosts:
    progress = SilentProgress()
    run_domain(out, methods, progress, **changes)
    return progress.costs


def test_phases_are_counted_by_hooks_as_the_backbone_counts_itself(
    run_domain, domain: Domain, tmp_path: Path
) -> None:
    with domain.backbone.count_calls() as own:
        phases = passes(run_domain, tmp_path / "run", ("h_linear",))
    assert {"inversion", "edit"} <= set(phases.passes)
    # Hooks see batches as they were filled up, the backbone counts images that were asked for.
    assert own.unet_calls <= phases.total <= domain.backbone.micro_batch * own.unet_calls
    assert not domain.backbone.unet.conv_in._forward_hooks
    again = passes(run_domain, tmp_path / "run", ("h_linear",))
    assert again.total == 0


@pytest.mark.usefixtures("only_at_full_size")
def test_shared_work(benchmark: BenchmarkFixture, run_domain, tmp_path: Path) -> None:
    methods = tuple(n for n in METHODS.names() if not info_of(n).control)  # controls come anyway
    together = benchmark.pedantic(passes, args=(run_domain, tmp_path / "all", methods), rounds=1)
    alone = [passes(run_domain, tmp_path / m, (m,)) for m in methods]
    ratio = together.total / sum(a.total for a in alone)
    assert ratio < 1
    benchmark.extra_info.update(
        {
            "passes by phase": dict(together.passes),
            "passes together": together.total,
            "passes of each alone": dict(zip(methods, (a.total for a in alone), strict=True)),
            "ratio": ratio,
            "target": "<= 0.6",
        }
    )


@pytest.mark.usefixtures("only_at_full_size")
def test_cost_growth(
    benchmark: BenchmarkFixture, run_domain, domain: Domain, suite: Suite, tmp_path: Path
) -> None:
    def edits(name: str, **changes) -> PhaseCosts:
        own = suite.model_copy(update=changes)
        return passes(run_domain, tmp_path / name, ("h_linear",), suite=own)

    def measured() -> dict[str, PhaseCosts]:
        few = suite.test_images_per_concept
        concepts = tuple(c.name for c in domain.dataset.card.concepts[:2])
        return {
            "base": edits("base"),
            "strengths": edits("strengths", strengths=(0.25, 0.5, 0.75, 1.0)),
            "images": edits("images", test_images_per_concept=2 * few),
            "concepts": passes(run_domain, tmp_path / "concepts", ("h_linear",), concepts=concepts),
        }

    found = benchmark.pedantic(measured, rounds=1)
    inversions = {name: phases.passes["inversion"] for name, phases in found.items()}
    assert len(set(inversions.values())) == 1, inversions
    benchmark.extra_info["passes by phase"] = {n: dict(p.passes) for n, p in found.items()}
    assert found["base"].passes["edit"] < found["concepts"].passes["edit"]
