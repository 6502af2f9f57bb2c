"""Attempts to break every command: whatever is given, it ends soon, in one line, and says why."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import click
import pytest
import torch

from casl_bench.cli import main as cli
from casl_bench.core.errors import UsageError
from casl_bench.core.files import PARTIAL
from casl_bench.methods.method import METHODS, EditTask, MethodConfig, MethodInfo
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs import suites as config_module
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

SEED = 18
PER_OPTION = 1
SECONDS = 20
"""An attempt that lasts longer hangs: what takes its time is replaced, see `stopped`."""

RUN = ("--datasets", "toy_shapes", "--methods", "casl", "--concepts", "red", "--suite", "tiny")
LEAVES: dict[str, tuple[str, ...]] = {
    "": (*RUN, "--out", "new"),
    "tune": ("tune", *RUN, "--out", "new", "--trials", "2"),
    "analyse": ("analyse", "run"),
    "cache ls": ("cache", "ls"),
    "cache prune": ("cache", "prune", "--dry-run", "--kind", "fits"),
    "cache verify": ("cache", "verify"),
    "convert": ("convert", "junk", "--out", "new"),
    "doctor": ("doctor",),
    "gate": ("gate", "run", "run"),
    "golden": ("golden", "run", "new"),
    "leaderboard": ("leaderboard", "--records", "records", "--out", "new"),
    "merge": ("merge", "new", "run"),
    "picture": ("picture", "run", "--out", "new.png"),
    "rejudge": ("rejudge", "run", "--seed", "1"),
    "report": ("report", "run", "--out", "new"),
    "rescore": ("rescore", "run"),
    "sae": ("sae", "--quick", "--datasets", "toy_shapes", "--out", "new"),
    "score": ("score", "folder", "folder", "--target", "red", "--logits", "junk"),
    "study deviations": ("study", "deviations", "--out", "new"),
    "study headline": ("study", "headline", "--out", "new"),
    "study headline-rates": ("study", "headline-rates", "run"),
    "study more-edits": ("study", "more-edits", "run"),
    "study photographs-gate": ("study", "photographs-gate", "--out", "new"),
    "study sae-sweep": ("study", "sae-sweep", "run", "--out", "new"),
    "study unet-gates": ("study", "unet-gates", "--out", "new"),
    "study gate-rates": ("study", "gate-rates", "run"),
    "submit": ("submit", "run", "--records", "records"),
    "table": ("table", "run"),
    "train attributes": ("train", "attributes", "--data-root", "folder", "--out", "new"),
    "train classifier": ("train", "classifier", "--out", "new"),
    "train clip": ("train", "clip", "--out", "new"),
    "train domain": ("train", "domain", "--domain", "rendered_faces", "--out", "new"),
    "train embedder": ("train", "embedder", "--out", "new"),
    "train factors": ("train", "factors", "--out", "new"),
    "train gates": ("train", "gates", "--domain", "rendered_faces", "--unet", "folder",
                    "--classifier", "folder", "--out", "new"),
    "train unet": ("train", "unet", "--out", "new"),
    "weights": ("weights",),
}  # fmt: skip
"""Each command, complete, in the folder of `prepared`."""

VALUES = (
    "", " ", ",", "-", "--", "-1", "0", "1", "7", "1e400", "nan", "inf", "-inf", "9" * 400,
    "0x10", "1_0", "١٢", "all", "None", "🦊", "\u202eevil", "\x1b[31mred", "a\nb",
    "e\u0301" * 50, "\udcff", "%s%n{0}", "$(id)", "*", "a" * 5000, "/".join(["a" * 200] * 40),
    "a=b", "=", "casl=", "casl=folder", "cuda:99", "meta", "1/0", "2/1", "1/1",
    "..", "/proc/x", "../escaped", "~", "~/x", "~nobody-here/x", "s3://bucket/x", "file:///etc",
    "/dev/null", "/proc/self/mem", "absent", "absent/deeper", "junk", "junk/deeper", "empty",
    "folder", "pipe", "locked", "locked/x", "loop", "link", "folder with spaces",
    "scheduler.json", "run/manifest.json", "run/cells", "numbers.jsonl", "pipe.jsonl",
    "junk.jsonl", "junk.scores.npz", "pipe.py", "broken.py", "exits.py",
)  # fmt: skip


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every leaf, with the name under which it is called."""
    yield "", cli.command
    waiting: list[tuple[str, click.Command]] = []
    context = click.Context(cli.command)
    for name in cli.command.list_commands(context):
        found = cli.command.get_command(context, name)
        assert found is not None
        waiting.append((name, found))
    while waiting:
        name, command = waiting.pop()
        if not isinstance(command, click.Group):
            yield name, command
            continue
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            waiting.append((f"{name} {inner}", found))


def attempts() -> list[Any]:
    """(words) of every option and argument of every command, with values of all kinds."""
    found = []
    for leaf, command in sorted(commands()):
        rng = random.Random(f"{SEED} {leaf}")
        base = LEAVES[leaf]
        for parameter in command.params:
            if parameter.is_eager:
                continue  # --help, --version
            lines = list(_lines(base, parameter, rng))
            found.append(pytest.param(lines, id=f"{leaf or 'run'} {parameter.name}"))
    return found


def _lines(
    base: Sequence[str], parameter: click.Parameter, rng: random.Random
) -> Iterator[tuple[str, ...]]:
    if isinstance(parameter, click.Argument):
        place = [i for i, word in enumerate(base) if word in ("run", "junk", "new", "records")]
        at = place[0] if parameter.name in ("out", "base", "checkpoint") else place[-1]
        for value in rng.sample(VALUES, 2 * PER_OPTION):
            yield (*base[:at], value, *base[at + 1 :])
        return
    name = parameter.opts[-1] if parameter.opts[-1].startswith("--") else parameter.opts[0]
    if getattr(parameter, "is_flag", False):
        yield (*base, name)
        yield (*base, name, name)
        yield (*base, f"{name}=1")
        return
    for value in rng.sample(VALUES, PER_OPTION):
        yield (*base, f"{name}={value}")
    first, second = rng.sample(VALUES, 2)
    yield (*base, name, first, name, second)
    yield (*base, name)


@pytest.fixture(scope="module", autouse=True)
def toys(toy_registered: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config_module.SUITES, "tiny", tiny_suite())
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, and with everything that is none."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main([*RUN, "--out", "run"]) == 0
    shutil.copy(folder / "run" / "numbers.jsonl", folder / "numbers.jsonl")
    (folder / "records").mkdir()
    shutil.copy(folder / "run" / "numbers.jsonl", folder / "records" / "toy.jsonl")
    for name in ("folder", "folder with spaces"):
        (folder / name).mkdir()
    (folder / "empty").touch()
    junk = random.Random(SEED).randbytes(5000)
    for name in ("junk", "junk.jsonl", "junk.scores.npz", "scheduler.json"):
        (folder / name).write_bytes(junk)
    (folder / "broken.py").write_text("import no_such_package")
    (folder / "exits.py").write_text("raise SystemExit(0)")
    for name in ("pipe", "pipe.jsonl", "pipe.py"):
        os.mkfifo(folder / name)
    (folder / "loop").symlink_to("loop")
    (folder / "link").symlink_to("absent")
    return folder


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take its time stops instead, after everything before it was done."""

    def stop(*given: Any, **named: Any) -> Any:
        raise UsageError("stopped by the test")

    for place in (
        "casl_bench.runs.executor.run", "casl_bench.runs.tuning.tune",
        "casl_bench.runs.rescoring.rescore", "casl_bench.training.pools.load_pool",
        "casl_bench.training.train_domain._run",
        "casl_bench.studies.headline.study.make_headline_study",
        "casl_bench.studies.deviations.make_rows",
        "casl_bench.sae_track.run.run_track",
    ):  # fmt: skip
        monkeypatch.setattr(place, stop)
    for place in ("trainer", "train_unet"):  # it measures
        monkeypatch.setattr(f"casl_bench.training.{place}.bf16_pays", lambda: False)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail what hangs."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def contents(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("lines", attempts())
def test_whatever_is_given_the_end_is_one_line(
    lines: list[tuple[str, ...]],
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    home = tmp_path / "home"
    home.mkdir()
    shutil.copytree(prepared, here, symlinks=True, copy_function=_copy)
    (here / "locked").mkdir(mode=0)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CASL_BENCH_CACHE", str(here / "cache"))
    monkeypatch.chdir(here)
    for words in lines:
        before = contents(here)
        with at_most(SECONDS):
            code = cli.main(list(words))
        said = capsys.readouterr()
        told = f"{words}: {code}: {said.err[-500:]!r}"
        assert code in (0, 1, 2, 3, 4, 5), told
        signs = ("unforeseen", "\x1b", *(() if "--debug" in words else ("Traceback",)))
        assert not [sign for sign in signs if sign in said.err], told
        faults = [line for line in said.err.splitlines() if line.startswith("error: ")]
        if code in (2, 5) and words[0] not in ("doctor", "cache"):
            assert faults == said.err.splitlines()[-1:], told
        if code == 2:
            assert said.out == "" or words[0] == "doctor", told
            # A comparison leaves its report, whatever its end; a track has its folder first.
            began = words[0] == "sae" and "stopped by the test" in said.err
            left = "--compare" in " ".join(words) or began
            assert left or contents(here) == before, told
        for name in ("~", "s3:", "file:"):
            assert not (here / name).exists(), told
        for path in [p for p in here.iterdir() if p.relative_to(here).as_posix() not in before]:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _copy(source: str, target: str) -> None:
    if Path(source).is_fifo():
        os.mkfifo(target)
    else:
        shutil.copy2(source, target)


@pytest.mark.usefixtures("stopped")
def test_a_comparison_that_failed_leaves_a_folder_that_can_be_run_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*RUN, "--out", "new"]
    assert cli.main([*command, "--compare", "no-revision"]) == 2
    assert (tmp_path / "new" / "gate" / "gate.json").is_file()
    assert cli.main([*command, "--dry-run"]) == 0


def test_all_commands_are_attempted() -> None:
    assert {leaf for leaf, _ in commands()} == LEAVES.keys()
    assert sum(len(p.values[0]) for p in attempts()) > 300


# Python swallows what a signal raises within a `__del__`: that stop is none, and the run goes on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_again_and_again_is_the_run_of_once(
    sent: signal.Signals,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moments: random.Random,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*RUN, "--out", "run", "--cache", "cache"]
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(sent))
    code, stops = 1, 0
    while code and stops < 5:
        # A stop in the moment in which torch leaves `no_grad` leaves it off, here and for all tests
        # after; a new process has it on.
        torch.set_grad_enabled(True)
        signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.01, 0.4) * (1 + stops / 4))
        code = cli.main(command)
        signal.setitimer(signal.ITIMER_REAL, 0)
        said = capsys.readouterr()
        assert code in (0, 130, 143), said.err
        assert "Traceback" not in said.err and "unforeseen" not in said.err
        if code:
            assert said.err.splitlines()[-1].endswith("run the same command again to go on")
        stops += 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    torch.set_grad_enabled(True)
    assert cli.main(command) == 0
    once = {r.record_id for r in RecordStore(prepared / "run")}
    assert {r.record_id for r in RecordStore(tmp_path / "run")} == once
    assert not list(tmp_path.rglob(f"{PARTIAL}*")) and not (tmp_path / "run/scratch").exists()


class Leaves:
    """A method that ends in ways of its own."""

    info: ClassVar[MethodInfo] = MethodInfo(name="leaves", title="leaves", source="test", version=1)
    error: ClassVar[BaseException]

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config = config or MethodConfig()

    def fit(self, task: EditTask) -> Any:
        raise self.error

    def restore(self, task: EditTask, state: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(0),
        GeneratorExit("x"),
        RuntimeError("\udcff \x1b[31m\n" * 3),
        PermissionError(13, "no", "\udcff"),
    ],
)
def test_a_method_that_ends_the_process_or_says_odd_things_fails_its_cell_alone(
    error: BaseException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Leaves, "error", error, raising=False)
    METHODS.register("leaves", Leaves)
    out = str(tmp_path / "run")
    assert cli.main([*RUN, "--methods", "casl,leaves", "--out", out]) == 3
    said = capsys.readouterr().err
    assert f"failed: {type(error).__name__}: " in said
    assert "unforeseen" not in said and "Traceback" not in said
    status = {r.method: r.status for r in RecordStore(tmp_path / "run") if r.kind == "edit"}
    assert (status["casl"], status["leaves"]) == ("done", "failed")
    assert cli.main(["table", out]) == 0


PLACES: dict[str, Callable[[Path], Path]] = {
    "manifest": lambda run: run / "manifest.json",
    "numbers": lambda run: run / "numbers.jsonl",
    "record": lambda run: next(run.rglob("record.json")),
    "scores": lambda run: next(run.rglob("scores.npz")),
    "images": lambda run: next(run.rglob("images.npz")),
    "table": lambda run: run / "table.md",
}
DAMAGE: dict[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "empty": lambda path: path.touch(),
    "without end": lambda path: (path.touch(), os.truncate(path, 1 << 40)),
    "web page": lambda path: path.write_text("<!DOCTYPE html><html></html>"),
    "not UTF-8": lambda path: path.write_bytes(b'{"\xff\xfe": 1}'),
    "deep": lambda path: path.write_text("[" * 100_000),
    "null": lambda path: path.write_text("null"),
    "NaN": lambda path: path.write_text('{"schema_version": NaN}'),
}
READERS = (
    "table",
    "analyse",
    "report",
    "gate",
    "golden",
    "merge",
    "submit",
    "",
    "study gate-rates",
)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_lies_in_a_run_folder_the_end_is_one_line(
    place: str,
    damage: str,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = random.Random(f"{SEED} {place} {damage}")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(prepared / "run", "run")
    shutil.copytree(prepared / "records", "records")
    path = PLACES[place](Path("run"))
    path.unlink()
    DAMAGE[damage](path)
    for leaf in rng.sample(READERS, 2):
        words = [w if w != "new" else f"new-{leaf}" for w in LEAVES[leaf]] if leaf else [*RUN]
        with at_most(SECONDS):
            code = cli.main([*words, "--out", "run"] if not leaf else words)
        said = capsys.readouterr()
        told = f"{leaf}: {code}: {said.err[-500:]!r}"
        assert code in (0, 1, 2, 3, 4, 5), told
        assert "unforeseen" not in said.err and "Traceback" not in said.err, told
