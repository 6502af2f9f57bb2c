"""A place that a user names: where it is, or one line that refuses it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from casl_bench.cache.store import CACHE_VARIABLE, default_cache
from casl_bench.cli.main import main
from casl_bench.core.errors import UsageError
from casl_bench.core.option_types import expand_home, local_path
from casl_bench.domains.options import (
    WEIGHTS_VARIABLE,
    DomainOptions,
    default_weights_root,
    parse_assignments,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home; the working folder is another one."""
    folder, here = tmp_path / "home", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(here)
    return folder


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for `docker --user 54321`: no variable and no entry in passwd."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", CACHE_VARIABLE, WEIGHTS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "~/c")
    monkeypatch.setenv(WEIGHTS_VARIABLE, "~/w")
    assert default_cache() == home / "c"
    assert default_weights_root() == DomainOptions().weights == home / "w"
    assert parse_assignments(("casl=~/w", "afhq_dog=hub/id"), "--method-weights") == {
        "casl": str(home / "w"), "afhq_dog": "hub/id"
    }  # fmt: skip
    assert expand_home("~/scheduler.json") == str(home / "scheduler.json")
    assert main(["cache", "ls", "--cache=~/elsewhere"]) == 0
    assert capsys.readouterr().out.endswith(f" in {home / 'elsewhere'}\n")
    assert main(["weights"]) == 0
    assert f"Weights are looked for in {home / 'w'} " in capsys.readouterr().out
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("cache ls", CACHE_VARIABLE),
        ("weights", WEIGHTS_VARIABLE),
        ("doctor", WEIGHTS_VARIABLE),
        ("--quick --methods h_linear --datasets rendered_churches --dry-run", CACHE_VARIABLE),
    ],
)
def test_without_a_home_folder_one_line_says_what_to_set(
    command: str, variable: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(command.split()) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("error: no home folder (") and f"set {variable}" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_a_variable_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "c"))
    assert main(["cache", "ls"]) == 0
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "w"))
    assert main(["weights"]) == 0
    monkeypatch.setenv(CACHE_VARIABLE, "~/c")
    with pytest.raises(UsageError, match=f"no home folder .*{CACHE_VARIABLE}"):
        default_cache()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no path"),
        ("a\0b", "is no path"),
        ("s3://bucket/run", "is no file or folder"),
        ("~no-such-user/x", "no home folder"),
        ("/dev/null", "is a pipe or a device"),
        ("pipe", "is a pipe or a device"),
    ],
)
def test_what_is_no_place_here_is_refused(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(UsageError, match=said):
        local_path(text)
