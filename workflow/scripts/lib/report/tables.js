"use strict";

const say = (text) => { document.getElementById("status").textContent = text; };

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// What is shown is in the address, after #: a section, then ?key=value&…, so that it can be sent and gone back to.
const address = {
  read() {
    const [target, query = ""] = location.hash.slice(1).split("?");
    return { target: decodeURIComponent(target), query: new URLSearchParams(query) };
  },
  hash(changes, target = this.read().target) {
    const { query } = this.read();
    for (const [key, value] of Object.entries(changes)) {
      if (value === "" || value === null || value === undefined) query.delete(key);
      else query.set(key, value);
    }
    return `#${encodeURIComponent(target)}${query.size ? `?${query}` : ""}`;
  },
  note(changes) {
    history.replaceState(null, "", this.hash(changes));
  },
};

// Sorting: a header's button sorts its table; rows without a value stay at the end; equal rows keep their order.
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

function sort(table, column, direction) {
  const heads = [...table.tHead.rows[0].cells];
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
  rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * compare(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? direction : "none"));
  return heads[column].innerText.replace(/\s+/g, " ").trim();
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = head.querySelector("button");
    button?.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const next = now === "none" ? button.dataset.first : now === "ascending" ? "descending" : "ascending";
      const name = sort(table, column, next);
      address.note({ [`sort.${table.id}`]: `${column}.${next}` });
      say(`Sorted by ${name}, ${next}.`);
    });
  });
}

// Filtering: rows that hold all words of the text, and the chosen value of a column.
const FEW = 4; // rows that need no filter

function filterable(table) {
  if (table.tBodies[0].rows.length < FEW) return;
  const label = table.caption ? table.caption.textContent.trim() : "table";
  const text = element("input", { type: "search", "aria-label": `Filter rows: ${label}`, placeholder: "Filter rows" });
  const found = element("span", { class: "found" });
  const tools = element("div", { class: "tools" }, text);
  const choices = [...table.tHead.rows[0].cells].flatMap((head, column) => {
    if (!head.dataset.choose) return [];
    const values = [...new Set([...table.tBodies[0].rows].map((row) => row.cells[column].textContent.trim()))];
    if (values.length < 2) return [];
    const select = element("select", { "aria-label": `${head.dataset.choose}: ${label}` },
      element("option", { value: "" }, `${head.dataset.choose}: all`),
      ...values.map((value) => element("option", { value }, value)));
    tools.append(select);
    return [{ column, select }];
  });
  tools.append(found);
  const box = table.closest(".scroll");
  box.before(tools);

  function apply() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const content = row.textContent.toLowerCase();
      row.hidden = !(words.every((word) => content.includes(word)) && choices.every(({ column, select }) =>
        select.value === "" || row.cells[column].textContent.trim() === select.value));
      shown += !row.hidden;
    }
    const all = table.tBodies[0].rows.length;
    found.textContent = shown === all ? "" : `${shown} of ${all} rows`;
    return `${shown} of ${all} rows shown.`;
  }

  tools.addEventListener("input", () => {
    const state = { [`find.${table.id}`]: text.value };
    for (const { column, select } of choices) state[`only.${table.id}.${column}`] = select.value;
    address.note(state);
    say(apply());
  });
  table.restoreFilter = (query) => {
    text.value = query.get(`find.${table.id}`) ?? "";
    for (const { column, select } of choices) select.value = query.get(`only.${table.id}.${column}`) ?? "";
    apply();
  };
}

// Columns: one is shown when its structure and its metric are ticked.
function columns(block) {
  const toggles = block.querySelector(".toggles");
  if (!toggles) return;
  const table = block.querySelector("table");
  const boxes = [...toggles.querySelectorAll("input")];
  const initial = boxes.map((box) => box.checked);
  toggles.hidden = false;

  function apply() {
    const ticked = (kind) => new Set(boxes.filter((box) => box.checked && box.dataset.kind === kind).map((box) => box.value));
    const structures = ticked("s");
    const metrics = ticked("m");
    for (const cell of table.querySelectorAll("[data-m]")) {
      cell.hidden = !((cell.dataset.s === undefined || structures.has(cell.dataset.s)) && metrics.has(cell.dataset.m));
    }
  }

  toggles.addEventListener("change", () => {
    const as_made = boxes.every((box, i) => box.checked === initial[i]);
    address.note({ [`columns.${table.id}`]: as_made ? "" : boxes.map((box) => +box.checked).join("") });
    apply();
  });
  table.restoreColumns = (query) => {
    const bits = query.get(`columns.${table.id}`) ?? "";
    boxes.forEach((box, i) => { box.checked = bits.length === boxes.length ? bits[i] === "1" : initial[i]; });
    apply();
  };
}

function restore(table, query) {
  const [column, direction] = (query.get(`sort.${table.id}`) ?? "").split(".");
  const heads = table.tHead.rows[0].cells;
  if (heads[column] && (direction === "ascending" || direction === "descending")) sort(table, Number(column), direction);
  table.restoreFilter?.(query);
  table.restoreColumns?.(query);
}

// One dataset, condition and protocol of several.
const placeChooser = document.getElementById("place");

function showPlace(query) {
  const only = query.get("show") ?? "";
  if (placeChooser) placeChooser.value = only;
  for (const part of document.querySelectorAll("[data-place]")) part.hidden = only !== "" && part.dataset.place !== only;
}

if (placeChooser) {
  placeChooser.parentElement.hidden = false;
  placeChooser.addEventListener("change", () => {
    address.note({ show: placeChooser.value, place: placeChooser.value || null });
    showAddress();
    say(`Showing ${placeChooser.selectedOptions[0].textContent}.`);
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  sortable(table);
  filterable(table);
}
document.querySelectorAll(".scores").forEach(columns);

for (const line of document.querySelectorAll(".copies")) {
  line.hidden = false;
  for (const button of line.querySelectorAll("button")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      const text = source.tagName === "PRE" ? source.textContent : source.innerText;
      try {
        await navigator.clipboard.writeText(text);
        say("Copied.");
        button.classList.add("done");
      } catch {
        getSelection().selectAllChildren(source);
        say("The browser forbids copying; the text is selected.");
      }
    });
  }
}

// Every link inside the page keeps the state of the tables.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const [target, query = ""] = link.getAttribute("href").slice(1).split("?");
  event.preventDefault();
  const hash = address.hash(Object.fromEntries(new URLSearchParams(query)), target);
  if (hash === location.hash) showAddress();
  else location.hash = hash;
});

window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([data-picture])")) details.open = true;
});
