"""A method in one file of the user's own: `--plugin` and the conformance command."""

from pathlib import Path

import pytest

from casl_bench.cli import main as cli
from casl_bench.conformance.check_method import main

HERE = Path(__file__).parent


def test_a_plugin_that_fails_to_import_is_one_line_and_nothing_runs(fresh_registry, capsys):
    assert cli.main(["--plugin", str(HERE / "broken_plugin.py"), "--list"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: plugin fails to import: ModuleNotFoundError")
    assert "broken_plugin.py" in line


def test_a_plugin_is_known_to_methods(fresh_registry, capsys):
    plugin = str(HERE / "single_file_method.py")
    assert cli.main(["--plugin", plugin, "--methods", "darkn", "--dry-run"]) == 2
    assert "did you mean 'darken'?" in capsys.readouterr().err


def test_a_single_file_keeps_every_rule(fresh_registry, capsys):
    assert main([str(HERE / "single_file_method.py"), "--method", "darken"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("checking darken\n  ok    its info is complete\n")
    assert shown.endswith("checks passed\n")


def test_a_broken_rule_is_exit_code_1_and_one_line(fresh_registry, tmp_path, capsys):
    text = (HERE / "single_file_method.py").read_text().replace('"darken"', '"too_bright"')
    plugin = tmp_path / "too_bright.py"
    plugin.write_text(text.replace("- s * self", "+ (s + 1) * self"))
    assert main([str(plugin)]) == 1
    failures = [line for line in capsys.readouterr().out.splitlines() if "FAIL" in line]
    (line,) = failures
    assert line.startswith("  FAIL  zero strength is the reconstruction: strength 0 and the")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_file.py", "no such plugin file"),
        ("no_such_package", "no method to check"),
        ("broken_plugin.py", "plugin fails to import"),
        ("empty.py", "no method to check"),
    ],
)
def test_an_unusable_target_is_exit_code_2_and_one_line(
    fresh_registry, tmp_path, monkeypatch, capsys, target, reason
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.py").touch()
    (tmp_path / "broken_plugin.py").write_text((HERE / "broken_plugin.py").read_text())
    assert main([target]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {reason}")


def test_an_unknown_method_of_a_file_offers_the_nearest(fresh_registry, capsys):
    assert main([str(HERE / "single_file_method.py"), "--method", "darkn"]) == 2
    assert "did you mean 'darken'?" in capsys.readouterr().err
