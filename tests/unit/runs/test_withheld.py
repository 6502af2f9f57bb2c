"""A method that asks the renderer gets nothing, whatever it knows its images by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from casl_bench.conformance.toy_domain import toy_domain
from casl_bench.core.errors import InputError
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.rendering import faces
from casl_bench.domains.rendering.renderer import RenderedDataset
from casl_bench.methods.method import METHODS
from casl_bench.runs.artifacts import Artifacts, InvertedSplit
from casl_bench.runs.cell import EditCells
from casl_bench.runs.fits import Fitting
from casl_bench.runs.hidden_ids import HiddenIds
from casl_bench.runs.names import load_registries
from casl_bench.runs.progress import SilentProgress, Stopwatch
from casl_bench.runs.suites import RunConfig
from casl_bench.runs.withheld import withheld
from tests.support.tiny_suite import tiny_suite

DATA = RenderedDataset(faces.DRAWING)
CONCEPT = DATA.card.concepts[0]


class LooksUp:
    """Ten lines that were first by ids, here by pixels: the perfect edit of what it is shown."""

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        known = DATA.load("test", 8)
        places = [int((known.pixels - x).abs().sum((1, 2, 3)).argmin()) for x in inversions.x_0]
        found = DATA.oracle([known.image_ids[i] for i in places], CONCEPT.attribute)
        return found.expand(len(strengths), -1, -1, -1, -1)


def test_an_edit_that_looks_up_its_images_fails() -> None:
    batch = DATA.load("test", 2)
    images = Inversions(batch.image_ids, (0,), batch.pixels, batch.pixels, batch.pixels)
    perfect = DATA.oracle(batch.image_ids, CONCEPT.attribute)
    editor: Any = LooksUp()
    assert torch.equal(editor.edit(images, [1.0])[0], perfect)

    cells = EditCells.__new__(EditCells)
    cells.fitting = SimpleNamespace(hidden=HiddenIds())  # type: ignore[assignment]
    cells.batcher = SimpleNamespace(  # type: ignore[assignment]
        edit=lambda count, strengths, work: [work(range(count))]
    )
    with pytest.raises(InputError, match="may not draw"):
        cells.edit_images(editor, InvertedSplit(batch, images, None), (1.0,), None)
    assert torch.equal(DATA.load("test", 2).pixels, batch.pixels)  # all others may again


def test_a_fit_that_loads_test_images_fails(tmp_path: Path) -> None:
    load_registries()
    config = RunConfig(
        methods=("h_linear",), datasets=("toy_shapes",), concepts=None, seed=0, device="cpu",
        suite=tiny_suite(), out=tmp_path, cache=tmp_path / "cache",
    )  # fmt: skip
    domain = toy_domain()
    method: Any = METHODS.create("h_linear")
    method.fit = lambda task: DATA.load("test", 2)
    fitting = Fitting(Artifacts(domain, config, SilentProgress()))
    with pytest.raises(InputError, match="may not draw"):
        fitting.fit(method, domain.dataset.card.concepts[0], Stopwatch(), 0.0)


def test_a_control_renders_by_what_its_task_grants() -> None:
    hidden = HiddenIds()
    names = hidden.names(("test-000001",))
    render = hidden.oracle(RenderedDataset(faces.DRAWING).oracle)
    with withheld():
        found = render(names, CONCEPT.attribute)
        with pytest.raises(InputError, match="may not draw"):
            DATA.load("test", 1)
    assert torch.equal(found, DATA.oracle(("test-000001",), CONCEPT.attribute))
