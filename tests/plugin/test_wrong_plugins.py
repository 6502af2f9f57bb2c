"""Plugins that are wrong in every other way: one line says which, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from casl_bench.cli import main as cli
from casl_bench.conformance.toy_domain import register_toy_domain

SOUND = (Path(__file__).parent / "single_file_method.py").read_text(encoding="utf-8")
INIT = "self.config = config or MethodConfig()"
BAD_TEXT = "class E(Exception):\n    def __str__(self):\n        return 5\nraise E"
REGISTER = "from casl_bench.methods.method import METHODS\nMETHODS.register("

IMPORTED = {
    "its error has no text": (BAD_TEXT, "E: its message cannot be shown (TypeError)"),
    "it ends the process": ("raise SystemExit(0)", "SystemExit: 0"),
    "a generator's end": ("raise GeneratorExit", "GeneratorExit"),
    "no end": ("def f():\n    f()\nf()", "RecursionError"),
    "brackets": ("(" * 9000, "fails to import"),
    "no text": ("METHODS = '\0'", "fails to import"),
    "a name of no letters": (f"{REGISTER}'\\udcff', print)", "cannot be shown as the name"),
    "no name": (f"{REGISTER}None, print)", "cannot be shown as the name"),
}
"""Source → what is said of it, whatever command reads it."""

MADE = {
    "no class": (f"{REGISTER}'darken', 5)", "method 'darken' has no MethodInfo"),
    "a function": (f"{REGISTER}'darken', lambda **s: None)", "'darken' has no MethodInfo"),
    "made by an error": (SOUND.replace(INIT, "1 / 0"), "cannot be made: ZeroDivisionError"),
    "made by an end": (SOUND.replace(INIT, "raise SystemExit(3)"), "cannot be made: SystemExit: 3"),
    "no settings": (SOUND.replace(INIT, "pass"), "has no 'config' that is a MethodConfig"),
    "other settings": (SOUND.replace(INIT, "self.config = {'a': 1}"), "cannot be made: Attribute"),
    "settings that are no JSON": (
        SOUND.replace(INIT, "self.config = C()").replace(
            "@register_method", "class C(MethodConfig):\n    x: float = float('nan')\n\n"
            "@register_method"
        ),
        "cannot be made: ValueError: Out of range float values",
    ),
}  # fmt: skip
"""Source of a method `darken` → what is said of it once it is wanted."""

SETS = {
    "cannot be made": ("lambda *a: 1 / 0", "dataset 'mine' cannot be made: ZeroDivisionError"),
    "no card": ("lambda *a: None", "dataset 'mine' has no 'card' that is a DatasetCard"),
}


@pytest.fixture(autouse=True)
def toys(fresh_registry: None) -> Iterator[None]:
    register_toy_domain()
    yield


def fault(
    source: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str], code: int = 2
) -> str:
    """The one line said of a plugin."""
    plugin = folder / "mine.py"
    plugin.write_text(source, encoding="utf-8")
    out = folder / "new"
    assert cli.main([*words.format(plugin=plugin, out=out).split()]) == code
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1, said.err
    assert said.err.startswith("error: ") and "unforeseen" not in said.err
    assert not out.exists()
    return said.err


RUN = "--datasets toy_shapes --methods darken --out {out} --dry-run"


@pytest.mark.parametrize("kind", IMPORTED)
def test_a_file_that_cannot_be_imported(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, said = IMPORTED[kind]
    assert said in fault(source, "--plugin {plugin} --list", tmp_path, capsys)


@pytest.mark.parametrize("kind", MADE)
def test_a_method_that_is_none(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, said = MADE[kind]
    assert said in fault(source, "--plugin {plugin} --quick " + RUN, tmp_path, capsys)


@pytest.mark.parametrize("kind", SETS)
def test_a_data_set_that_is_none(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factory, said = SETS[kind]
    registry = "from casl_bench.domains.dataset import DATASETS\n"
    source = f"{registry}DATASETS.register('mine', {factory})"
    assert said in fault(source, "--plugin {plugin} --list", tmp_path, capsys)
