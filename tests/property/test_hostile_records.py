"""Records, run folders and published scores from a stranger: seeded attempts to break what reads.

Every attempt begins with what commands take, changes something about it, and seals it again, so
that no checksum stops it. A command may take it or refuse it in one line; it may not stumble, write
anything else, or leave half of what it was to write.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casl_bench.analysis.analyse import analyse, publish
from casl_bench.cli.main import main
from casl_bench.core.errors import BenchError
from casl_bench.core.files import hash_bytes
from casl_bench.results.published_scores import ENDING
from casl_bench.results.record import CellRecord, RunRecord
from casl_bench.results.run_folder import CellKey
from tests.support.scored_run import MadeUpMethod, MadeUpRun, write_made_up_run

Stored = dict[str, Any]
Rng = random.Random

EVIL = (
    "<img src=x onerror=alert(1)>", "](javascript:alert(2))", "a|b\n# c", "`$(id)`", "=1+1|' /C'!A",
    "\x1b[2J\x07", "\u202egnp.exe", "../../../etc/passwd", "/", "..", "~root", "CON", "",
    "\u2028\u2029\x85", "x" * 3000, "ﷺ🏳️\u200d🌈\u0301", "\ud800", "$a_b^{$", "{{7*7}}", "%s%n",
    "\x00", "-rf", "all", "rendered_faces", "hat", "casl", "@", "+1", "# 1", "</details>", "_",
)  # fmt: skip
"""Names that are markup, formulas, commands, paths, or not to be seen."""

NUMBERS = (
    0, 1, -1, True, None, 0.5, 1.5, -0.0, 1e308, -1e308, 1e99, -1e99, 5e-324, 1e-300, 2**31, 2**63,
    10**30, 10**4000, float("nan"), float("inf"), "1", "nan", [], {}, [0.0], {"a": 1}, 2**63 - 1,
)  # fmt: skip

TEXTS = (
    b"", b"\n", b"\n\n", b"{}\n", b"[]\n", b"null\n", b"{\n", b"\xff\xfe\n", b"\xef\xbb\xbf{}\n",
    b'{"a": ' + b"9" * 5000 + b"}\n", b"[" * 5000, b'{"a":' * 950 + b"1" + b"}" * 950 + b"\n",
    b'"\\ud800"\n', b"1e999\n", b"\0" * 100, b"{}\n" * 1000, b"x" * 100_000, b"NaN\n",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run folder, its numbers and its published scores."""
    root = tmp_path_factory.mktemp("sound")
    methods = {"casl": MadeUpMethod(damage=0.1), "asyrp": MadeUpMethod(gain=-1.0, damage=0.3)}
    run = MadeUpRun(methods, images=6, commit="c" * 40)
    write_made_up_run(root / "run", run)
    key = {"suite": {"name": "made_up", "version": 1}, "seed": 0, "device": "cpu"}
    (root / "run" / "manifest.json").write_text(json.dumps({"key": key}), encoding="utf-8")
    publish([root / "run"], root / f"ours{ENDING}")
    numbers = [r.to_json() for r in analyse([root / "run"])]
    (root / "numbers.jsonl").write_text("\n".join(map(json.dumps, numbers)), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def numbers(folder: Path) -> list[Stored]:
    lines = (folder / "numbers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def command(*arguments: str | Path) -> int:
    """The exit code of a command that ends well, or says in one line why it does not."""
    said, shown = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
        code = main([*map(str, arguments)])
    error = said.getvalue()
    assert code in (0, 2, 5), error
    assert "unforeseen" not in error and "Traceback" not in error, error
    if code:
        assert error.startswith("error: ") and error.count("\n") == 1, error
    for text in (error, shown.getvalue()):
        assert text.replace("\n", "").isprintable(), ascii(text)
    return code


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def change(rng: Rng, stored: Any) -> None:
    """Change one thing about a JSON value."""
    holder, key = rng.choice([*places(stored)])
    old = holder[key]
    how = rng.choice(["text", "number", "drop", "name"])
    if how == "drop":
        del holder[key]
    elif how == "name" and isinstance(holder, dict):
        holder[rng.choice(EVIL)] = holder.pop(key)
    elif isinstance(old, str) and how != "number":
        holder[key] = rng.choice(EVIL)
    elif isinstance(old, float) and rng.random() < 0.7:
        # What a schema lets through goes further.
        holder[key] = rng.choice([0.0, -0.0, 1e99, -1e99, 5e-324, 1e-30, -old, 1e6 * old, 1e38])
    elif type(old) is int and rng.random() < 0.7:
        holder[key] = rng.choice([0, 1, 2, 7, 10**9, 2**62])
    elif isinstance(old, list) and rng.random() < 0.7:
        holder[key] = rng.choice([old[:-1], old + old[:1], old[::-1], []])
    else:
        holder[key] = rng.choice(NUMBERS)


def rename(rng: Rng, records: list[Stored]) -> None:
    """Give one name another one wherever it stands, so that records still fit each other."""
    name = rng.choice(["casl", "asyrp", "hat", "beard", "made_up", "made_up_classifier", "blond"])
    other = rng.choice(EVIL)
    for holder, key in [*places(records)]:
        value = holder[key]
        if isinstance(value, str) and value in (name, f"made_up/{name}"):
            holder[key] = value.replace(name, other)
        if isinstance(key, str) and re.search(rf"(?<![a-z_]){name}(?![a-z_])", key):
            holder[key.replace(name, other)] = holder.pop(key)


def rearrange(rng: Rng, records: list[Stored]) -> None:
    """Take records away, repeat them, or take them over from elsewhere."""
    for _ in range(rng.randint(1, 4)):
        how = rng.choice(["drop", "repeat", "kind", "seed", "control", "status"])
        record = rng.choice(records)
        if how == "drop" and len(records) > 1:
            records.remove(record)
        elif how == "repeat":
            records.append(json.loads(json.dumps(record)))
        elif how == "kind":
            record["kind"] = rng.choice(["edit", "probe", "sae", "scorer", "null", "comparison"])
        elif how == "seed":
            record["seed"], record["fit_seed"] = (
                rng.choice([0, 1, 2**62]),
                rng.choice([0, 1, 2**62]),
            )
        elif how == "control":
            record["control"], record["method"] = (
                True,
                rng.choice(
                    ["oracle", "identity", "inverted", "destroy", "shuffled", "pixel_attack"]
                ),
            )
        else:
            record["status"] = "failed"
            record["error"] = {"type": rng.choice(EVIL), "message": rng.choice(EVIL)}


def sealed(kind: type[CellRecord] | type[RunRecord], stored: Stored) -> Stored:
    """With the ids of what it is now, where it is a record at all."""
    own = {k: v for k, v in stored.items() if k not in ("record_id", "provenance_id")}
    try:
        return kind.model_validate_json(json.dumps(own), strict=True).to_json()
    except ValueError:
        return stored


def mutated(rng: Rng, records: list[Stored]) -> list[Stored]:
    """Records of which something is another's, sealed again."""
    found: list[Stored] = json.loads(json.dumps(records))
    for _ in range(rng.randint(1, 3)):
        rng.choice([change, change, rename, rearrange])(rng, found)
    return [sealed(RunRecord, r) if isinstance(r, dict) else r for r in found]


def file_of(rng: Rng, records: list[Stored], folder: Path) -> Path:
    """A file of mutated records, plain or packed, at times cut or with something in it."""
    data = "".join(json.dumps(r) + "\n" for r in mutated(rng, records)).encode()
    place = rng.randint(0, len(data))
    how = rng.randint(0, 9)
    if how == 0:
        data = data[:place]
    elif how == 1:
        data = data[:place] + rng.choice(TEXTS) + data[place:]
    elif how == 2:
        data = rng.choice(TEXTS)
    packed = rng.random() < 0.5
    path = folder / f"theirs.jsonl{'.gz' if packed else ''}"
    data = gzip.compress(data, mtime=0) if packed else data
    if packed and rng.random() < 0.2:
        data = bytearray(data)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("seed", range(50))
def test_a_file_of_records(seed: int, numbers: list[Stored], tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    path = file_of(Rng(seed), numbers, tmp_path / "records")
    command("table", path)
    pages = tmp_path / "pages"
    code = command("leaderboard", "--records", path.parent, "--out", pages)
    assert pages.exists() == (code == 0)
    for form in ("csv", "latex", "json"):
        assert command("leaderboard", "--records", path.parent, "--format", form) == code
    for page in pages.rglob("*.md"):
        check_harmless(page.read_text(encoding="utf-8"))
    assert {p.name for p in tmp_path.iterdir()} <= {"records", "pages"}


def check_harmless(page: str) -> None:
    """No element but folds and comments of ours, and nothing that steers a terminal."""
    assert page.replace("\n", "").isprintable()
    # Code is shown as it is.
    text = re.sub(r"^    .*$|(`+)[^`].*?\1", "", page, flags=re.MULTILINE)
    tags = set(re.findall(r"<[^>]{0,20}", text))
    assert {t for t in tags if not re.match(r"</?(details|summary)$|<!-- ", t)} == set(), tags
    assert not re.search(r"(?<!\\)\]\(\s*(javascript|data):", text)


@pytest.mark.parametrize("seed", range(100, 110))
def test_a_report_of_a_file_of_records(seed: int, numbers: list[Stored], tmp_path: Path) -> None:
    path = file_of(Rng(seed), numbers, tmp_path)
    command("report", path, "--out", tmp_path / "report")
    left = {p.name for p in tmp_path.iterdir()} - {path.name}
    assert left <= {"report"}
    for page in (tmp_path / "report").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert text.replace("\n", "").isprintable()
        assert "<img" not in text and text.count("<script") == 1


@pytest.mark.parametrize("seed", range(200, 220))
def test_a_submission(seed: int, numbers: list[Stored], tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    path = file_of(Rng(seed), numbers, given)
    name = Rng(seed).choice([*EVIL, None])
    options = [] if name is None else [f"--name={name}"]
    assert command("submit", path, "--records", tmp_path / "boards", *options) != 0
    assert {p.name for p in tmp_path.iterdir()} == {"given"}


def reseal(path: Path, rng: Rng) -> None:
    """Change the record of a cell, seal it, and put the cell where its names say."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(rng.randint(1, 2)):
        change(rng, stored)
    stored = sealed(CellRecord, stored)
    path.write_text(json.dumps(stored), encoding="utf-8")
    with contextlib.suppress(BenchError, ValueError):
        key = CellKey.of(CellRecord.from_json(stored))
        target = path.parents[3] / key.path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.parent.rename(target)


def rescore(path: Path, rng: Rng) -> None:
    """Give a cell other scores, with the hash of what they are now."""
    scores = path.with_name("scores.npz")
    if not scores.exists():
        return
    with np.load(scores) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    name = rng.choice(sorted(arrays))
    value = arrays[name]
    how = rng.choice(["drop", "nan", "huge", "zero", "shape", "type", "names", "empty", "equal"])
    if how == "drop":
        del arrays[name]
    elif how == "shape":
        arrays[name] = value[..., :-1] if value.ndim and value.shape[-1] > 1 else value[None]
    elif how == "type":
        arrays[name] = np.array(["x"] * max(value.size, 1))
    elif how == "empty":
        arrays[name] = value[:0]
    elif how == "names":
        arrays["image_ids"] = np.array([rng.choice(EVIL) or "x" for _ in arrays["image_ids"]])
    else:
        filled = {"nan": np.nan, "huge": 3e38, "zero": 0.0, "equal": 1e-38}[how]
        key = name if value.dtype.kind == "f" else "edit_logits"
        arrays[key] = np.full_like(arrays[key], filled)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    scores.write_bytes(out.getvalue())
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["scores"]["sha256"] = hash_bytes(out.getvalue())
    path.write_text(json.dumps(sealed(CellRecord, stored)), encoding="utf-8")


def damage(path: Path, rng: Rng) -> None:
    """Do something to a file of a cell that no program of ours does."""
    path = rng.choice(sorted(path.parent.iterdir()))
    data = path.read_bytes()
    how = rng.choice(["cut", "other", "gone", "folder", "link", "extra", "flip"])
    if how == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
    elif how == "other":
        path.write_bytes(rng.choice(TEXTS))
    elif how == "flip":
        place = rng.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    elif how == "extra":
        (path.parent / "more" / "inside").mkdir(parents=True)
        (path.parent / "notes.txt").write_text("mine", encoding="utf-8")
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "link":
            path.symlink_to(path.name)


def of_manifest(path: Path, rng: Rng) -> None:
    """Change the manifest of a run."""
    manifest = path.parents[4] / "manifest.json"
    if rng.random() < 0.5:
        manifest.write_bytes(rng.choice(TEXTS))
    else:
        stored = json.loads(manifest.read_text(encoding="utf-8"))
        change(rng, stored)
        manifest.write_text(json.dumps(stored), encoding="utf-8")


def broken_run(seed: int, folder: Path, run: Path) -> None:
    """A copy of the run folder of which something is another's."""
    rng = Rng(seed)
    shutil.copytree(folder / "run", run)
    ways: list[Callable[[Path, Rng], None]] = [reseal, reseal, reseal, rescore, rescore, damage,
                                               of_manifest]  # fmt: skip
    for _ in range(rng.randint(1, 2)):
        records = sorted(run.glob("cells/*/*/*/record.json"))
        with contextlib.suppress(ValueError, LookupError, OSError):  # broken already
            rng.choice(ways)(rng.choice(records), rng)


@pytest.mark.parametrize("seed", range(300, 330))
def test_a_run_folder(seed: int, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    broken_run(seed, folder, run)
    before = {p.relative_to(run) for p in run.rglob("*")}
    code = command("analyse", run)
    written = {p.relative_to(run).as_posix() for p in run.rglob("*")} - {
        p.as_posix() for p in before
    }
    assert written == ({"numbers.jsonl", "summary.txt", "table.md"} if code == 0 else set())
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("seed", range(400, 415))
def test_runs_that_are_merged(seed: int, folder: Path, tmp_path: Path) -> None:
    run, sound = tmp_path / "run", tmp_path / "sound"
    broken_run(seed, folder, run)
    shutil.copytree(folder / "run", sound)
    before = {p.relative_to(run): p.is_file() and p.read_bytes() for p in run.rglob("*")}
    code = merged(tmp_path / "out", run, sound)
    assert {p.relative_to(run): p.is_file() and p.read_bytes() for p in run.rglob("*")} == before
    assert {p.name for p in tmp_path.iterdir()} <= {"run", "sound", "out"}
    if code == 0:
        assert (tmp_path / "out" / "numbers.jsonl").is_file()


def merged(out: Path, *runs: Path) -> int:
    """`command` of a merge, which says in a line what it did, and ends with 3 of a failed cell."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(["merge", str(out), *map(str, runs)])
    assert code in (0, 2, 3, 5) and said.getvalue().count("\n") == 1, said.getvalue()
    assert "unforeseen" not in said.getvalue(), said.getvalue()
    return code


def broken_scores(seed: int, folder: Path, path: Path) -> None:
    """A copy of the published scores of which something is another's."""
    rng = Rng(seed)
    data = (folder / f"ours{ENDING}").read_bytes()
    how = rng.choice(["cells", "cells", "arrays", "arrays", "cut", "text"])
    if how == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
        return
    if how == "text":
        path.write_bytes(rng.choice(TEXTS))
        return
    with np.load(io.BytesIO(data)) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    if how == "arrays":
        name = rng.choice(sorted(arrays))
        value = arrays[name]
        arrays[name] = rng.choice(
            [value[:0], value[None], np.zeros(3), np.array(["x"]), np.array(1), value.astype("S9"),
             np.zeros((2, 0, 5)), np.full(value.shape, 2**31 - 1)]
        )  # fmt: skip
    else:
        lines = gzip.decompress(arrays["cells"].tobytes()).decode().splitlines()
        entries = [json.loads(line) for line in lines]
        for _ in range(rng.randint(1, 3)):
            change(rng, entries)
        for entry in entries:
            if isinstance(entry, dict) and isinstance(entry.get("record"), dict):
                entry["record"] = sealed(CellRecord, entry["record"])
        text = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        arrays["cells"] = np.frombuffer(gzip.compress(text), dtype=np.uint8)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    path.write_bytes(out.getvalue())


@pytest.mark.parametrize("seed", range(500, 520))
def test_published_scores(seed: int, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / f"theirs{ENDING}"
    broken_scores(seed, folder, path)
    command("analyse", path)
    assert {p.name for p in tmp_path.iterdir()} == {path.name}


BOMBS = {
    "lines": b"{}\n",
    "one line": b" ",
    "a list": b"[],",
    "blank lines": b"\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_that_unpacks_to_much(kind: str, tmp_path: Path) -> None:
    """600 kB of gzipped `{}` lines took 7 GB: they are read one at a time, and so many at most."""
    import resource

    path = tmp_path / "records" / "bomb.jsonl.gz"
    path.parent.mkdir()
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(BOMBS[kind] * (1_000_000 // len(BOMBS[kind])))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert command("table", path) == 5
    assert command("leaderboard", "--records", path.parent, "--out", tmp_path / "out") == 5
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200_000  # kB
