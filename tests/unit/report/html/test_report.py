"""A report as a folder: whole, of its records alone, harmless whatever they hold."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from casl_bench.cli.main import main
from casl_bench.core.errors import UsageError
from casl_bench.report.grouping import parts_of
from casl_bench.report.html.pages import Source, write_report
from casl_bench.results.record import SuiteRef

SECTIONS = ("standings", "pictures", "edits", "shift", "controls", "by-concept", "levels",
            "reconstruction", "probe", "sae", "scorers", "latents", "cost", "failed",
            "origin")  # fmt: skip


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attribute(self, tag: str, name: str) -> list[str]:
        return [a[name] or "" for t, a in self.found if t == tag and name in a]


def test_every_section_is_there(report: Path) -> None:
    page = Elements(report / "index.html")
    assert tuple(page.attribute("section", "id")) == SECTIONS
    assert "h_pca" in page.text and "InputError: cpu only" in page.text
    assert page.text.count("not reached, at most 0.80 σ") == 6
    assert "smiling, ranked by casl" in page.text and "latent 1" in page.text
    assert page.text.count("Silent on all test images") == 2  # latent 3, in two concepts


def test_a_run_for_trying_out_shows_pictures_and_no_number(run: Any, tmp_path: Path) -> None:
    quick = {"suite": SuiteRef(name="quick", version=1, quick=True)}
    records = tuple(r.model_copy(update=quick) for r in run.source.records)
    page = Elements(write_report(Source("run", records, run.source.store), tmp_path / "out"))
    assert tuple(page.attribute("section", "id")) == ("ran", "pictures", "failed", "origin")
    assert "no number is shown" in page.text and "casl" in page.text
    assert "σ" not in page.text and not re.search(r"\d\.\d\d", page.text)
    changes = [c for c in page.attribute("span", "data-changes") if c != "[]"]
    assert changes and not any(re.search(r"\d", c) for c in changes)


def test_all_that_is_referred_to_lies_in_the_folder(report: Path) -> None:
    page = Elements(report / "index.html")
    targets = [v for t, a in page.found for k, v in a.items() if k in ("href", "src") and v]
    ids = {a["id"] for _, a in page.found if "id" in a}
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in ids
        elif target != "data:,":
            assert (report / target).is_file()
    sheets = re.findall(r'url\("(.+?)"\)', (report / "index.html").read_text("utf-8"))
    assert len(sheets) == 4 and all((report / sheet).is_file() for sheet in sheets)
    names = [a["id"] for _, a in page.found if "id" in a]
    assert len(names) == len(set(names))


def test_names_are_text_wherever_they_stand(fake: ModuleType, tmp_path: Path) -> None:
    method, concept, attribute = fake.EVIL[0], fake.EVIL[1], fake.EVIL[2].replace("/", "")
    evil = " ".join(fake.EVIL)
    run = fake.FakeRun(tmp_path / "run", [concept], (method, "asyrp"), (concept, "hat", attribute),
                       dataset="<svg onload=alert(4)>")  # fmt: skip
    run.write(text=evil)
    index = write_report(run.source, tmp_path / "out")
    page = Elements(index)
    assert page.attribute("script", "src") == ["report.js"]
    assert {t for t, _ in page.found} & {"img", "iframe", "object", "embed", "base"} == set()
    assert not [name for _, a in page.found for name in a if name.startswith("on")]
    assert [t for t, _ in page.found].count("script") == 1
    assert method in page.text and concept in page.text and attribute in page.text
    svgs = list((tmp_path / "out" / "figures").glob("*.svg"))
    assert svgs and all("<script" not in p.read_text("utf-8") for p in svgs)
    assert all(re.fullmatch(r"[\w.-]+", p.name) for p in (tmp_path / "out").rglob("*"))


def test_records_alone_say_what_is_not_with_them(fake: ModuleType, tmp_path: Path) -> None:
    run = fake.FakeRun(tmp_path / "run", ["hat"]).write(curves=False)
    path = run.write_numbers(tmp_path / "records.jsonl")
    assert main(["report", str(path), "--out", str(tmp_path / "a")]) == 0
    page = Elements(tmp_path / "a" / "index.html")
    assert tuple(page.attribute("section", "id")) == SECTIONS
    assert page.text.count("No pictures: they are kept in a run folder") == 1
    assert "No images of latents: they are kept in a run folder" in page.text
    assert not (tmp_path / "a" / "images").exists()
    write_report(Source.read(path), tmp_path / "b")
    files = {p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert files == {p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*")
                     if p.is_file()}  # fmt: skip
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_broken_control_takes_the_ranking_away(
    fake: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fake.FakeRun(tmp_path / "run", ["hat"]).write(moved_identity=0.5, curves=False)
    path = run.write_numbers(tmp_path / "broken.jsonl")
    assert main(["report", str(path)]) == 5
    assert "out of its bounds" in capsys.readouterr().err
    page = Elements(tmp_path / "broken-report" / "index.html")
    assert not {"standings", "edits"} & set(page.attribute("section", "id"))
    assert "Do not trust these numbers" in page.text and "'identity' moved hat by 0.5" in page.text


def test_several_data_sets_have_a_page_each(fake: ModuleType, tmp_path: Path) -> None:
    records = []
    for name in ("rendered_dogs", "rendered_faces"):
        run = fake.FakeRun(tmp_path / "run", ["hat"], dataset=name).write(curves=False)
        records += run.records
    assert len(parts_of(records)[0].groups) == 2
    write_report(Source("both", tuple(records), run.store), tmp_path / "out")
    pages = sorted(p.name for p in (tmp_path / "out").glob("*.html"))
    assert pages == ["01-rendered_dogs.html", "02-rendered_faces.html", "index.html"]
    index = Elements(tmp_path / "out" / "index.html")
    assert set(pages) <= set(index.attribute("a", "href"))
    assert "Edits, overall" in index.text
    assert {"#overall-0-0", "#overall-0-1"} <= set(index.attribute("a", "href"))


def test_another_folder_is_left_alone(run: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty and holds no report"):
        write_report(run.source, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_an_older_report_is_replaced(fake: ModuleType, tmp_path: Path) -> None:
    fake.FakeRun(tmp_path / "run", ["hat"]).put("reconstruction")
    source = Source.read(tmp_path / "run")
    write_report(source, tmp_path / "out")
    (tmp_path / "out" / "old.txt").write_text("stale", encoding="utf-8")
    write_report(source, tmp_path / "out")
    assert not (tmp_path / "out" / "old.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "run"]


def test_nothing_to_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no records" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "absent")]) == 2


def test_a_report_needs_no_torch(fake: ModuleType, tmp_path: Path) -> None:
    fake.FakeRun(tmp_path / "run", ["hat"]).put("reconstruction")
    code = (
        "import sys; from casl_bench.cli.main import main\n"
        "assert not {'torch', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'torch', 'dask', 'distributed'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
