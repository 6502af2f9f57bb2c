"""Cells on disk: whole or absent, verified when read, never outside their folder."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.results import run_folder as record_store
from casl_bench.results.record import CellRecord, FileRef, Provenance, SuiteRef
from casl_bench.results.run_folder import CellKey, RecordStore, damaged_cells, set_aside
from casl_bench.results.score_table import ScoreTable

PROVENANCE = Provenance(
    package_version="0",
    git_commit=None,
    git_dirty=None,
    packages={},
    device="cpu",
    platform="x",
    started_at="2026-01-01T00:00:00+00:00",
)
TABLE = ScoreTable(
    ("a", "b"),
    (1.0,),
    ("x", "y"),
    ("net",),
    np.zeros((1, 2, 2)),
    np.ones((1, 2, 2)),
    np.full((1, 1, 2, 2), 0.1),
)
NPZ = TABLE.to_npz()
SCORES = FileRef(file="scores.npz", sha256=hashlib.sha256(NPZ).hexdigest(), rows=2)


def record(**changes: Any) -> CellRecord:
    fields: dict[str, Any] = {
        "kind": "edit",
        "world": "synth",
        "dataset": "faces",
        "dataset_revision": "1",
        "suite": SuiteRef(name="s", version=1),
        "seed": 0,
        "method": "casl",
        "concept": "smiling",
        "attribute": "smiling",
        "provenance": PROVENANCE,
    }
    return CellRecord(**fields | changes)


def test_a_cell_comes_back_with_its_scores(tmp_path: Path) -> None:
    store, r = RecordStore(tmp_path / "run"), record(scores=SCORES)
    assert store.find(CellKey.of(r)) is None
    folder = store.write(r, {"scores.npz": NPZ})
    assert folder == tmp_path / "run/cells/faces/casl/smiling"
    assert sorted(p.name for p in folder.iterdir()) == ["record.json", "scores.npz"]
    assert sorted(p.name for p in store.run.iterdir()) == ["cells"]
    assert store.find(CellKey.of(r)) == r
    assert store.scores(r) == TABLE
    assert store.scores(record()) is None


@pytest.mark.parametrize(
    ("key", "path"),
    [
        (CellKey("faces", method="casl", concept="hat"), "faces/casl/hat"),
        (
            CellKey("faces", method="random_rotation", beside="casl", concept="hat"),
            "faces/random_rotation@casl/hat",
        ),
        (CellKey("faces", method="pkg/mine", concept="hat"), "faces/pkg%2Fmine/hat"),
        (CellKey("faces", "probe", method="casl", concept="hat"), "faces/_probe+casl/hat"),
        (CellKey("faces", "reconstruction"), "faces/_reconstruction/_all"),
        (CellKey("..", method="../../x", concept="."), "%2E./%2E.%2F..%2Fx/%2E"),
        (CellKey("d", method="_sae", concept="_all"), "d/%5Fsae/%5Fall"),
        (CellKey("d", method="a@b", concept="c\x00\n"), "d/a%40b/c%00%0A"),
    ],
)
def test_folders_are_named_after_the_cell_and_stay_inside(key: CellKey, path: str) -> None:
    assert key.path.as_posix() == path
    assert len(key.path.parts) == 3 and not {"..", "."} & set(key.path.parts)


@pytest.mark.parametrize("name", ["", "x" * 200])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="empty or too long"):
        _ = CellKey("d", method=name, concept="c").path


def test_a_second_write_replaces_the_cell_and_its_files(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.write(record(scores=SCORES), {"scores.npz": NPZ})
    folder = store.write(record(seed=1))
    assert [p.name for p in folder.iterdir()] == ["record.json"]
    assert [r.seed for r in store] == [1]


def test_files_must_be_those_the_record_refers_to(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    for r, files in (
        (record(scores=SCORES), {}),
        (record(), {"scores.npz": NPZ}),
        (record(scores=SCORES), {"scores.npz": NPZ + b" "}),
    ):
        with pytest.raises(InputError):
            store.write(r, files)
    assert list(store) == [] and not list(tmp_path.glob(".partial*"))


def test_an_interrupted_write_leaves_the_old_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordStore(tmp_path)
    store.write(record())
    monkeypatch.setattr(RecordStore, "_move_into_place", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write(record(seed=1))
    assert [r.seed for r in store] == [0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_a_killed_writer_left_is_not_read(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.write(record())
    left = tmp_path / ".partial-abc" / "cell"
    left.mkdir(parents=True)
    (left / "record.json").write_text("{")
    assert [r.seed for r in store] == [0]


def test_an_unwritable_run_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        RecordStore(tmp_path / "file").write(record())


@pytest.mark.parametrize(
    "damage", ["truncated", "not json", "edited", "moved", "no record", "scores"]
)
def test_a_damaged_cell_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    store, r = RecordStore(tmp_path), record(scores=SCORES)
    folder = store.write(r, {"scores.npz": NPZ})
    path = folder / "record.json"
    key = CellKey.of(r)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "not json":
        path.write_bytes(b"\xff\xfe")
    elif damage == "edited":
        path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    elif damage == "moved":
        folder.rename(folder.with_name("hat"))
        key = CellKey("faces", method="casl", concept="hat")
    elif damage == "no record":
        path.unlink()
    else:
        (folder / "scores.npz").write_bytes(NPZ[:-1] + b"x")
    with pytest.raises(InvalidBenchmarkError) as caught:
        store.find(key)
    assert caught.value.exit_code == 5
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_all_records_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    cells = [("b", "x"), ("a", "y"), ("a", "x"), ("a", "x y")]
    for method, concept in cells:
        store.write(record(method=method, concept=concept))
    store.write(record(kind="sae", method=None, concept=None))
    found = [(r.kind, r.method, r.concept) for r in store]
    assert found == [
        ("sae", None, None),
        ("edit", "a", "x"),
        ("edit", "a", "x y"),
        ("edit", "a", "y"),
        ("edit", "b", "x"),
    ]


def test_an_empty_run_has_no_records(tmp_path: Path) -> None:
    assert list(RecordStore(tmp_path / "none")) == []


def test_another_process_may_write_the_same_cell_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It puts its own there after the place was cleared, and takes that away before it is again."""
    store, other = RecordStore(tmp_path), RecordStore(tmp_path)
    place, rename, calls = store.folder(CellKey.of(record())), Path.rename, []
    store.write(record())

    def overtaken(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            other.write(record(seed=2))
        if len(calls) == 7:  # the other's calls are counted, too
            shutil.rmtree(place)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    store.write(record(seed=1))
    assert [r.seed for r in store] == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells"]


def test_a_cell_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, verify, calls = RecordStore(tmp_path), record_store._verify, []
    store.write(record(scores=SCORES), {"scores.npz": NPZ})

    def replaced(path: Path, ref: FileRef) -> None:
        calls.append(path)
        if len(calls) == 1:
            store.write(record(seed=1))
        verify(path, ref)

    monkeypatch.setattr(record_store, "_verify", replaced)
    found = store.find(CellKey.of(record()))
    assert found is not None and found.seed == 1
    calls.clear()
    store.write(record(scores=SCORES), {"scores.npz": NPZ})
    assert [r.seed for r in store] == [1]


def test_a_damaged_cell_is_set_aside_and_the_whole_ones_stay(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "run")
    whole = store.write(record(scores=SCORES), {"scores.npz": NPZ})
    broken = store.write(record(method="asyrp", scores=SCORES), {"scores.npz": NPZ})
    (broken / "scores.npz").write_bytes(b"other bytes")
    for _ in range(2):  # a second one replaces what was set aside before
        assert damaged_cells(store) == (broken,)
        line = set_aside(store.run, damaged_cells(store))
        place = broken.relative_to(store.run).as_posix()
        assert place in line and not broken.exists()
        assert (store.run / "damaged" / place / "scores.npz").read_bytes() == b"other bytes"
        assert list(store.folders()) == [whole]
        store.write(record(method="asyrp", scores=SCORES), {"scores.npz": NPZ})
        (broken / "scores.npz").write_bytes(b"other bytes")
    assert set_aside(store.run, ()) == ""
    with pytest.raises(UsageError, match="cannot set aside"):
        set_aside(store.run, [store.run / "cells" / "absent"])
