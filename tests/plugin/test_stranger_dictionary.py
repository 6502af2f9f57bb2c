"""A dictionary in one file of the user's own: short, checked, in the table with all metrics."""

import json
from pathlib import Path

import pytest

from casl_bench.cli import main as cli
from casl_bench.conformance.check_method import main
from casl_bench.metrics.dictionaries import SAE_METRICS
from casl_bench.runs import suites
from casl_bench.sae.dictionary import SAES
from casl_bench.sae_track.suites import SAE_SUITES
from tests.support.tiny_suite import tiny_suite

HERE = Path(__file__).parent
FILE = HERE / "stranger_jump_relu.py"
TOY = HERE / "toy_world_plugin.py"


@pytest.fixture(autouse=True)
def own_registries(fresh_registry, monkeypatch):
    monkeypatch.setattr(SAES, "_factories", dict(SAES._factories))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(suites.SUITES, "tiny", tiny_suite())
    own = SAE_SUITES["quick"].model_copy(
        update={"name": "tiny", "quick": False, "run_suite": "tiny", "targets": (8,), "seeds": 2}
    )
    monkeypatch.setitem(SAE_SUITES, "tiny", own)


def test_it_takes_forty_lines_at_most():
    lines = [line for line in FILE.read_text().splitlines() if line.strip()]
    assert len(lines) <= 40


def test_it_keeps_every_rule(capsys):
    assert main([str(FILE)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("checking stranger_jump_relu\n  ok    its info is complete\n")
    assert shown.endswith("checks passed\n")


def test_the_documented_dictionary_is_this_one():
    page = (HERE.parents[1] / "docs" / "add_a_dictionary.md").read_text()
    code = FILE.read_text().partition('"""\n\n')[2]
    assert code in page
    assert len(page.split()) < 1200  # two pages


def test_it_appears_in_the_table_with_all_metrics(tiny, tmp_path, capsys):
    command = ["sae", "--suite", "tiny", "--saes", "stranger_jump_relu,untrained,raw_channels"]
    command += ["--datasets", "toy_shapes", "--plugin", str(FILE), "--plugin", str(TOY)]
    command += ["--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "--jobs", "1"]
    assert cli.main(command) == 0
    table = capsys.readouterr().out
    assert table.count("| stranger_jump_relu") >= 4
    (path,) = (tmp_path / "run" / "cells").glob("*stranger*seed0.json")
    record = json.loads(path.read_text())
    (measured,) = record["measurements"].values()
    assert set(SAE_METRICS) <= set(measured)
    ok = {name for name in SAE_METRICS if measured[name]["status"] == "ok"}
    # What an untrained network's pictures do not tell is said with its reason.
    assert {"pair_score", "probe_labels", "explained_variance", "stability", "cause"} <= ok
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    # The same command again measures nothing and prints the same table.
    before = path.stat().st_mtime_ns
    assert cli.main(command) == 0
    assert path.stat().st_mtime_ns == before
    assert capsys.readouterr().out == table


@pytest.mark.parametrize("method", ["casl", "casl_steer", "sae_steer"])
@pytest.mark.parametrize("sae", ["stranger_jump_relu", "raw_channels"])
def test_methods_run_on_it(tiny, tmp_path, capsys, method, sae):
    command = ["--suite", "tiny", "--methods", method, "--datasets", "toy_shapes", "--concepts"]
    command += ["bright", "--sae", sae, "--plugin", str(FILE), "--plugin", str(TOY)]
    command += ["--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "--jobs", "1"]
    code = cli.main(command)
    captured = capsys.readouterr()
    assert f"{method}: 1 of 1 concept done" in captured.out, captured.err
    assert code in (0, 5), captured.err  # controls mean nothing in so small a run
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["key"]["sae"] == [sae, None]


def test_a_mistyped_dictionary_is_one_line(tmp_path, capsys):
    assert cli.main(["--sae", "jump_rel", "--dry-run", "--out", str(tmp_path / "x")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unknown dictionary 'jump_rel'; did you mean 'jump_relu'?")
    assert cli.main(["sae", "--saes", "nowhere/there", "--out", str(tmp_path / "x")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no such folder or file" in line and "nowhere/there" in line
    assert cli.main(["sae", "--datasets", "celeba_hq", "--out", str(tmp_path / "x")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the factors of 'celeba_hq' are not known" in line
    assert cli.main(["sae", "--quick", "--suite", "full", "--out", str(tmp_path / "x")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "x").exists()
