"""A finished command is answered from its folder, and by nothing that has changed since."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from casl_bench.cache.store import cache_of
from casl_bench.cli import main as cli
from casl_bench.runs import receipt as receipt_module
from casl_bench.runs.receipt import RECEIPT, Receipt, receipt_of
from casl_bench.runs.suites import RunConfig, Shard, suite

COMMAND: dict[str, Any] = {
    "suite": suite("quick"), "datasets": ("rendered_faces",), "seed": 0, "plugins": (),
    "real": {"data_root": Path("somewhere"), "on_bad_image": "error", "classifiers": ()},
    "methods": ["casl"], "concepts": ["all"], "fit_seeds": 1, "device": "cpu",
}  # fmt: skip


def receipt(out: Path, **changes: Any) -> Receipt | None:
    return receipt_of(out=out, **(COMMAND | changes))


def fill(out: Path) -> None:
    for name in ("manifest.json", "records.jsonl", "table.md", "cells/a/record.json",
                 "pictures/a.png"):  # fmt: skip
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"of {name}\n")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    fill(tmp_path)
    made = receipt(tmp_path)
    assert made is not None and not made.is_there()
    made.write()
    assert made.is_there()
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1}, {"suite": suite("standard")}, {"methods": ["asyrp"]}, {"concepts": ["hat"]},
        {"fit_seeds": 2}, {"device": "cuda"}, {"datasets": ("rendered_dogs",)},
        {"datasets": ("all",)},
    ],
)  # fmt: skip
def test_another_command_is_not_finished(finished: Path, changes: dict[str, Any]) -> None:
    other = receipt(finished, **changes)
    assert other is not None and not other.is_there()


@pytest.mark.parametrize(
    "change",
    [
        lambda out: (out / "cells" / "a" / "record.json").write_text("of cells/a/record.jsom\n"),
        lambda out: (out / "pictures" / "a.png").unlink(),
        lambda out: (out / "cells" / "b").write_text("more"),
        lambda out: (out / "table.md").rename(out / "cells" / "table.md"),
        lambda out: (out / RECEIPT).write_text("{}"),
        lambda out: (out / RECEIPT).write_text("[" * 100_000),
    ],
)
def test_changed_results_are_not_finished(finished: Path, change: Callable[[Path], object]) -> None:
    change(finished)
    again = receipt(finished)
    assert again is not None and not again.is_there()


def test_an_edited_baseline_is_not_finished(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entrants = tmp_path / "entrants"
    entrants.mkdir()
    found = SimpleNamespace(submodule_search_locations=[str(entrants)])
    monkeypatch.setattr(receipt_module, "find_spec", lambda name: found)
    again = receipt(finished)
    assert again is not None
    again.write()
    assert again.is_there()
    (entrants / "method.py").write_text("edited = True")
    assert not again.is_there()


def test_other_code_models_or_libraries_are_another_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = receipt(finished)
    assert again is not None
    package = tmp_path / "package"
    package.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(receipt_module, "PACKAGE", package)
        for file, text in (("code.py", "a = 1"), ("code.py", "a = 2"), ("model.bin", "weights")):
            (package / file).write_text(text)
            assert not again.is_there()
            again.write()
            assert again.is_there()
    assert not again.is_there()
    again.write()
    monkeypatch.setattr(receipt_module, "environment", lambda: {"torch": "0.0"})
    assert not again.is_there()


@pytest.mark.parametrize(
    "changes",
    [
        {"plugins": (Path("mine.py"),)}, {"datasets": ("celeba_hq",)},
        {"suite": suite("paper"), "datasets": ("all",)}, {"real": {"method_weights": ("casl=w",)}},
        {"real": {"classifiers": (Path("net.pt"),)}},
    ],
)  # fmt: skip
def test_what_depends_on_files_of_others_has_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert receipt(tmp_path, **changes) is None


def test_installed_entrants_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Strangers:
        groups = ("console_scripts", "casl_bench.methods")

    monkeypatch.setattr(receipt_module, "entry_points", Strangers)
    assert receipt(tmp_path) is None


def test_the_same_command_again_is_its_table_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: RunConfig) -> int:
        fill(config.out)
        return 0

    out = tmp_path / "run"
    monkeypatch.setattr(cli, "_run_and_report", run)
    command = ["--methods", "casl", "--datasets", "all", "--quick", "--out", str(out)]
    assert cli.main(command) == 0
    again = (
        "import sys; from casl_bench.cli.main import main; code = main(sys.argv[1:]); "
        "loaded = {'torch', 'diffusers', 'open_clip', 'sklearn'} & set(sys.modules); "
        "sys.exit(str(loaded) if loaded else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", again, *command, "--jobs", "2"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "of table.md\n"), done.stderr
    assert done.stderr == f"records, pictures and table, as finished before: {out}\n"


def test_a_run_with_failed_cells_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: RunConfig) -> int:
        fill(config.out)
        return 3

    monkeypatch.setattr(cli, "_run_and_report", run)
    out = tmp_path / "run"
    command = ["--methods", "casl", "--quick", "--out", str(out)]
    assert cli.main(command) == 3
    assert not (out / RECEIPT).exists()


def test_a_part_is_finished_for_its_own_command_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, other = Shard(index=1, count=2), Shard(index=2, count=2)
    fill(tmp_path)
    (tmp_path / "plan.json").write_text("of 1/2\n")
    made = receipt(tmp_path, shard=part)
    assert made is not None
    made.write()
    again = receipt(tmp_path, shard=part)
    assert again is not None and again.is_there()
    for shard in (other, None):
        another = receipt(tmp_path, shard=shard)
        assert another is not None and not another.is_there()
    with monkeypatch.context() as patch:
        patch.setattr(receipt_module, "git_state", lambda folder: ("another", False))
        later = receipt(tmp_path, shard=part)
    assert later is not None and not later.is_there()
    (tmp_path / "plan.json").write_text("of 2/2\n")
    assert not again.is_there()


def test_parts_have_folders_and_receipts_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run(config: RunConfig) -> int:
        ran.append(config.out.name)
        fill(config.out)
        if config.execution.shard is not None and config.execution.shard.index == 2:
            (config.out / "table.md").unlink()  # a part without a cell
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_run_and_report", run)
    command = ["--methods", "casl", "--quick"]
    name = "rendered_faces-quick-seed0"
    for _ in range(2):
        for more in ([], ["--shard", "1/2"], ["--shard", "2/2"]):
            capsys.readouterr()
            assert cli.main([*command, *more]) == 0
    assert ran == [name, f"{name}-shard1of2", f"{name}-shard2of2"]
    assert capsys.readouterr().out == ""


def test_a_run_without_cache_keeps_what_it_makes_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    caches = []

    def run(config: RunConfig) -> int:
        caches.append(config.cache)
        return 3

    out, shared = tmp_path / "run", tmp_path / "shared"
    monkeypatch.setenv("CASL_BENCH_CACHE", str(shared))
    monkeypatch.setattr(cli, "_run_and_report", run)
    command = ["--methods", "casl", "--quick", "--out", str(out)]
    for more in ([], ["--no-cache"]):
        cli.main([*command, *more])
    assert caches == [shared, out / ".cache"]
    assert cache_of(out) == shared
    (out / ".cache").mkdir(parents=True)
    assert cache_of(out) == out / ".cache"
    assert cli.main([*command, "--no-cache", "--cache", str(shared)]) == 2
    assert "contradict each other" in capsys.readouterr().err
