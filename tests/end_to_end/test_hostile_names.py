"""Concepts named after markup, from a plugin through run, table, leaderboard and report."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from markdown_it import MarkdownIt

from casl_bench.cli.main import main
from casl_bench.runs import suites as config_module
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

PLUGIN = Path(__file__).parents[1] / "plugin" / "hostile_names_plugin.py"
HARMLESS = re.compile(r"(#|\.\./|[\w.-]+(/|$)|https://github\.com/)")


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def of_markdown(text: str) -> Page:
    """As a site shows it that lets HTML and links through: what is harmless there, is anywhere."""
    return Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def check_harmless(page: Page, scripts: int = 0, drawings: bool = False) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == scripts
    assert not {"img", "iframe", "object", "embed", "base"} & set(tags)
    assert drawings or "svg" not in tags
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("href", "src"):
            if attributes.get(name) not in (None, "data:,"):
                assert HARMLESS.match(attributes[name] or ""), (tag, attributes)


@pytest.fixture(scope="module")
def hostile(own_entrants: None) -> Iterator[ModuleType]:
    """The plugin, known while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        more = {"quick": False, "test_images_per_concept": 32, "test_pool_images": 96}
        patch.setitem(config_module.SUITES, "tiny", tiny_suite(**more))
        spec = importlib.util.spec_from_file_location("hostile_names_plugin", PLUGIN)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def run_folder(hostile: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "run"
    command = ["--methods", "h_linear", "--datasets", hostile.DATASET, "--suite", "tiny"]
    assert main([*command, "--out", str(out)]) == 0
    return out


def test_nothing_is_written_outside_the_run_folder(run_folder: Path) -> None:
    assert [p.name for p in run_folder.parent.iterdir()] == ["run"]
    for path in run_folder.rglob("*"):
        assert re.fullmatch(r"[\w.%@+~()-]+", path.name), path


def test_the_table_shows_names_as_text(
    hostile: ModuleType, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(run_folder)]) == 0
    text = capsys.readouterr().out
    assert text == (run_folder / "table.md").read_text(encoding="utf-8")
    page = of_markdown(text)
    check_harmless(page)
    assert all(name in page.text for name in (hostile.DATASET, *hostile.NAMES))
    # No name ends a cell early: every row of a table has as many as its head.
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert tables
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_the_leaderboard_shows_names_as_text(
    hostile: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    records = tmp_path / "boards" / "records"
    records.mkdir(parents=True)
    (records / "theirs.jsonl").write_bytes((run_folder / "numbers.jsonl").read_bytes())
    assert main(["leaderboard", "--records", str(records), "--out", str(records.parent)]) == 0
    pages = sorted(records.parent.rglob("*.md"))
    assert len(pages) >= 3  # index, data set, method
    shown = ""
    for path in pages:
        assert re.fullmatch(r"[\w.-]+", path.name)
        page = of_markdown(path.read_text(encoding="utf-8"))
        check_harmless(page)
        shown += page.text
    assert all(name in shown for name in (hostile.DATASET, *hostile.NAMES))


def test_the_report_shows_names_as_text(
    hostile: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    assert main(["report", str(run_folder), "--out", str(out)]) == 0
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    check_harmless(page, scripts=1, drawings=True)  # its own
    assert all(name in page.text for name in (hostile.DATASET, *hostile.NAMES))
    for path in out.rglob("*"):
        assert re.fullmatch(r"[\w.-]+", path.name), path
    for path in out.rglob("*.svg"):
        tags = {tag for tag, _ in Page(path.read_text(encoding="utf-8")).elements}
        assert not {"script", "img", "foreignobject"} & tags
