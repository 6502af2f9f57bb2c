from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from casl_bench.conformance.toy_domain import toy_domain
from casl_bench.core import memory
from casl_bench.core.errors import UsageError
from casl_bench.core.memory import GB, free_memory, is_out_of_memory, oom_as_usage_error
from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.domains.domain import Domain
from casl_bench.methods.h_space_editor import EditWindow, generate_edits
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs import cell as at_once
from casl_bench.runs.artifacts import Artifacts, InvertedSplit
from casl_bench.runs.cell import PICTURES, EditBatcher, EditCells
from casl_bench.runs.progress import BufferedProgress
from casl_bench.runs.suites import RunConfig
from tests.support.tiny_suite import tiny_suite

STRENGTHS = (0.5, 1.0)
OF_A_ROW = PICTURES * 4 * 3 * 16**2
OUT_OF_MEMORY: dict[str, Callable[[], Exception]] = {
    "GPU": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "MPS": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 17.92 GB)"),
    "CPU": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 8796093022208 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "Python": lambda: MemoryError(),
}


class Push:
    """Adds a shift to h; memory holds so many images at once, and no more."""

    def __init__(self, domain: Domain, most: int, error: Callable[[], Exception]) -> None:
        self.domain, self.most, self.error = domain, most, error
        self.tried: list[int] = []

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        self.tried.append(len(inversions))
        if len(inversions) > self.most:
            raise self.error()
        window = EditWindow(500, asymmetric=True)
        return generate_edits(
            self.domain.backbone, inversions, strengths, lambda h, t, temb: 0.1 * h, window, 0
        )


@pytest.fixture(scope="module")
def domain() -> Domain:
    return toy_domain()


@pytest.fixture(scope="module")
def split(domain: Domain) -> InvertedSplit:
    batch = domain.dataset.load("test", 22)
    inversions = invert(domain.backbone, batch.image_ids, batch.pixels, (0, 400, 900))
    return InvertedSplit(batch, inversions, None)


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., RunConfig]:
    def made(**changes: Any) -> RunConfig:
        return RunConfig(
            methods=("casl",), datasets=("toy_shapes",), concepts=None, suite=tiny_suite(), seed=0,
            device="cpu", out=tmp_path / "run", cache=tmp_path / "cache", **changes,
        )  # fmt: skip

    return made


def edited(
    domain: Domain, split: InvertedSplit, config: RunConfig, editor: Any
) -> tuple[Tensor, list[str]]:
    notes = BufferedProgress()
    cells = EditCells(Artifacts(domain, config, notes), RecordStore(config.out))
    return cells.edit_images(editor, split, STRENGTHS, None), notes.lines


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_batch_and_changes_no_number(
    domain: Domain, split: InvertedSplit, config: Callable[..., RunConfig], kind: str
) -> None:
    enough = Push(domain, 99, OUT_OF_MEMORY[kind])
    whole, said = edited(domain, split, config(), enough)
    assert (enough.tried, said) == ([22], [])
    scarce = Push(domain, 7, OUT_OF_MEMORY[kind])
    again, said = edited(domain, split, config(), scarce)
    # In whole micro-batches of four, and what did not fit once is not tried again.
    assert scarce.tried == [22, 8, 4, 4, 4, 4, 4, 2]
    assert len(said) == 2 and said[-1].endswith("going on with 4")
    assert torch.equal(again, whole)


def test_less_than_a_micro_batch_is_not_tried(
    domain: Domain, split: InvertedSplit, config: Callable[..., RunConfig]
) -> None:
    nothing = Push(domain, 0, OUT_OF_MEMORY["CPU"])
    with (
        pytest.raises(UsageError, match=r"^out of memory; .*--jobs") as caught,
        oom_as_usage_error(),
    ):
        edited(domain, split, config(), nothing)
    assert nothing.tried == [22, 8, 4]
    assert "\n" not in str(caught.value)


def test_other_errors_come_as_they_are(
    domain: Domain, split: InvertedSplit, config: Callable[..., RunConfig]
) -> None:
    wrong = Push(domain, 0, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"), oom_as_usage_error():
        edited(domain, split, config(), wrong)
    assert wrong.tried == [22]


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({"memory_budget": 2 * 12.1 * OF_A_ROW / GB}, [12, 10]),
        ({"memory_budget": 2 * 15.9 * OF_A_ROW / GB}, [12, 10]),
        ({"memory_budget": 1e-9}, [4, 4, 4, 4, 4, 2]),
        ({"batch_size": 3, "memory_budget": 1.0}, [3] * 7 + [1]),
        ({"batch_size": 18}, [18, 4]),
    ],
)
def test_the_budget_decides_and_a_batch_size_is_the_most(
    domain: Domain,
    split: InvertedSplit,
    config: Callable[..., RunConfig],
    given: dict[str, Any],
    sizes: list[int],
) -> None:
    editor = Push(domain, 99, MemoryError)
    few, _ = edited(domain, split, config(**given), editor)
    assert editor.tried == sizes
    whole, _ = edited(domain, split, config(), Push(domain, 99, MemoryError))
    assert torch.equal(few, whole)


def test_without_a_budget_processes_share_half_of_what_is_free(
    domain: Domain, config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_once, "free_memory", lambda device: 2 * 40 * OF_A_ROW)
    assert EditBatcher(config(), domain.backbone, print).images(1) == 40
    assert EditBatcher(config(jobs=2), domain.backbone, print).images(1) == 20


def test_a_container_may_leave_less_than_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    of_the_machine = free_memory()
    assert of_the_machine > 0
    (tmp_path / "memory.max").write_text("10000\n")
    (tmp_path / "memory.current").write_text("7000\n")
    (tmp_path / "memory.stat").write_text("anon 5000\ninactive_file 1500\n")
    assert free_memory() == 4500
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 4500


def test_want_of_memory_is_told_from_other_faults() -> None:
    assert all(is_out_of_memory(make()) for make in OUT_OF_MEMORY.values())
    assert not is_out_of_memory(RuntimeError("out of bounds"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))
