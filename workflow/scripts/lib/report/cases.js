// Drill-down: from a mean to its cases, from a case to its picture. The data are in the page; see cases.py.
const data = JSON.parse(document.getElementById("case-data").textContent);
const chooser = document.getElementById("chooser");
const caseList = document.getElementById("case-list");
const caseBox = document.getElementById("case");
const STATUS = { m: "missed", h: "hallucinated", b: "absent from both", f: "failed", "-": "no score" };
const MEAN = "mean";
const PANEL = 420; // pixels across a picture, at least

const average = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const known = (values) => values.filter((value) => value !== null);

function written(value, metric, spare = 0) {
  if (value === null) return "–";
  return value.toFixed(metric.digits - spare).replace("-", "−");
}

// The scores of one case by one method: a value per training, and what was odd about it.
function caseScores(place, method, at, structure, metric) {
  const { methods, structures, cases, trainings } = place;
  const chosen = structure === MEAN ? structures : [structure];
  const odd = new Map();
  const values = trainings.map((training, t) => {
    const parts = chosen.map((name) => {
      const index = ((structures.indexOf(name) * methods.length + methods.indexOf(method)) * cases.length + at) * trainings.length + t;
      const letter = place.status[index];
      if (letter !== "s") {
        const what = `${STATUS[letter]}${structure === MEAN && letter !== "-" && letter !== "f" ? ` ${name}` : ""}`;
        odd.set(what, (odd.get(what) ?? new Set()).add(training));
      }
      const value = metric.values[index];
      return value === null ? null : value / 10 ** metric.digits;
    });
    return average(known(parts));
  });
  const notes = [...odd].map(([what, when]) => (when.size === trainings.length ? what : `${what} (${[...when].join(", ")})`));
  return { values, mean: average(known(values)), status: notes.join("; ") };
}

function selected(query) {
  const place = data.places[query.get("place")] ?? data.places[query.get("show")] ?? data.places[0];
  if (!place?.methods.length || !place.metrics.length) return null;
  const one = (name, options) => (options.includes(query.get(name)) ? query.get(name) : options[0]);
  return {
    place,
    number: data.places.indexOf(place),
    method: one("method", place.methods),
    structure: one("structure", [MEAN, ...place.structures]),
    metric: place.metrics.find((metric) => metric.key === query.get("metric")) ?? place.metrics[0],
    name: query.get("case"),
  };
}

const unit = (metric) => (metric.unit ? ` ${metric.unit}` : "");
const titled = (now) => `${now.metric.name}${now.metric.unit ? ` (${now.metric.unit})` : ""}, ${now.structure === MEAN ? "mean over structures" : now.structure}`;

// A name that may break after its underscores and before its plus.
function breakable(name) {
  return String(name).split(/(?<=_)|(?=\+)/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
}

const link = (target, now, changes, text) => {
  const state = { place: now.number, method: now.method, structure: now.structure, metric: now.metric.key, ...changes };
  return element("a", { href: `#${target}?${new URLSearchParams(state)}` }, ...breakable(text));
};

function pictureOf(now, name, structure = now.structure) {
  const gallery = data.galleries.find((candidate) => candidate.place === now.number);
  const of_case = gallery?.pictures.filter((picture) => picture.case === name) ?? [];
  const picture = of_case.find((p) => p.structure === structure) ?? of_case.find((p) => p.structure === MEAN) ?? of_case[0];
  return picture && { gallery, picture };
}

function head(label, first = "ascending", classes = "", order = "none") {
  return element("th", { scope: "col", class: classes, "aria-sort": order }, element("button", { type: "button", "data-first": first }, label));
}

function number(value, metric, spare = 0) {
  return element("td", { class: "n", "data-sort": value ?? "" }, written(value, metric, spare));
}

function tableOf(id, caption, heads, rows) {
  const table = element("table", { class: "sortable sticky", id },
    element("caption", {}, caption), element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
  const box = element("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" }, table);
  const holder = element("div", {}, box);
  sortable(table);
  filterable(table);
  return holder;
}

function fill(select, options, value) {
  select.replaceChildren(...options.map(([key, text]) => element("option", { value: key }, text)));
  select.value = value;
}

// The cases of one method, structure and metric, the worst first.
function showCases(now) {
  const { place, metric } = now;
  const several = place.trainings.length > 1;
  const patients = place.cases.some(([name, patient]) => name !== patient);
  fill(chooser.elements.place, data.places.map((p, i) => [i, p.title]), now.number);
  fill(chooser.elements.method, place.methods.map((m) => [m, m]), now.method);
  fill(chooser.elements.structure, [MEAN, ...place.structures].map((s) => [s, s === MEAN ? "mean of all" : s]), now.structure);
  fill(chooser.elements.metric, place.metrics.map((m) => [m.key, m.name]), metric.key);
  chooser.hidden = false;
  const rows = place.cases.map(([name, patient], at) => {
    const scores = caseScores(place, now.method, at, now.structure, metric);
    const others = average(known(place.methods.map((m) => caseScores(place, m, at, now.structure, metric).mean)));
    const values = known(scores.values);
    const row = element("tr", name === now.name ? { class: "chosen", "aria-current": "true" } : {},
      element("th", { scope: "row", "data-sort": name }, link("case", now, { case: name }, name)),
      ...(patients ? [element("td", {}, patient)] : []),
      number(scores.mean, metric, 1),
      ...(several ? scores.values.map((value) => number(value, metric)) : []),
      ...(several ? [number(values.length > 1 ? Math.max(...values) - Math.min(...values) : null, metric, 1)] : []),
      number(others, metric, 1),
      element("td", { class: scores.status ? "alert" : "" }, scores.status || "scored"),
      element("td", {}, pictureOf(now, name) ? "yes" : "no"));
    return [scores.mean, row];
  });
  const worst = metric.lower ? -1 : 1;
  rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : worst * (a - b)));
  const order = metric.lower ? "descending" : "ascending";
  const caption = `${now.method} · ${titled(now)} · ${place.title}`;
  caseList.replaceChildren(tableOf("case-table", caption, [
    head("Case"), ...(patients ? [head("Patient")] : []), head(several ? "Mean" : metric.name, order, "n", order),
    ...(several ? place.trainings.map((training) => head(training, order, "n")) : []),
    ...(several ? [head("Spread", "descending", "n")] : []), head("All methods", order, "n"), head("Status", "descending"), head("Picture", "descending"),
  ], rows.map(([, row]) => row)));
}

// One case: its picture, if there is one, and every method's values.
function showCase(now) {
  const { place, metric, name } = now;
  const at = place.cases.findIndex(([known_name]) => known_name === name);
  caseBox.hidden = at < 0;
  caseBox.replaceChildren();
  if (at < 0) return;
  const found = pictureOf(now, name);
  const panels = element("div", { class: "panels" });
  caseBox.append(
    element("h3", { id: "case-title" }, `Case ${name}`),
    element("p", {}, link("cases", now, { case: name }, `Back to the row of ${now.method}`), ` · ${place.title}`));
  if (found) caseBox.append(panels);
  else caseBox.append(element("p", { class: "note" }, "There is no picture of this case in the page."));
  const rows = place.methods.map((method) => {
    const scores = caseScores(place, method, at, now.structure, metric);
    return [scores.mean, element("tr", method === now.method ? { class: "chosen" } : {},
      element("th", { scope: "row", "data-sort": method }, link("cases", now, { method, case: name }, method)),
      number(scores.mean, metric, 1), ...scores.values.map((value) => number(value, metric)),
      element("td", { class: scores.status ? "alert" : "" }, scores.status || "scored"))];
  });
  caseBox.append(tableOf("case-methods", `Case ${name} by every method · ${titled(now)}`, [
    head("Method"), head("Mean", "descending", "n"), ...place.trainings.map((training) => head(training, "descending", "n")), head("Status", "descending"),
  ], rows.map(([, row]) => row)));
  if (found) drawPanels(panels, found.gallery, found.picture, now);
}

// Pictures: the slice, and the contours of the label maps drawn along the borders of their pixels.
const decoded = new Map();

function decode(picture) {
  if (!decoded.has(picture)) {
    const image = new Image();
    const labels = new Image();
    image.src = `data:image/webp;base64,${picture.image}`;
    labels.src = `data:image/png;base64,${picture.labels}`;
    decoded.set(picture, Promise.all([image.decode(), labels.decode()]).then(() => {
      const canvas = element("canvas", { width: labels.width, height: labels.height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(labels, 0, 0);
      const colours = context.getImageData(0, 0, labels.width, labels.height).data;
      return { image, labels: Uint8Array.from({ length: colours.length / 4 }, (_, i) => colours[4 * i]) };
    }));
  }
  return decoded.get(picture);
}

function drawPanel(canvas, picture, { image, labels }, panel, structures, colours) {
  const [width, height] = picture.size;
  const scale = Math.max(1, Math.ceil(PANEL / width));
  const down = scale * picture.aspect;
  canvas.width = width * scale;
  canvas.height = Math.round(height * down);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (panel === null) return;
  const start = panel * width * height;
  for (const [name, members] of Object.entries(structures)) {
    const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && members.includes(labels[start + y * width + x]);
    const inset = 0.15; // touching structures keep two lines
    const path = new Path2D();
    const line = (a, b, c, d) => { path.moveTo(a * scale, b * down); path.lineTo(c * scale, d * down); };
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        if (!inside(x, y)) continue;
        if (!inside(x - 1, y)) line(x + inset, y, x + inset, y + 1);
        if (!inside(x + 1, y)) line(x + 1 - inset, y, x + 1 - inset, y + 1);
        if (!inside(x, y - 1)) line(x, y + inset, x + 1, y + inset);
        if (!inside(x, y + 1)) line(x, y + 1 - inset, x + 1, y + 1 - inset);
      }
    }
    for (const [colour, thickness] of [["#00000090", 3.2], [colours[name], 1.8]]) {
      context.strokeStyle = colour;
      context.lineWidth = thickness;
      context.stroke(path);
    }
  }
}

async function drawPanels(box, gallery, picture, now) {
  const { place, metric } = now;
  const at = place.cases.findIndex(([name]) => name === picture.case);
  const hidden = new Set();
  const drawn = [];
  const add = (title, note, panel) => {
    const caption = element("figcaption", {}, title, note ? element("small", {}, note) : "");
    if (panel === undefined) {
      grid.append(element("figure", {}, element("div", { class: "absent" }, note), element("figcaption", {}, title)));
      return;
    }
    const name = typeof title === "string" ? title : title.textContent;
    const canvas = element("canvas", { role: "img", "aria-label": `${picture.case}, ${name}, ${picture.where}` });
    grid.append(element("figure", {}, canvas, caption));
    drawn.push([canvas, panel]);
  };
  const grid = element("div", { class: "grid" });
  const legend = element("fieldset", { class: "legend" }, element("legend", {}, "Contours"));
  for (const name of Object.keys(gallery.structures)) {
    const tick = element("input", { type: "checkbox", checked: "" });
    tick.addEventListener("change", () => {
      if (tick.checked) hidden.delete(name);
      else hidden.add(name);
      redraw();
    });
    legend.append(element("label", {}, tick, element("i", { style: `background:${gallery.colours[name]}` }), ` ${name}`));
  }
  add("image", picture.where, null);
  add("reference", picture.structure === MEAN ? "slice where all structures are seen best" : `slice where ${picture.structure} is largest`, 0);
  for (const method of place.methods) {
    const shown = picture.methods[method];
    const title = link("cases", now, { method, case: picture.case }, method);
    if (!shown || shown.absent) {
      add(title, [shown?.absent ?? "no prediction", ...(place.troubles[method] ?? [])].join("; "));
      continue;
    }
    const training = [`seed ${shown.seed}`, `fold ${shown.fold}, seed ${shown.seed}`].map((t) => place.trainings.indexOf(t)).find((i) => i >= 0);
    const value = caseScores(place, method, at, now.structure, metric).values[training] ?? null;
    add(title, `${metric.name} ${written(value, metric, 1)}${unit(metric)} (seed ${shown.seed})`, 1 + picture.panels.indexOf(method));
  }
  box.replaceChildren(legend, grid);
  const loaded = await decode(picture);
  function redraw() {
    const structures = Object.fromEntries(Object.entries(gallery.structures).filter(([name]) => !hidden.has(name)));
    for (const [canvas, panel] of drawn) drawPanel(canvas, picture, loaded, panel, structures, gallery.colours);
  }
  redraw();
  box.dataset.drawn = "true";
}

for (const entry of document.querySelectorAll("[data-picture]")) {
  entry.addEventListener("toggle", () => {
    const box = entry.querySelector(".panels");
    if (!entry.open || box.childElementCount) return;
    const gallery = data.galleries[entry.dataset.gallery];
    const picture = gallery.pictures[entry.dataset.picture];
    const query = new URLSearchParams({ place: gallery.place, structure: picture.structure, case: picture.case });
    drawPanels(box, gallery, picture, selected(query));
  });
}

chooser.addEventListener("change", () => {
  const chosen = Object.fromEntries(["place", "method", "structure", "metric"].map((name) => [name, chooser.elements[name].value]));
  location.hash = address.hash(chosen, "cases");
});

// The page as its address says.
function showAddress() {
  const { target, query } = address.read();
  const choosing = chooser.contains(document.activeElement);
  showPlace(query);
  const now = selected(query);
  if (now) {
    showCases(now);
    showCase(target === "case" ? now : { ...now, name: null });
    if (target === "cases" || target === "case") say(`${caseList.querySelector("caption").textContent}.`);
  } else {
    caseList.replaceChildren(element("p", {}, "No case was scored."));
  }
  for (const table of document.querySelectorAll("table.sortable")) restore(table, query);
  if (choosing) return; // the reader is at a menu: leave the focus there
  const goal = target === "cases" && query.get("case") ? caseList.querySelector(".chosen") : document.getElementById(target);
  for (let outer = goal?.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
  goal?.scrollIntoView({ block: goal.tagName === "TR" ? "center" : "start" });
  if (goal?.tagName === "TR") goal.querySelector("a").focus({ preventScroll: true });
  if (target === "case") caseBox.focus({ preventScroll: true });
}

window.addEventListener("hashchange", showAddress);
showAddress();
