"use strict";
// The grid of cells, for the report and for live pages: arranges its marks along two axes, filters them, moves among them
// by keyboard, and outlines the cells of a finding. A mark stays the same element for as long as the page is open.
const cellGrid = (() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const table = document.querySelector(".pivot");
  const axes = JSON.parse(table?.dataset.axes ?? "[]");
  const marks = all(".pivot .c").sort((a, b) => a.dataset.n - b.dataset.n);
  for (const mark of marks) {
    mark.values = mark.dataset.v ? mark.dataset.v.split(" ").map(Number) : [];
    // A title is "name: passed, 3s".
    mark.label = mark.title.slice(0, mark.title.lastIndexOf(": "));
    mark.tabIndex = -1;
  }
  const isBad = (mark) => mark.dataset.o === "failed" || mark.dataset.o === "errored";
  // Hears what the reader chose, as parts of an address.
  let told = () => {};

  // ---- axes
  const chosen = (select) => select.value === "" ? null : Number(select.value);
  function choose(select, name) {
    const index = axes.findIndex((axis) => axis.name === name);
    if (index >= 0 || name === "-") select.value = index >= 0 ? index : "";
  }
  function labelsOf(axis) {
    if (axis === null) return [""];
    return marks.some((mark) => mark.values[axis] < 0) ? [...axes[axis].values, "–"] : axes[axis].values;
  }
  // Two axes that would give more fields are not crossed.
  const FIELDS = 100_000;
  function arrange() {
    let [rows, columns] = [chosen($("rows")), chosen($("columns"))];
    if (labelsOf(rows).length * labelsOf(columns).length > FIELDS) { columns = null; $("columns").value = ""; }
    const down = labelsOf(rows), across = labelsOf(columns);
    const place = (mark, axis, labels) => axis === null ? 0 : mark.values[axis] < 0 ? labels.length - 1 : mark.values[axis];
    const make = (tag, properties, ...children) => {
      const element = Object.assign(document.createElement(tag), properties);
      element.append(...children);
      return element;
    };
    const names = [rows, columns].filter((axis) => axis !== null).map((axis) => axes[axis].name).join(" × ") || "cell";
    const cells = down.map(() => across.map(() => document.createElement("td")));
    for (const mark of marks) cells[place(mark, rows, down)][place(mark, columns, across)].append(mark);
    const head = (textContent, scope, className = "") => make("th", { textContent, scope, className });
    table.caption.textContent = `Cells by ${names}`;
    table.tHead.replaceChildren(make("tr", {}, head(names, "col", "corner"), ...across.map((label) => head(label, "col"))));
    table.tBodies[0].replaceChildren(...down.map((label, row) => make("tr", {}, head(label, "row"), ...cells[row])));
  }
  function turned(changed) {
    const [rows, columns] = [$("rows"), $("columns")];
    if (rows.value === columns.value) (changed === columns ? rows : columns).value = "";
    arrange();
    const name = (select) => chosen(select) === null ? "-" : axes[chosen(select)].name;
    told({ rows: name(rows), columns: name(columns) });
  }

  // ---- one mark is in the tab order; arrows move between the marks by their places on the screen
  let current = null;
  function pick(mark, focus) {
    if (current) current.tabIndex = -1;
    current = mark;
    mark.tabIndex = 0;
    if (focus) mark.focus();
  }
  const first = marks.find(isBad) ?? marks[0];
  if (first) pick(first);
  const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function move(from, [x, y]) {
    const here = from.getBoundingClientRect();
    let best = null, least = Infinity;
    for (const mark of marks) {
      const there = mark.getBoundingClientRect();
      const [dx, dy] = [there.x - here.x, there.y - here.y];
      const along = dx * x + dy * y, off = Math.abs(dx * y) + Math.abs(dy * x);
      if (along > 2 && along + off * 4 < least) [best, least] = [mark, along + off * 4];
    }
    if (best) pick(best, true);
  }
  // Returns the next failing mark after another one, or the previous one before it.
  function failing(step, from) {
    const bad = marks.filter((mark) => isBad(mark) && !mark.classList.contains("off"));
    const at = bad.indexOf(from);
    return bad[at < 0 ? (step > 0 ? 0 : bad.length - 1) : (at + step + bad.length) % bad.length];
  }

  // ---- filters. What the reader chose is kept here: a live page replaces its buttons.
  const shown = new Set();
  let text = "";
  function filter() {
    for (const chip of all("button[data-show]")) chip.ariaPressed = String(shown.has(chip.dataset.show));
    const field = $("filter");
    if (field && field.value !== text) field.value = text;
    const words = text.trim().toLowerCase();
    const hides = (outcome, name) => (shown.size > 0 && !shown.has(outcome)) || !name.toLowerCase().includes(words);
    for (const mark of marks) mark.classList.toggle("off", hides(mark.dataset.o, mark.label));
    for (const row of all("#cells tbody tr")) row.hidden = hides(row.dataset.o, row.cells[0].textContent);
  }
  function filtered() {
    filter();
    told({ show: [...shown].join(","), filter: text });
  }

  // Shows what an address says.
  function show(query) {
    if (!table) return;
    if ($("rows") && (query.has("rows") || query.has("columns"))) {
      choose($("rows"), query.get("rows"));
      choose($("columns"), query.get("columns"));
      if ($("rows").value !== $("columns").value) arrange();
    }
    const wanted = (query.get("show") ?? "").split(",").filter(Boolean);
    const changes = shown.size > 0 || text || wanted.length || query.get("filter");
    shown.clear();
    for (const outcome of wanted) shown.add(outcome);
    text = query.get("filter") ?? "";
    if (changes) filter();
  }

  if (table) {
    document.addEventListener("change", ({ target }) => { if (target.id === "rows" || target.id === "columns") turned(target); });
    document.addEventListener("input", ({ target }) => { if (target.id === "filter") { text = target.value; filtered(); } });
    document.addEventListener("click", ({ target }) => {
      const chip = target.closest("button[data-show]");
      if (chip) { if (!shown.delete(chip.dataset.show)) shown.add(chip.dataset.show); filtered(); }
      if (target.closest("#swap")) { [$("rows").value, $("columns").value] = [$("columns").value, $("rows").value]; turned(); }
    });
    table.addEventListener("focusin", ({ target }) => { if (target.matches(".c")) pick(target); });
    table.addEventListener("keydown", (event) => {
      const way = WAYS[event.key];
      if (!way || !event.target.matches(".c") || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      move(event.target, way);
    });
    const numbered = new Map(marks.map((mark) => [Number(mark.dataset.n), mark]));
    const outline = ({ target }, on) => {
      const item = target.closest?.("[data-cells]");
      for (const range of item?.dataset.cells.split(" ") ?? []) {
        const [from, to] = range.split("-").map(Number);
        for (let n = from; n <= (to ?? from); n++) numbered.get(n)?.classList.toggle("rule", on);
      }
    };
    for (const [name, on] of [["pointerover", true], ["focusin", true], ["pointerout", false], ["focusout", false]])
      document.addEventListener(name, (event) => outline(event, on));
  }
  return {
    marks, isBad, pick, failing, show,
    tell: (hear) => { told = hear; },
    // Applies the filters again, after a live page changed.
    renew: () => { if (table && (shown.size || text)) filter(); },
  };
})();
