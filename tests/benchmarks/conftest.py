"""Sizes: seconds on the toy domain; those of docs/performance.md with `CASL_BENCH_FULL_SIZE=1`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.domains.domain import DOMAINS, Domain
from casl_bench.models.noise_schedule import power_timesteps
from casl_bench.runs import executor as runner
from casl_bench.runs.progress import Progress
from casl_bench.runs.suites import RunConfig, Suite
from tests.support.tiny_suite import tiny_suite

RunDomain = Callable[..., None]


@pytest.fixture(scope="session")
def full_size() -> bool:
    return bool(os.environ.get("CASL_BENCH_FULL_SIZE"))


@pytest.fixture(scope="module")
def domain(full_size: bool, toy_registered: None) -> Domain:
    return DOMAINS.create("rendered_faces" if full_size else "toy_shapes", "cpu")


@pytest.fixture(scope="module")
def inversions(domain: Domain, full_size: bool) -> Inversions:
    """Eight images of twenty steps, or three of four."""
    images, steps = (8, 20) if full_size else (3, 4)
    batch = domain.dataset.load("test", images)
    timesteps = power_timesteps(steps, 999, 1.5)
    return invert(domain.backbone, batch.image_ids, batch.pixels, timesteps)


@pytest.fixture
def suite(full_size: bool) -> Suite:
    """The tiny suite, or the standard one with fewer images and steps."""
    if not full_size:
        return tiny_suite()
    return tiny_suite(
        num_steps=10, train_images=16, validation_images=2, test_pool_images=24,
        test_images_per_concept=4, strengths=(0.25, 0.75, 1.5, 3.0), fit_image_steps=64,
        sae_steps=100,
        probe_train_images=16, probe_test_images=16, probe_ks=(1, 4),
    )  # fmt: skip


@pytest.fixture
def run_domain(domain: Domain, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> RunDomain:
    """Run methods in the domain at hand, whose networks can then be watched."""
    name = domain.dataset.card.name
    monkeypatch.setattr(runner, "open_domains", lambda config: {name: domain})

    def run(out: Path, methods: tuple[str, ...], progress: Progress, **changes: object) -> None:
        names = [c.name for c in domain.dataset.card.concepts]
        # Few images are enough where most of them lack the attribute.
        concepts = ("hat",) if "hat" in names else tuple(names[:1])
        fields: dict[str, object] = {
            "methods": methods, "datasets": (name,), "concepts": concepts, "suite": suite,
            "seed": 0, "device": "cpu", "out": out,
            "cache": out.with_name(f"{out.name}-cache"),  # what another run made costs nothing
        }  # fmt: skip
        assert runner.run(RunConfig(**(fields | changes)), progress) == 0

    return run
