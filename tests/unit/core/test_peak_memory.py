"""A block's peak memory is that of the block: seen when it is over, gone for the next one."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from casl_bench.core import memory as module
from casl_bench.core.memory import MB, peak_memory

SIZE = 300 * MB

linux = pytest.mark.skipif(not module._RESET.exists(), reason="only Linux sets its mark back")


def work() -> int:
    return len(b"\x01" * SIZE)  # written to, so that it is really there


def peak() -> float:
    gc.collect()  # what others left must not go while something is measured
    with peak_memory() as found:
        pass
    assert found.mb is not None
    return found.mb


@linux
def test_what_is_let_go_within_the_block_is_counted() -> None:
    before = peak()
    with peak_memory() as found:
        work()
    assert found.mb is not None
    assert 0.9 * SIZE / MB < found.mb - before < 1.5 * SIZE / MB


@linux
def test_what_was_let_go_before_the_block_is_not() -> None:
    with peak_memory() as large:
        work()
    assert large.mb is not None
    assert peak() < large.mb - 0.9 * SIZE / MB


@linux
def test_what_is_still_held_is_counted() -> None:
    before = peak()
    held = b"\x01" * SIZE
    assert peak() - before > 0.9 * len(held) / MB


def no_reset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_RESET", tmp_path / "absent" / "clear_refs")


def test_a_mark_that_cannot_be_set_back_tells_only_of_what_raised_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_reset(monkeypatch, tmp_path)
    marks = iter([500.0 * MB, 500.0 * MB, 500.0 * MB, 800.0 * MB])
    monkeypatch.setattr(module, "_lifelong_mark", lambda: next(marks))
    with peak_memory() as within:
        pass
    with peak_memory() as above:
        pass
    assert (within.mb, above.mb) == (None, 800.0)


def test_the_lifelong_mark_is_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    mark = module._lifelong_mark()
    assert mark is not None and 5 * MB < mark < 10**6 * MB


def test_unknown_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with peak_memory("mps") as found:
        pass
    assert found.mb is None
    no_reset(monkeypatch, tmp_path)
    monkeypatch.setattr(module, "_lifelong_mark", lambda: None)
    with peak_memory() as found:
        pass
    assert found.mb is None
    monkeypatch.setattr(module, "_STATUS", tmp_path / "status")
    assert module._mark() is None
    (tmp_path / "status").write_text("Name: x\nVmRSS: 5 kB\n")
    assert module._mark() is None


def test_the_mark_is_read_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text("VmPeak:\t 9 kB\nVmHWM:\t   2212 kB\n")
    monkeypatch.setattr(module, "_STATUS", tmp_path / "status")
    assert module._mark() == 2212 * 1024


def test_a_gpu_is_asked_for_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked: list[str] = []
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda d, name=name: asked.append(f"{name} {d}"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda d: 3 * MB)
    with peak_memory("cuda:1") as found:
        asked.append("work")
    assert found.mb == 3.0
    assert asked == [
        "synchronize cuda:1", "reset_peak_memory_stats cuda:1", "work", "synchronize cuda:1",
    ]  # fmt: skip
