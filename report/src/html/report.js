// The report's script: opens cells from their compressed blocks, shows and searches logs. It follows grid.js.
// The address says what is shown: #/?rows=A&columns=B&show=failed&filter=TEXT, #/cells/C/steps/PATH?q=TEXT.
(() => {
const $ = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const overview = $("overview"), page = $("cell");
const title = document.title;
for (const element of all(".js")) element.hidden = false;

async function inflate(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// ---- address
const encode = (path) => path.split("/").map(encodeURIComponent).join("/");
const decode = (text) => { try { return decodeURIComponent(text); } catch { return text; } };
function address() {
  const hash = location.hash.slice(1);
  const cut = hash.indexOf("?");
  const path = cut < 0 ? hash : hash.slice(0, cut);
  const query = new URLSearchParams(cut < 0 ? "" : hash.slice(cut + 1));
  const found = /^\/cells\/([^/]+)(?:\/steps\/(.*))?$/.exec(path);
  return { cell: found && decode(found[1]), step: found?.[2] && decode(found[2]), query };
}
function setQuery(changes) {
  const { query } = address();
  for (const [key, value] of Object.entries(changes)) value ? query.set(key, value) : query.delete(key);
  const path = location.hash.slice(1).split("?")[0] || "/";
  const text = query.toString();
  history.replaceState(null, "", `#${path}${text ? "?" + text : ""}`);
  if (!address().cell) back = location.hash;
}
let back = "#/";

// ---- grid
const { marks } = cellGrid;
for (const mark of marks) mark.cell = decode(mark.hash.slice("#/cells/".length));
const markOf = new Map(marks.map((mark) => [mark.cell, mark]));
cellGrid.tell(setQuery);

// ---- workers: each keeps the blocks whose place in the file is its own, so that a search uses several cores
const WORKERS = Math.min(navigator.hardwareConcurrency || 1, 4);
const workers = [], waiting = new Map(), workerOf = new Map();
let asked = 0;
function worker(number) {
  if (!workers[number]) {
    const worker = workers[number] = new Worker(URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => {
      const entry = waiting.get(data.id);
      if (data.part) return entry?.onPart?.(data.part);
      waiting.delete(data.id);
      data.error ? entry?.reject(new Error(data.error)) : entry?.resolve(data);
    };
  }
  return workers[number];
}
function ask(question, number = workerOf.get(question.key), onPart) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject, onPart });
    worker(number).postMessage({ ...question, id: asked });
  });
}
// Gives blocks to their workers, each once.
function keep(blocks) {
  const shares = new Map();
  for (const block of blocks) {
    if (workerOf.has(block.id) || "leftOut" in block.dataset) continue;
    const number = logs.indexOf(block) % WORKERS;
    workerOf.set(block.id, number);
    if (!shares.has(number)) shares.set(number, []);
    shares.get(number).push([block.id, block.textContent]);
  }
  return Promise.all([...shares].map(([number, blocks]) => ask({ ask: "keep", blocks }, number)));
}
function pieces(text, query) {
  if (!query) return [text];
  const small = query.toLowerCase() === query;
  const hay = small ? text.toLowerCase() : text;
  if (hay.length !== text.length) return [text];
  const out = [];
  let from = 0;
  for (let at = hay.indexOf(query); at >= 0; at = hay.indexOf(query, from)) {
    out.push(text.slice(from, at), make("mark", { textContent: text.slice(at, at + query.length) }));
    from = at + query.length;
  }
  out.push(text.slice(from));
  return out;
}

// ---- logs of an attempt: only the rows on the screen are in the page
const ROW = 18, TALLEST = 8_000_000, CHUNK = 200;
class LogView {
  constructor(holder, block, start) {
    this.key = block.id;
    this.start = start;
    this.total = 0;
    this.chunks = new Map();
    this.query = "";
    this.hits = new Uint32Array(0);
    this.hit = -1;
    this.span = null;
    this.rows = make("div", { className: "rows" });
    this.space = make("div");
    this.view = make("div", { className: "view", tabIndex: 0 }, this.space, this.rows);
    this.view.setAttribute("role", "region");
    this.view.setAttribute("aria-label", "Log lines");
    this.input = make("input", { type: "search", placeholder: "search this log", spellcheck: false, autocomplete: "off" });
    this.input.setAttribute("aria-label", "Search this log");
    this.told = make("output");
    this.services = make("span");
    const step = (text, label, by) => {
      const button = make("button", { type: "button", textContent: text, title: label, onclick: () => this.go(this.hit + by) });
      button.setAttribute("aria-label", label);
      return button;
    };
    const bar = make("div", { className: "bar-top" }, make("h3", { textContent: "Logs" }), this.services, this.input,
      step("↑", "Previous match", -1), step("↓", "Next match", 1), this.told);
    holder.replaceChildren(bar, this.view);
    this.view.onscroll = () => this.draw();
    this.input.oninput = () => this.search(this.input.value);
    this.input.onkeydown = (event) => {
      if (event.key === "Enter") { event.preventDefault(); this.go(this.hit + (event.shiftKey ? -1 : 1)); }
      if (event.key === "Escape" && this.input.value) { event.stopPropagation(); this.input.value = ""; this.search(""); }
    };
    this.ready = keep([block]).then(() => ask({ ask: "open", key: this.key })).then((log) => this.opened(log));
  }
  opened({ names, counts, total }) {
    if (names.length > 1) {
      const boxes = names.map((name, index) => {
        const box = make("input", { type: "checkbox", checked: true, value: index });
        box.onchange = async () => {
          const services = boxes.filter((box) => box.checked).map((box) => Number(box.value));
          this.resize((await ask({ ask: "show", key: this.key, services })).total);
          await this.search(this.query);
        };
        this.services.append(make("label", {}, box, `${name} ${counts[index]}`), " ");
        return box;
      });
    }
    this.resize(total);
    this.told.textContent = `${total.toLocaleString("en")} lines`;
  }
  resize(total) {
    this.total = total;
    this.chunks.clear();
    this.height = Math.min(total * ROW, TALLEST);
    this.space.style.height = `${this.height}px`;
    this.view.style.height = `${Math.min(Math.max(total * ROW + 16, 60), 420)}px`;
    this.draw();
  }
  // Beyond the tallest element that browsers lay out, the scroll bar's position is a share of the lines.
  get first() {
    const { scrollTop, clientHeight } = this.view;
    if (this.total * ROW <= TALLEST) return Math.floor(scrollTop / ROW);
    return Math.round(scrollTop / Math.max(this.height - clientHeight, 1) * Math.max(this.total - clientHeight / ROW, 0));
  }
  reveal(line) {
    const { clientHeight } = this.view;
    const first = Math.max(line - clientHeight / ROW / 3, 0);
    this.view.scrollTop = this.total * ROW <= TALLEST ? first * ROW : first / Math.max(this.total - clientHeight / ROW, 1) * (this.height - clientHeight);
    this.draw();
  }
  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => { this.drawing = false; this.render(); });
  }
  render() {
    const from = Math.max(this.first - 10, 0);
    const to = Math.min(from + Math.ceil(this.view.clientHeight / ROW) + 20, this.total);
    const rows = [];
    const hits = new Set(this.hits.length < 5000 ? this.hits : this.hits.filter((hit) => hit >= from && hit < to));
    for (let line = from; line < to; line++) {
      const chunk = this.chunk(Math.floor(line / CHUNK));
      rows.push(chunk ? this.row(line, chunk[line % CHUNK], hits.has(line)) : make("div", { className: "row", textContent: "…" }));
    }
    const top = this.total * ROW <= TALLEST ? from * ROW : this.view.scrollTop - (this.first - from) * ROW;
    this.rows.style.transform = `translateY(${top}px)`;
    this.rows.replaceChildren(...rows);
  }
  chunk(number) {
    const chunk = this.chunks.get(number);
    if (chunk === undefined) {
      const chunks = this.chunks;
      if (chunks.size > 50) chunks.clear();
      chunks.set(number, null);
      ask({ ask: "rows", key: this.key, from: number * CHUNK, to: (number + 1) * CHUNK }).then(({ rows }) => {
        chunks.set(number, rows);
        this.draw();
      });
    }
    return chunk;
  }
  row(line, [at, service, kind, text], isHit) {
    const after = at - this.start;
    let name = `row ${kind}`;
    if (this.span && after >= this.span[0] && after <= this.span[1]) name += " in";
    if (isHit) name += line === this.hits[this.hit] ? " now" : " hit";
    return make("div", { className: name }, make("i", { className: "at", textContent: `${(after / 1000).toFixed(3)}s` }),
      make("i", { className: "of", textContent: service }), make("b", {}, ...pieces(text, isHit ? this.query : "")));
  }
  async search(query) {
    this.query = query;
    this.hits = query ? (await ask({ ask: "find", key: this.key, query })).hits : new Uint32Array(0);
    if (query !== this.query) return; // a newer search answers
    this.hit = -1;
    if (this.hits.length) this.go(0); else this.tell();
    this.draw();
    if (address().cell) setQuery({ q: query });
  }
  go(hit) {
    if (!this.hits.length) return;
    this.hit = (hit + this.hits.length) % this.hits.length;
    this.reveal(this.hits[this.hit]);
    this.tell();
  }
  tell() {
    const count = (number) => number.toLocaleString("en");
    this.told.textContent = !this.query ? `${count(this.total)} lines` : this.hits.length ? `${count(this.hit + 1)} of ${count(this.hits.length)}` : "no match";
  }
  // Marks the lines of a step and scrolls to the first of them.
  async mark(from, to) {
    this.span = [from, to];
    this.reveal((await ask({ ask: "place", key: this.key, at: this.start + from })).index);
  }
}

function showLogs(attempt, cell) {
  if (attempt.view || !attempt.open) return attempt.view;
  const holder = attempt.querySelector(".logs");
  const block = $(`l-${cell}-${attempt.dataset.attempt}`);
  if (!block || !holder) return null;
  holder.hidden = false;
  if ("leftOut" in block.dataset) {
    holder.append(make("p", { className: "bar-top", textContent: `${Number(block.dataset.lines).toLocaleString("en")} log lines are not in this file, which keeps to a limit. The command \`phalanx logs\` below prints them.` }));
    return null;
  }
  return attempt.view = new LogView(holder, block, Number(attempt.dataset.start));
}

// ---- cells
let shownCell = null;
function pick(step, quiet) {
  for (const other of all(".picked", page)) other.classList.remove("picked");
  step.classList.add("picked");
  const log = showLogs(step.closest(".attempt"), shownCell);
  log?.ready.then(() => log.mark(Number(step.dataset.from), Number(step.dataset.to)));
  if (!quiet && step.dataset.path) {
    const { query } = address();
    history.replaceState(null, "", `#/cells/${encode(shownCell)}/steps/${encode(step.dataset.path)}${query.size ? "?" + query : ""}`);
  }
}
async function showCell(cell, path, query) {
  if (shownCell !== cell) {
    await parsed;
    const block = $(`d-${cell}`);
    const html = block ? await inflate(block.textContent) : "";
    if (address().cell !== cell) return;
    shownCell = cell;
    const crumb = make("nav", { className: "crumb" }, make("a", { href: back, textContent: "← Overview" }));
    crumb.setAttribute("aria-label", "Report");
    crumb.append(make("span", { className: "keys", textContent: "n next failing · Esc overview · / search the log · ? keys" }));
    page.innerHTML = html; // made by the report's own code, every text in it escaped
    for (const shown of page.querySelectorAll("[data-file]")) {
        const content = $(`file-${shown.dataset.file}`);
        if (content) shown.src = `data:${shown.dataset.type};base64,${content.textContent}`;
    }
    page.prepend(crumb);
    if (!block) page.append(make("p", { className: "note", textContent: markOf.has(cell)
      ? `The steps of ${markOf.get(cell).label} are not in this file, which keeps to a limit. This command prints them: phalanx show ${overview.dataset.run} --cell ${cell}`
      : `This report has no cell ${cell}.` }));
    for (const element of all(".js", page)) element.hidden = element.classList.contains("logs");
    for (const attempt of all(".attempt", page)) attempt.ontoggle = () => showLogs(attempt, cell);
    document.title = `${markOf.get(cell)?.label ?? cell} – ${title}`;
  }
  overview.hidden = true;
  page.hidden = false;
  const steps = all(".step", page);
  const step = path ? steps.find((step) => step.dataset.path === path) : null;
  const bad = steps.filter((step) => ["failed", "errored"].includes(step.dataset.o) && step.closest(".attempt").open);
  const opened = step ?? bad.find((step) => step.classList.contains("leaf")) ?? bad[0];
  scrollTo(0, 0);
  for (const attempt of all(".attempt[open]", page)) showLogs(attempt, cell);
  if (opened) {
    opened.closest(".attempt").open = true;
    opened.open = true;
    pick(opened, true);
  }
  if (step) {
    step.scrollIntoView({ block: "center" });
    step.firstElementChild.focus({ preventScroll: true });
  } else page.querySelector("h1")?.focus({ preventScroll: true });
  if (query) {
    const log = page.querySelector(".attempt[open]")?.view;
    await log?.ready;
    if (log) { log.input.value = query; await log.search(query); }
  }
}
page.addEventListener("click", (event) => {
  const step = event.target.closest("summary")?.parentElement;
  if (step?.classList.contains("step") && !step.open) pick(step);
});

function showOverview(query) {
  const before = shownCell;
  shownCell = null;
  page.replaceChildren();
  page.hidden = true;
  overview.hidden = false;
  document.title = title;
  cellGrid.show(query);
  if (before) {
    scrollTo(0, scrolled);
    const mark = markOf.get(before);
    if (mark) cellGrid.pick(mark, true);
  }
}
let scrolled = 0;
function route() {
  const { cell, step, query } = address();
  if (cell) {
    if (!overview.hidden) scrolled = scrollY;
    return showCell(cell, step, query.get("q"));
  }
  back = location.hash || "#/";
  showOverview(query);
}
addEventListener("hashchange", route);

// ---- search in all logs
function offerSearch() {
  if (!logs.some((block) => !("leftOut" in block.dataset))) return;
  $("search").hidden = false;
  $("search").querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    const query = $("all-logs").value;
    if (!query) return;
    $("hits").replaceChildren();
    $("found").textContent = "searching …";
    await keep(logs);
    let listed = 0;
    const onPart = ({ key, count, samples }) => {
      if (++listed > 200) return;
      const { cell, attempt } = $(key).dataset;
      const mark = markOf.get(cell);
      const link = make("a", { href: `#/cells/${encode(cell)}?q=${encodeURIComponent(query)}`, textContent: mark?.label ?? cell });
      $("hits").append(make("li", {}, mark?.firstElementChild.cloneNode(true) ?? "", " ", link,
        make("span", { className: "quiet", textContent: ` attempt ${attempt}: ${count.toLocaleString("en")} ${count === 1 ? "line" : "lines"}` }),
        ...samples.slice(0, 2).map((line) => make("div", { className: "line" }, ...pieces(line.slice(0, 300), query)))));
    };
    const parts = await Promise.all(workers.map((_, number) => ask({ ask: "search", query }, number, onPart)));
    const lines = parts.reduce((sum, part) => sum + part.lines, 0), blocks = parts.reduce((sum, part) => sum + part.blocks, 0);
    $("found").textContent = lines ? `${lines.toLocaleString("en")} lines in ${blocks.toLocaleString("en")} logs${blocks > 200 ? ", the first 200 listed" : ""}` : "no match";
  };
}

// ---- keys
const help = make("dialog", {}, make("h2", { textContent: "Keys" }), make("dl", {},
  ...[["← ↑ ↓ →", "move in the grid"], ["Enter", "open the cell or step"], ["n / N", "next or previous failing cell"], ["Esc", "back to the overview"],
    ["/", "search"], ["?", "this list"]].flatMap(([key, what]) => [make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: what })])),
  make("form", { method: "dialog" }, make("button", { textContent: "Close" })));
help.setAttribute("aria-label", "Keys");
document.body.append(help);
function nextBad(by) {
  const next = cellGrid.failing(by, shownCell ? markOf.get(shownCell) : document.activeElement);
  if (!next) return;
  if (shownCell) location.hash = next.hash; else cellGrid.pick(next, true);
}
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target.matches("input, select, textarea")) return;
  if (event.key === "n") nextBad(1);
  else if (event.key === "N") nextBad(-1);
  else if (event.key === "Escape" && shownCell) location.hash = back;
  else if (event.key === "?") help.showModal();
  else if (event.key === "/") {
    const field = shownCell ? page.querySelector(".logs input[type=search]") : $("search").hidden ? $("filter") : $("all-logs");
    field?.focus();
    event.preventDefault();
  }
});

// The blocks follow this script, so the grid answers before they are read.
const parsed = new Promise((resolve) => {
  document.readyState === "loading" ? addEventListener("DOMContentLoaded", resolve) : resolve();
});
let logs = [];
parsed.then(() => {
  logs = all("script.log");
  offerSearch();
  if (logs.length) (window.requestIdleCallback ?? setTimeout)(() => worker(0)); // starting it takes longer than opening a log
});
route();
performance.mark("ready");
})();
