"""What a command prints, or cannot print, is no part of its exit code."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from casl_bench.core.command import exit_code_of
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.stops import Terminated

SIGNS = "σ → — ✓ 犬 é"
DRIVER = f"""
import sys, click
from casl_bench.core.command import exit_code_of, say
def work():
    for line in range(10_000):
        click.echo("{SIGNS}")
    say("done: {SIGNS}")
    return 4
def closes():
    sys.stdout.close()
    sys.stderr.close()
    click.echo("{SIGNS}")
    return 4
def text():
    return "{SIGNS}\\n" * 10_000
sys.exit(exit_code_of({{"work": work, "text": text, "closes": closes}}[sys.argv[1]]))
"""
FULL = Path("/dev/full")


def shell(redirected: str, what: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the driver in bash, with its streams redirected."""
    line = f'"$0" -c "$1" "$2" {redirected}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, DRIVER, what],
        capture_output=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp932", "gbk", "ascii", "cp437:strict"])
def test_files_and_pipes_are_in_utf_8_whatever_the_locale(encoding: str) -> None:
    done = shell("", "work", PYTHONUTF8="0", PYTHONIOENCODING=encoding)
    assert done.returncode == 4
    assert done.stdout.decode().splitlines() == [SIGNS] * 10_000
    assert done.stderr.decode() == f"done: {SIGNS}\n"


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (f"> {FULL}", 4, "warning: output is lost, standard output cannot be written: No space"),
        (f"> {FULL} 2>&1", 4, ""),
        (f"2> {FULL}", 4, ""),
        (">&-", 4, "done: "),
        ("2>&-", 4, ""),
        (">&- 2>&-", 4, ""),
        ("<&- >&- 2>&-", 4, ""),
    ],
)
def test_work_that_is_done_ends_with_its_own_exit_code(
    redirected: str, code: int, said: str
) -> None:
    done = shell(redirected, "work")
    assert done.returncode == code
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr
    if "2>" in redirected and ">&-" not in redirected:
        assert done.stderr == b""


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_text_that_cannot_be_printed_is_a_fault() -> None:
    done = shell(f"> {FULL}", "text")
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "error: standard output cannot be written: No space left on device; "
        "free the disk or write elsewhere\n"
    )


def test_code_that_closes_the_streams_closes_them_for_nobody_else() -> None:
    done = shell("", "closes")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (4, f"{SIGNS}\n", b"")


@pytest.mark.parametrize(("what", "code"), [("work", 4), ("text", 0)])
def test_a_reader_that_goes_away_is_no_fault(what: str, code: int) -> None:
    done = shell("| head -1; exit ${PIPESTATUS[0]}", what)
    assert done.returncode == code
    assert done.stdout.decode() == f"{SIGNS}\n"
    assert done.stderr.decode() == ("" if what == "text" else f"done: {SIGNS}\n")


def test_nothing_that_a_closed_stream_leaves_open_is_written_into(tmp_path: Path) -> None:
    """The first file that is opened gets the number of a closed stream."""
    driver = (
        "import os, sys\n"
        "from casl_bench.core.command import exit_code_of\n"
        "def work():\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        os.write(2, b'a message of a library in C')\n"
        "        file.write('kept')\n"
        "    return 0\n"
        "sys.exit(exit_code_of(work))\n"
    )
    command = [sys.executable, "-c", driver, str(tmp_path / "file")]
    subprocess.run(["bash", "-c", '"$0" "$@" 2>&-', *command], check=True)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_library_that_does_not_load_is_no_fault_of_ours(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as numpy's with SOURCE_DATE_EPOCH=x, or diffusers' with PYTHONOPTIMIZE=2."""
    (tmp_path / "broken_library.py").write_text("generated = int('x')")
    monkeypatch.syspath_prepend(tmp_path)

    def action() -> int:
        return importlib.import_module("broken_library").number

    assert exit_code_of(action) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: a library does not load: ValueError: invalid literal for int()")
    assert said.count("\n") == 1


def test_what_a_file_system_refuses_is_one_line_with_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def action() -> int:
        (tmp_path / "absent").read_text()
        return 0

    assert exit_code_of(action) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(tmp_path / "absent") in said
    assert said.startswith("error: No such file or directory (")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to go on"),
        (Terminated(), 143, "terminated; run the same command again to go on"),
        (InvalidBenchmarkError("a fault", where="here"), 5, "error: a fault (here)"),
        (GeneratorExit("odd"), 3, "error: unforeseen: GeneratorExit: odd"),
        (ZeroDivisionError("two\nlines"), 3, "error: unforeseen: ZeroDivisionError: two lines"),
        (OSError("no file"), 3, "error: unforeseen: OSError: no file"),
    ],
)
def test_every_end_is_one_line(
    raised: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def action() -> int:
        raise raised

    handler = signal.getsignal(signal.SIGTERM)
    assert exit_code_of(action) == code
    assert signal.getsignal(signal.SIGTERM) is handler
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count("\n") == 1


STOPS = [
    (signal.SIGINT, 130, "interrupted; run the same command again to go on\n"),
    (signal.SIGTERM, 143, "terminated; run the same command again to go on\n"),
]


@pytest.mark.parametrize(("sent", "code", "said"), STOPS)
def test_a_stop_that_code_in_c_makes_an_error_of_is_a_stop(
    sent: signal.Signals, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(each) for each, *_ in STOPS]

    def action() -> int:
        try:
            signal.raise_signal(sent)
        except KeyboardInterrupt as error:
            raise SystemError("error return without exception set") from error
        return 0

    assert exit_code_of(action) == code
    assert capsys.readouterr().err == said
    assert [signal.getsignal(each) for each, *_ in STOPS] == handlers


class Clings:
    def __del__(self) -> None:
        raise OSError("kept")


def ends_a_thread() -> int:
    thread = threading.Thread(target=lambda: [][0])  # type: ignore[misc]
    thread.start()
    thread.join()
    return 0


def ends_a_finalizer() -> int:
    Clings()
    gc.collect()
    return 0


@pytest.mark.parametrize(
    ("work", "said"),
    [(ends_a_thread, "IndexError: list index out of range"), (ends_a_finalizer, "OSError: kept")],
)
def test_what_ends_a_thread_or_a_finalizer_is_one_line(
    work: Callable[[], int], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    hooks = threading.excepthook, sys.unraisablehook
    assert exit_code_of(work) == 0
    assert capfd.readouterr().err == f"warning: a thread or finalizer failed: {said}\n"
    assert hooks == (threading.excepthook, sys.unraisablehook)


def test_a_stop_that_was_swallowed_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> int:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return 0

    def fails() -> int:
        raise ZeroDivisionError

    assert exit_code_of(action) == 0
    assert exit_code_of(fails) == 3  # of a later command, which nobody stopped
    assert "unforeseen" in capsys.readouterr().err


KILL = "import os, signal, time\nos.kill(os.getpid(), {})\ntime.sleep({})\n"
LOADED = {
    "a moment": KILL.format("{}", 0.2),
    "without end": KILL.format("{}", 60),
    "failing": KILL.format("{}", 0.2) + "raise ImportError('multiarray failed to import')",
}
"""What a module does that is loaded at the moment of the stop."""


@pytest.mark.parametrize("command", ["casl_bench", "casl_bench.conformance"])
@pytest.mark.parametrize("how", LOADED)
@pytest.mark.parametrize(("sent", "code", "said"), STOPS)
def test_a_stop_while_a_command_loads_is_one_line(
    sent: signal.Signals, code: int, said: str, how: str, command: str, tmp_path: Path
) -> None:
    """click is what one of the commands loads first, torch is what the other waits for.

    An exception in the midst of torch's start aborts Python, so that the stop waits for it.
    """
    name = "click" if command == "casl_bench" else "torch"
    (tmp_path / f"{name}.py").write_text(LOADED[how].format(int(sent)))
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-m", command, "x.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
