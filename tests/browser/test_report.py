"""The report in a real browser: every page at phone and desk, light and dark, and by keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from casl_bench.report.html.pages import write_report

DESK, PHONE = (1280, 900), (390, 844)
MOST_BYTES = 15_000_000

Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Opens a page of a report; fails on console errors and on requests that leave its folder."""
    faults: list[str] = []
    contexts = []

    def go(path: Path, size: tuple[int, int] = DESK, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        inside = (path.parent.as_uri() + "/", "data:")
        page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda r: None if r.url.startswith(inside) else faults.append(f"left: {r.url}"),
        )
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


def open_all(page: Any) -> None:
    """Unfold everything, so that everything is fetched and drawn."""
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_pages_fit_and_stay_in_their_folder(
    visit: Visit, report: Path, screenshots: Path, size: tuple[int, int], scheme: str
) -> None:
    for path in sorted(report.glob("*.html")):
        page = visit(path, size, scheme)
        seen = screenshots / f"{path.stem}-{size[0]}-{scheme}.png"
        page.screenshot(path=seen, full_page=True)
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(int(part) for part in paper.strip("rgb()").split(","))
        assert (light > 600) == (scheme == "light")
        assert seen.stat().st_size > 10_000


def test_a_report_is_small(report: Path) -> None:
    assert sum(p.stat().st_size for p in report.rglob("*") if p.is_file()) < MOST_BYTES


def column(page: Any, table: str, place: int) -> list[str]:
    cells = page.locator(f"{table} tbody tr:visible td:nth-child({place})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_tables_are_sorted_by_keyboard(visit: Visit, small: Path) -> None:
    page = visit(small)
    table = "#edits table"
    heading = page.locator(f"{table} thead th").nth(2)
    assert "EPR+" in heading.inner_text() and heading.get_attribute("aria-sort") == "none"
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    falling = column(page, table, 3)
    numbers = [float(text.split(" ")[0]) for text in falling if not text.startswith("—")]
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) > 2
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    rising = column(page, table, 3)
    # What is missing stands last, whichever way.
    missing = len(falling) - len(numbers)
    assert missing and all(
        text.startswith("—") for text in (*falling[-missing:], *rising[-missing:])
    )
    assert [float(t.split(" ")[0]) for t in rising[:-missing]] == sorted(numbers)


def test_rows_are_filtered_by_keyboard(visit: Visit, small: Path) -> None:
    page = visit(small)
    box = page.locator("#edits .filter input")
    box.focus()
    page.keyboard.type("RANDOM dir")
    assert column(page, "#edits table", 1) == ["random_direction", "random_direction #1"]
    assert page.locator("#edits .filter output").inner_text() == "2 of 7"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    assert len(column(page, "#edits table", 1)) == 7


def test_tab_reaches_all_there_is_to_use(visit: Visit, small: Path) -> None:
    page = visit(small)
    wanted = {"A.skip", "SUMMARY", "BUTTON", "INPUT", "SPAN.pic", "DIV.scroll"}
    for _ in range(120):
        page.keyboard.press("Tab")
        wanted.discard(
            page.evaluate(
                "(() => { const e = document.activeElement;"
                " return e.tagName + (e.className ? '.' + e.className : ''); })()"
            )
        )
        if not wanted:
            break
    assert wanted == set()


def test_pictures_tell_what_changed(visit: Visit, small: Path) -> None:
    page = visit(small)
    grid = page.locator("table.grid").first
    inspector = page.locator("#inspector")
    assert not inspector.is_visible()
    grid.locator(".pic").first.focus()
    text = inspector.inner_text()
    assert "casl, 25 % effect, strength 0.5; target hat +" in text
    assert inspector.locator("li").first.inner_text().startswith("hat")
    assert inspector.locator(".pic").count() == 4  # source, reconstruction, edit, oracle
    page.keyboard.press("ArrowRight")
    assert "casl, 50 % effect" in inspector.inner_text()
    page.keyboard.press("ArrowDown")  # no picture there
    assert "casl, 50 % effect" in inspector.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert "asyrp, 25 % effect" in inspector.inner_text()
    page.keyboard.press("Escape")
    assert not inspector.is_visible()
    grid.locator(".pic").nth(1).hover()
    assert "casl, 50 % effect" in inspector.inner_text()
    # One stop of the Tab key a grid.
    assert grid.locator(".pic[tabindex='0']").count() == 1


def test_a_method_is_hidden_in_pictures_and_curves(visit: Visit, small: Path) -> None:
    page = visit(small)
    page.locator("form.choices summary").focus()
    page.keyboard.press("Enter")
    box = page.get_by_label("casl", exact=True)
    row = page.locator("table.grid tr", has=page.get_by_role("rowheader", name="casl")).first
    curves = page.locator("g.series", has=page.locator("title", has_text="casl"))
    before = [curve.evaluate("(g) => g.style.display") for curve in curves.all()]
    assert row.is_visible() and before and set(before) == {""}
    box.focus()
    page.keyboard.press("Space")
    assert not row.is_visible()
    shown = [curve.evaluate("(g) => g.style.display + g.closest('section').id")
             for curve in curves.all()]  # fmt: skip
    assert set(shown) == {"nonepictures", "standings"}


def test_a_column_of_hidden_rows_alone_is_hidden(visit: Visit, small: Path) -> None:
    page = visit(small)
    page.locator("form.choices summary").click()
    column = page.locator("table.grid thead th", has_text="not matched").first
    assert column.is_visible()
    for name in ("asyrp", "random_direction (control)"):
        assert column.is_visible()
        page.get_by_label(name, exact=True).uncheck()
    assert not column.is_visible()
    page.get_by_label("asyrp", exact=True).check()
    assert column.is_visible()


def test_names_run_nothing(visit: Visit, fake: ModuleType, tmp_path: Path) -> None:
    method, concept, _ = fake.EVIL
    run = fake.FakeRun(tmp_path / "run", [concept], (method, "asyrp"), (concept, "hat", "pale"))
    run.write(text=" ".join(fake.EVIL))
    page = visit(write_report(run.source, tmp_path / "out"))
    open_all(page)
    page.locator("table.grid .pic").first.focus()
    assert method in page.locator("#inspector").inner_text()
    assert concept in page.locator("#inspector li").first.inner_text()
    assert page.locator("img, #inspector script, main script").count() == 0


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_first_screen_says_who_is_first_without_a_swipe(
    visit: Visit, small: Path, size: tuple[int, int]
) -> None:
    page = visit(small, size)
    assert "casl" in page.locator("h1").inner_text()
    rows = page.locator("table.lead tbody tr")
    assert rows.count() == 2 and rows.first.inner_text().split()[1:3] == ["casl", "6.00"]
    for box in (rows.last.bounding_box(), page.locator("table.map").bounding_box()):
        assert box["x"] >= 0 and box["x"] + box["width"] <= size[0]
        assert box["y"] + box["height"] <= size[1]


def test_controls_are_folded_while_they_hold(visit: Visit, small: Path) -> None:
    page = visit(small)
    assert not page.locator("#controls table").is_visible()
    page.locator("#controls summary").click()
    assert page.locator("#controls table").is_visible()


def test_all_numbers_can_be_taken_along(visit: Visit, small: Path) -> None:
    page = visit(small)
    links = page.locator(".downloads a")
    assert links.all_inner_texts() == ["CSV", "JSON"]
    for link in links.all():
        file = small.parent / link.get_attribute("href")
        assert file.is_file() and "casl" in file.read_text("utf-8")
