// What a page of a report can do beyond being read: sort, filter, hide methods, inspect pictures.
// Text from records only ever goes through textContent.
"use strict";

// Tables -----------------------------------------------------------------------------------------

const FEW_ROWS = 4;

/** The first number of a cell: "1,234 [1.2, 3]" → 1234; null where it starts with none. */
function numberOf(cell) {
  const found = cell.textContent.trim().replace(/−/g, "-").match(/^[+-]?[\d,]*\.?\d+/);
  return found ? Number(found[0].replace(/,/g, "")) : null;
}

/** Missing numbers come last whichever way; a column without any number is sorted as text. */
function sortRows(body, column, ascending) {
  const rows = [...body.rows];
  const numbers = rows.map((row) => numberOf(row.cells[column]));
  const numeric = numbers.some((value) => value !== null);
  const keyed = rows.map((row, i) => ({ row, text: row.cells[column].textContent.trim(), value: numbers[i] }));
  const way = ascending ? 1 : -1;
  keyed.sort((a, b) => {
    if (!numeric) return way * a.text.localeCompare(b.text);
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
    return way * (a.value - b.value);
  });
  body.append(...keyed.map((item) => item.row));
}

function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const first = heading.textContent.includes("↑") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const now = before === first ? other : first;
      headings.forEach((each) => each.setAttribute("aria-sort", each === heading ? now : "none"));
      sortRows(table.tBodies[0], column, now === "ascending");
    });
  });
}

function makeFilterable(table) {
  const label = document.createElement("label");
  label.className = "filter";
  const input = document.createElement("input");
  input.type = "search";
  const heading = table.closest("section").querySelector("h2").textContent;
  input.setAttribute("aria-label", `Rows with (${heading})`);
  const left = document.createElement("output");
  label.append("Rows with", input, left);
  table.closest(".scroll").before(label);
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    left.textContent = wanted.length ? `${shown} of ${table.tBodies[0].rows.length}` : "";
  });
}

for (const table of document.querySelectorAll("main table:not(.grid)")) {
  const rows = table.tBodies[0] ? table.tBodies[0].rows.length : 0;
  if (table.tHead && rows > 1) makeSortable(table);
  // The first table of a leaderboard can be filtered however short it is.
  if (rows > FEW_ROWS || table === document.querySelector("#standings table")) makeFilterable(table);
}

// Pictures ---------------------------------------------------------------------------------------

const inspector = document.getElementById("inspector");
const FULL_BAR = 2; // σ

function change([name, value], isTarget) {
  const item = document.createElement("li");
  const label = document.createElement("span");
  const number = document.createElement("b");
  const bar = document.createElement("i");
  label.textContent = name;
  number.textContent = value === null ? "—" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
  bar.style.width = `${Math.min(1, Math.abs(value || 0) / FULL_BAR) * 100}%`;
  bar.classList.toggle("down", value < 0);
  item.classList.toggle("target", isTarget);
  item.append(label, number, bar);
  return item;
}

function inspect(picture) {
  const words = document.createElement("p");
  words.textContent = picture.getAttribute("aria-label");
  const pictures = document.createElement("div");
  pictures.className = `given ${picture.closest("[class^=sheet-]").className}`;
  const given = [...picture.closest(".image").querySelectorAll(".given figure")];
  const shown = given.map((figure) => [figure.querySelector(".pic"), figure.textContent.trim()]);
  if (!picture.closest(".given")) shown.splice(2, 0, [picture, "edit"]);
  for (const [each, caption] of shown) {
    const figure = document.createElement("figure");
    const copy = each.cloneNode();
    copy.removeAttribute("tabindex");
    copy.setAttribute("aria-hidden", "true");
    const under = document.createElement("figcaption");
    under.textContent = caption;
    figure.append(copy, under);
    pictures.append(figure);
  }
  const list = document.createElement("ul");
  const target = picture.closest("[data-concept]").dataset.concept;
  list.append(...JSON.parse(picture.dataset.changes).map((item) => change(item, item[0] === target)));
  inspector.replaceChildren(words, pictures, list);
  inspector.hidden = false;
}

const isShown = (row) => row.style.display !== "none";

/** One stop of the Tab key a grid: this picture, or the first one that is shown. */
function oneStop(grid, chosen) {
  const pictures = [...grid.querySelectorAll(".pic")];
  const stop = chosen || pictures.find((picture) => isShown(picture.closest("tr")));
  pictures.forEach((picture) => (picture.tabIndex = picture === stop ? 0 : -1));
}

/** The arrow keys move between pictures, past places without one and rows that are hidden. */
function moveWithArrows(grid) {
  grid.addEventListener("focusin", (event) => {
    if (event.target.matches(".pic")) oneStop(grid, event.target);
  });
  grid.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td");
    if (!cell) return;
    const line = [...grid.tBodies[0].rows].filter(isShown);
    let row = line.indexOf(cell.parentElement);
    let column = cell.cellIndex;
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    for (;;) {
      row += down;
      column += right;
      if (!line[row] || !line[row].cells[column]) return;
      const next = line[row].cells[column].querySelector(".pic");
      if (next) return next.focus();
    }
  });
}

document.querySelectorAll("table.grid").forEach(moveWithArrows);
for (const kind of ["focusin", "mouseover"]) {
  document.addEventListener(kind, (event) => {
    const picture = event.target.closest ? event.target.closest(".image .pic") : null;
    if (picture) inspect(picture);
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") inspector.hidden = true;
});

// Methods shown ----------------------------------------------------------------------------------

/** A column in which no shown row has a picture or a word is not shown either. */
const hideEmptyColumns = (grid) => {
  const rows = [...grid.tBodies[0].rows].filter((row) => row.style.display !== "none");
  [...grid.tHead.rows[0].cells].slice(1).forEach((_, i) => {
    const used = rows.some((row) => row.cells[i + 1].querySelector(".pic, .none"));
    for (const row of grid.rows) row.cells[i + 1].style.display = used ? "" : "none";
  });
};

const tidyGrids = () => {
  for (const grid of document.querySelectorAll("table.grid")) {
    hideEmptyColumns(grid);
    oneStop(grid);
  }
};

const choices = document.querySelector("form.choices");
if (choices) {
  const apply = (box) => {
    for (const part of document.querySelectorAll(`[data-series="${box.value}"]`)) {
      if (part.closest("#standings")) continue;
      part.style.display = box.checked ? "" : "none";
    }
  };
  choices.addEventListener("change", (event) => {
    apply(event.target);
    tidyGrids();
  });
  choices.addEventListener("submit", (event) => event.preventDefault());
  choices.querySelectorAll("input").forEach(apply);
}
tidyGrids();
