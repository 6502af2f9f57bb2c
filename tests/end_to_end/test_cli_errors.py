"""Every fault of a command is one line on stderr, the documented exit code and nothing written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from casl_bench.cli import main as cli
from casl_bench.core.errors import UsageError
from casl_bench.domains.rendered import RENDERED
from casl_bench.methods.method import METHODS
from casl_bench.metrics.metric import metric_infos
from casl_bench.metrics.precise_edits import PRECISE_EDITS_INFO
from casl_bench.runs import run_lock as run_folder
from casl_bench.runs.declared import check_names, declared
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import card_of
from casl_bench.runs.suites import RunConfig, suite

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "benchmark.py"


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARK), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run in an empty folder of their own."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def fails(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: str | list[str], code: int = 2
) -> str:
    """The one line that a failing command says."""
    before = sorted(folder.rglob("*"))
    words = arguments.split() if isinstance(arguments, str) else arguments
    assert cli.main(words) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    assert sorted(folder.rglob("*")) == before
    return said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--methods cals", "unknown method 'cals'; did you mean 'casl'?"),
        ("--methods casl asirp", "unknown method 'asirp'; did you mean 'asyrp'?"),
        ("--datasets rendered_face", "unknown dataset 'rendered_face'; did you mean 'rendered_fa"),
        ("--concepts hat smilling", "unknown concept 'smilling' (rendered_faces); did you mean 's"),
        ("--suite quik", "unknown suite 'quik'; did you mean 'quick'?"),
        ("--quick --suite full", "--quick and --suite full contradict each other"),
        ("--suite standard", "suite 'standard' is now 'full'"),
        ("--seed -1", "Invalid value for '--seed'"),
        ("--seed one", "Invalid value for '--seed'"),
        ("--batch-size 0", "Invalid value for '--batch-size'"),
        ("--cell-timeout nan", "'--cell-timeout': nan is no amount"),
        ("--cell-timeout inf", "'--cell-timeout': inf is not in the range"),
        ("--cell-timeout 1e12", "'--cell-timeout': 1000000000000.0 is not in the range"),
        ("--memory-budget nan", "'--memory-budget': nan is no amount"),
        ("--memory-budget inf", "'--memory-budget': inf is not in the range"),
        ("--jobs 1000000000", "'--jobs': 1000000000 is not in the range"),
        ("study gate-rates . --shared nan", "'--shared': nan is no amount"),
        (f"--shard 1/{'9' * 5000}", "is no shard (--shard); give i/n with i from 1 and n up to"),
        ("--method casl", "No such option '--method'"),
        ("--methods", "Option '--methods' requires an argument"),
        ("--methods ,", "give at least one name"),
        ("casl", "unknown command 'casl'"),
        ("tabel run", "unknown command 'tabel'; did you mean 'table'?"),
        ("push run s3://bucket/run", "push is gone: copy the run folder with the client of your s"),
        ("--device tpu9", "unknown device 'tpu9'"),
        ("--kernels bf16", "--kernels is gone: leave it out"),
        ("--no-cache", "--no-cache is gone: use --cache FOLDER"),
        ("--device cuda:99", "device 'cuda:99' is not available here"),
        ("--plugin absent.py", "no such plugin file"),
        ("table absent", "absent"),
        ("train unett", "No such command 'unett'"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], in_folder: Path, arguments: str, said: str
) -> None:
    assert said in fails(capsys, in_folder, arguments)


def test_a_plugin_that_fails_to_import_says_why(
    capsys: pytest.CaptureFixture[str], in_folder: Path
) -> None:
    (in_folder / "mine.py").write_text("import no_such_package")
    said = fails(capsys, in_folder, "--plugin mine.py")
    assert "No module named 'no_such_package'" in said and "mine.py" in said


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_out_folder_that_cannot_be(
    capsys: pytest.CaptureFixture[str], in_folder: Path, below: str
) -> None:
    (in_folder / "file").touch()
    said = fails(capsys, in_folder, ["--methods", "casl", "--out", str(Path("file") / below)])
    assert "file" in said


def test_an_out_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], in_folder: Path
) -> None:
    out = "/proc/casl_bench" if Path("/proc").is_dir() else "/no/such/root"
    assert "cannot write" in fails(capsys, in_folder, ["--methods", "casl", "--out", out])


def test_a_folder_with_other_things_in_it(
    capsys: pytest.CaptureFixture[str], in_folder: Path
) -> None:
    (in_folder / "thesis.tex").touch()
    assert "holds no run" in fails(capsys, in_folder, "--methods casl --out .")


def test_a_run_folder_of_another_configuration(
    capsys: pytest.CaptureFixture[str], in_folder: Path
) -> None:
    made = RunConfig(
        methods=("casl",), datasets=("rendered_faces",), concepts=None, suite=suite("quick"),
        seed=7, device="cpu", out=in_folder / "run",
    )  # fmt: skip
    with run_folder.claim_run_folder(made):
        (made.out / "cells").mkdir()
    said = fails(capsys, in_folder, "--methods casl --quick --out run --seed 8")
    assert "seed 7 there, 8 asked for" in said
    assert "made with another configuration" in fails(
        capsys, in_folder, "--methods casl --dry-run --out run --seed 7"
    )


def test_a_table_of_nothing(capsys: pytest.CaptureFixture[str], in_folder: Path) -> None:
    (in_folder / "run").mkdir()
    assert "no records" in fails(capsys, in_folder, "table run")


def test_an_unforeseen_error_is_one_line_too(
    capsys: pytest.CaptureFixture[str], in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("casl_bench.runs.system_info.check_torch", broken)
    said = fails(capsys, in_folder, "--methods casl", code=3)
    assert "ZeroDivisionError: two lines" in said
    assert cli.main(["--methods", "casl", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_lists_take_commas_or_spaces() -> None:
    expected = ["--methods", "casl,asyrp", "--quick", "--concepts=hat,bangs", "--seed", "1"]
    given = ["--methods", "casl", "asyrp", "--quick", "--concepts=hat", "bangs", "--seed", "1"]
    assert cli._join_lists(given) == expected
    assert cli._join_lists(expected) == expected
    assert cli._join_lists(["--seed", "1", "stray"]) == ["--seed", "1", "stray"]


def test_lists_of_tune_take_spaces_and_a_run_folder_stays_itself(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fails(capsys, in_folder, "tune --methods casl asirp --out sweep", code=2)
    assert "'asirp'" in said and "asyrp" in said
    (in_folder / "run").mkdir()
    command = "picture --concepts hat run --out x.png"
    assert "no records (run)" in fails(capsys, in_folder, command, code=2)


def test_a_mistyped_name_needs_no_torch(in_folder: Path) -> None:
    (in_folder / "mine.py").write_text("METHODS.register('mine', print)")
    for arguments in (
        "--methods cals", "--datasets rendered_face", "--concepts hatt", "--suite quik",
        "--datasets afhq_dog --concepts smilling", "tune --out x --methods cals",
        "--plugin mine.py --methods minne", "--help", "push", "train --help", "study --help",
    ):  # fmt: skip
        code = (
            "import sys; from casl_bench.cli.main import main; code = main(sys.argv[1:]);"
            "assert 'torch' not in sys.modules; sys.exit(code)"
        )
        command = [sys.executable, "-c", code, *arguments.split()]
        done = subprocess.run(command, cwd=in_folder, capture_output=True, text=True)
        assert done.returncode == (0 if "--help" in arguments else 2), (arguments, done.stderr)


def test_a_name_that_source_does_not_tell_is_not_refused_unseen(in_folder: Path) -> None:
    literal, computed = in_folder / "literal.py", in_folder / "computed.py"
    literal.write_text("DATASETS.register('mine', print)\nCONCEPTS = [Concept('blue', '', '', '')]")
    computed.write_text("for name in 'ab': METHODS.register(name, print)")
    check_names(["casl", "all"], ["mine"], ["blue"], [literal])
    check_names(["whatever"], ["rendered_faces"], ["all"], [computed])
    with pytest.raises(UsageError, match="unknown concept 'red'"):
        check_names(["casl"], ["mine"], ["red"], [literal])


def test_source_tells_all_names_that_imports_do() -> None:
    load_registries()
    known = declared()
    own = {name for name in METHODS if "/" not in name}
    assert known.methods - {None} == own
    for name in known.datasets:
        concepts = {c.name for c in card_of(name).concepts}
        source = known.datasets[name]
        if name in RENDERED:  # whose concepts for tuning, and those that h does not carry, are none
            assert source == set(RENDERED[name].drawing.attributes) > concepts
        else:  # of pictures of the user's own only their folder says what they show
            assert source == (concepts or None)


def test_a_plugin_that_registers_by_a_function_of_another_is_left_to_its_import() -> None:
    plugin = Path(__file__).parents[1] / "plugin" / "toy_world_plugin.py"
    check_names(("casl",), ("toy_shapes",), ("all",), (plugin,))
    with pytest.raises(UsageError, match="toy_shapes"):
        check_names(("casl",), ("toy_shapes",), ("all",))


def test_help_is_short_and_states_exit_codes(in_folder: Path) -> None:
    done = run("--help", cwd=in_folder)
    assert done.returncode == 0 and done.stderr == ""
    shown = re.findall(r"^  (?:-h, )?--[a-z]", done.stdout, re.MULTILINE)
    assert 10 <= len(shown) <= 15
    everything = run("--help-all", cwd=in_folder).stdout
    assert set(re.findall(r"--[a-z-]+", done.stdout)) < set(re.findall(r"--[a-z-]+", everything))
    for option in cli.command.params:
        assert option.opts[0] in everything
    for option in ("methods", "datasets", "concepts", "suite", "seed", "device", "out", "plugin",
                   "list", "dry-run", "quick"):  # fmt: skip
        assert f"--{option}" in done.stdout
    codes = re.findall(r"^    (\d+)  ", done.stdout, re.MULTILINE)
    assert codes == ["0", "1", "2", "3", "4", "5", "130"]
    assert "143" in done.stdout


def test_both_commands_are_the_same(in_folder: Path) -> None:
    script = run("--suite", "quik", cwd=in_folder)
    module = subprocess.run(
        [sys.executable, "-m", "casl_bench", "--suite", "quik"],
        cwd=in_folder, capture_output=True, text=True,
    )  # fmt: skip
    assert script.returncode == module.returncode == 2
    assert script.stderr == module.stderr
    assert script.stderr.count("\n") == 1
    assert list(in_folder.iterdir()) == []


def test_list_shows_what_can_be_named(capsys: pytest.CaptureFixture[str], in_folder: Path) -> None:
    assert cli.main(["--list"]) == 0
    said = capsys.readouterr().out
    for name in ("casl", "asyrp", "identity", "oracle", "random_direction", "rendered_faces",
                 "smiling", "default", "full", "quick", "epr_raw"):  # fmt: skip
        assert name in said
    headline = said.split("Metrics\n")[1].splitlines()[2]
    assert headline.split()[0] == PRECISE_EDITS_INFO.name and "(the headline)" in headline
    for info in metric_infos():
        assert re.search(rf"^{info.name} +v{info.version} ", said, re.MULTILINE)
    assert list(in_folder.iterdir()) == []


def test_a_torchvision_of_another_build(in_folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "fake" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    done = run("--methods", "casl", cwd=in_folder, PYTHONPATH=str(package.parent))
    assert done.returncode == 2
    # Where torch takes long to load, a line says so before.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("loading torch")]
    assert len(lines) == 1
    assert "do not fit together" in done.stderr
    assert "from the same index with matching builds" in done.stderr
    assert list(in_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted; run the same command again to go on\n"),
        (signal.SIGTERM, 143, "terminated; run the same command again to go on\n"),
    ],
)
def test_interruptions_are_one_line(
    in_folder: Path, sent: signal.Signals, code: int, said: str
) -> None:
    # The run stands still where its work would begin.
    driver = (
        "import signal, sys, time\n"
        # A runner in the background hands its children an ignored SIGINT, a terminal does not.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from casl_bench.cli import main as cli\n"
        "from casl_bench.runs import system_info\n"
        "def wait():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "system_info.check_torch = wait\n"
        "sys.exit(cli.main(['--methods', 'casl']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", driver],
        cwd=in_folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (code, said)
