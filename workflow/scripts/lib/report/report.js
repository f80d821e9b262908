"use strict";

// Sorting: a header's button sorts its table; rows without a value stay at the end; equal rows keep their order.
const sorted = document.getElementById("sorted");

function key(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.sort ?? cell.textContent.trim();
  if (text === "" || text === "–") return null;
  const number = Number(text);
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

function sort(header, button) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const column = header.cellIndex;
  const now = header.getAttribute("aria-sort");
  const next = now === "none" ? button.dataset.first : now === "ascending" ? "descending" : "ascending";
  const sign = next === "ascending" ? 1 : -1;
  const rows = [...body.rows].map((row) => [key(row, column), row]);
  rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * compare(a, b)));
  body.append(...rows.map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", other === header ? next : "none");
  sorted.textContent = `Sorted by ${button.innerText.replace(/\s+/g, " ").trim()}, ${next}.`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.rows[0].cells) {
    const button = header.querySelector("button");
    button.addEventListener("click", () => sort(header, button));
  }
}

// Columns: one is shown when both its structure and its metric are ticked.
for (const block of document.querySelectorAll(".scores")) {
  const toggles = block.querySelector(".toggles");
  const ticked = (kind) => new Set([...toggles.querySelectorAll(`[data-kind=${kind}]:checked`)].map((box) => box.value));
  toggles.hidden = false;
  toggles.addEventListener("change", () => {
    const structures = ticked("s");
    const metrics = ticked("m");
    for (const cell of block.querySelectorAll("[data-s]")) {
      cell.hidden = !(structures.has(cell.dataset.s) && metrics.has(cell.dataset.m));
    }
  });
}

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
