// Keeps a page up to date from its event stream, and shows logs. It follows the grid's script. The page itself comes from
// the server, complete; nothing here knows what a region means.
(() => {
const $ = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const main = $("page");

// ---- times
function clock(root = document) {
  for (const time of all("time[datetime]:not([title])", root)) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) continue;
    time.title = time.dateTime;
    const today = at.toDateString() === new Date().toDateString();
    time.textContent = today ? at.toLocaleTimeString() : at.toLocaleString();
  }
}
function span(seconds) {
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`;
  return `${Math.floor(seconds / 3600)}h${two(seconds / 60 % 60)}m`;
}
const now = () => main.dataset.now ? main.dataset.now / 1000 : Date.now();
function tick() {
  for (const time of all("[data-since]")) {
    const text = span(Math.max(0, now() - time.dataset.since / 1000) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
}
for (const element of all(".js")) element.hidden = false;
clock();
tick();
setInterval(tick, 500);

// ---- patches: gathered between two frames, applied in one
const template = document.createElement("template");
// Milliseconds of a frame in which regions are put in place. One region is put in place in any case.
const AT_ONCE = 6;
// The newest patch of each region, in the order in which the regions came first.
const patches = new Map();
let asked = false;
function soon() {
  if (!asked) { asked = true; requestAnimationFrame(frame); }
}
function frame() {
  asked = false;
  const placed = patches.size > 0, until = performance.now() + AT_ONCE;
  for (const [id, [into, html]] of patches) {
    patches.delete(id);
    place(id, into, html);
    if (performance.now() > until) break;
  }
  if (placed) { cellGrid.renew(); tick(); }
  if (patches.size) soon();
  log?.draw();
}
function place(id, into, html) {
  template.innerHTML = html;
  const element = template.content.firstElementChild;
  const old = $(id);
  if (!element) return;
  if (old?.matches(".c")) { remark(old, element); return; }
  if (old) keep(old, element);
  for (const hidden of all(".js", element)) hidden.hidden = false;
  clock(element);
  const focus = old?.contains(document.activeElement) && route(old, document.activeElement);
  if (old) old.replaceWith(element);
  else $(into)?.append(element);
  if (focus) follow(element, focus)?.focus({ preventScroll: true });
}
// A mark of the grid stays in its place, with what the script knows of it. Only its drawing changes.
function remark(old, element) {
  if (old.title !== element.title) old.title = element.title;
  if (old.dataset.o === element.dataset.o) return;
  old.dataset.o = element.dataset.o;
  const [drawn, drawing] = [old.firstElementChild, element.firstElementChild];
  drawn.setAttribute("class", drawing.getAttribute("class"));
  drawn.firstElementChild.setAttribute("href", drawing.firstElementChild.getAttribute("href"));
}
// What the reader opened stays open.
function keep(old, element) {
  const details = all("details", element);
  all("details", old).forEach((was, index) => { if (details[index]) details[index].open = was.open; });
}
function route(from, to) {
  const way = [];
  for (let at = to; at !== from; at = at.parentElement) way.unshift([...at.parentElement.children].indexOf(at));
  return way;
}
function follow(from, way) {
  return way.reduce((at, index) => at?.children[index], from);
}

// ---- the event stream
const status = $("connection");
let place_ = null, retry = 0, source = null, waiting = 0, over = false;
function say(state, text) {
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
}
// Browsers allow six connections to a server, for all tabs together. So a tab has one only while it can be seen; then it
// goes on exactly where it was.
function disconnect() {
  clearTimeout(waiting);
  source?.close();
  source = null;
}
function connect() {
  disconnect();
  if (over || document.hidden || !main.dataset.events) return;
  const url = new URL(main.dataset.events, location.href);
  if (place_) url.searchParams.set("after", place_);
  listen(new EventSource(url));
}
function seen(event) {
  if (!event.lastEventId) return;
  place_ = event.lastEventId;
  const shown = $("seq");
  const seq = place_.split(".")[0];
  if (!shown || shown.textContent === seq) return;
  shown.textContent = seq;
  for (const link of all("#travel a[data-back]")) link.search = `?at=${Math.max(1, seq - link.dataset.back)}`;
  const slider = document.querySelector("#travel input[type=range]");
  // The slider stays at the newest event unless the reader moved it.
  const newest = slider.value === slider.max;
  slider.max = seq;
  if (newest) slider.value = seq;
}
function listen(opened) {
  source = opened;
  source.onopen = () => { retry = 0; say("live", "live"); };
  source.onerror = () => {
    say("lost", "connection lost, trying again…");
    if (opened.readyState !== EventSource.CLOSED) return;
    // The server refused or is gone: the browser gives up, we don't.
    retry = Math.min(retry + 1, 10);
    clearTimeout(waiting);
    waiting = setTimeout(connect, 500 * retry);
  };
  source.addEventListener("patch", (event) => {
    seen(event);
    for (const [id, into, html] of JSON.parse(event.data)) patches.set(id, [into, html]);
    soon();
  });
  source.addEventListener("log", (event) => { seen(event); log?.take(JSON.parse(event.data)); soon(); });
  source.addEventListener("end", (event) => { seen(event); over = true; disconnect(); log?.end(); say("over", "complete"); soon(); });
}
document.addEventListener("visibilitychange", () => { document.hidden ? disconnect() : connect(); });
addEventListener("pagehide", disconnect);
// A page that comes back from the browser's cache was not hidden before.
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });

// ---- buttons
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form.action")) return;
  const token = form.elements.token ?? Object.assign(document.createElement("input"), { type: "hidden", name: "token" });
  token.value = main.dataset.token ?? "";
  form.append(token);
});

// ---- the grid: what the reader chose is in the address
cellGrid.tell((changes) => {
  const url = new URL(location.href);
  for (const [key, value] of Object.entries(changes)) value ? url.searchParams.set(key, value) : url.searchParams.delete(key);
  history.replaceState(null, "", url);
});
cellGrid.show(new URLSearchParams(location.search));
function failing(step) {
  const next = cellGrid.failing(step, document.activeElement);
  if (next) cellGrid.pick(next, true);
}

// ---- logs: lines of text in memory, only those in sight in the document
// A line that doesn't end is cut at LONGEST characters. No browser shows an element of more than about 17 million pixels.
const ROW = 18, MOST = 900_000, WIDEST = 4_000, LONGEST = 65_536;
const log = (() => {
  const section = $("log");
  if (!section) return null;
  const [view, space, list, search, hits_] = ["log-view", "log-space", "log-lines", "log-query", "log-hits"].map($);
  const [following, service, earlierButton] = ["log-follow", "log-service", "log-earlier"].map($);
  let attempt = Number(section.dataset.attempt ?? 0);
  let lines, sources, first, shown, wanted, dirty, dropped;
  let hits, scanned, hit;
  function reset() {
    // A line: source, time, text, whether it is a gap. `shown` has the positions of the chosen service's lines.
    [lines, sources, first, shown, dirty, dropped] = [[], [], null, wanted ? [] : null, true, 0];
    restart();
  }
  function restart() { [hits, scanned, hit] = [[], 0, -1]; }
  reset();

  function sourceOf([name, stream]) {
    let found = sources.find((source) => source.name === name && source.stream === stream);
    if (!found) {
      found = { name, stream, rest: "", decoder: null, first: null };
      sources.push(found);
      if (![...service.options].some((option) => option.value === name)) service.append(new Option(name, name));
    }
    return found;
  }
  // Bytes come as characters of the same value. Most are ASCII and are text already.
  function decode(source, text) {
    if (!source.decoder && !/[\x80-\xff]/.test(text)) return text;
    source.decoder ??= new TextDecoder();
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return source.decoder.decode(bytes, { stream: true });
  }
  const plain = (text) => text.includes("\x1b") ? text.replace(/\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)/g, "") : text;
  function split(batch, into, of) {
    for (const [, index, at, bytes, gap] of batch.records) {
      const source = of(batch.sources[index]);
      const add = (text, isGap) => {
        if (text.endsWith("\r")) text = text.slice(0, -1);
        const line = { source, at, text: plain(text), gap: isGap };
        source.first ??= line;
        into.push(line);
      };
      if (gap) { add(bytes, true); continue; }
      const parts = (source.rest + decode(source, bytes)).split("\n");
      source.rest = parts.pop();
      for (const part of parts) add(part, false);
      if (source.rest.length > LONGEST) { add(source.rest, false); source.rest = ""; }
    }
  }
  function take(batch) {
    if (batch.attempt !== attempt) { attempt = batch.attempt; reset(); }
    if (first === null && batch.records.length) { first = batch.records[0][0]; earlierButton.hidden = first <= 1; }
    const before = lines.length;
    split(batch, lines, sourceOf);
    if (wanted) for (let i = before; i < lines.length; i++) if (lines[i].source.name === wanted) shown.push(i);
    if (lines.length > MOST) drop(lines.length - MOST + MOST / 10);
    dirty = true;
  }
  function drop(count) {
    lines.splice(0, count);
    dropped += count;
    // Records that were dropped can't be asked for without a gap: the browser has no room for them.
    earlierButton.hidden = true;
    choose();
    restart();
    if (!following.checked) view.scrollTop = Math.max(0, view.scrollTop - count * ROW);
  }
  function end() {
    for (const source of sources) {
      if (source.rest) lines.push({ source, at: 0, text: plain(source.rest), gap: false });
      source.rest = "";
    }
    choose();
  }
  function choose() {
    wanted = service.value;
    shown = wanted ? lines.flatMap((line, index) => line.source.name === wanted ? [index] : []) : null;
    dirty = true;
  }
  async function ask(before) {
    const query = new URLSearchParams({ attempt });
    if (before) query.set("before", before);
    if (section.dataset.at) query.set("at", section.dataset.at);
    const answer = await fetch(`${section.dataset.log}?${query}`);
    return answer.ok ? answer.json() : null;
  }
  async function earlier() {
    earlierButton.disabled = true;
    const batch = await ask(first);
    earlierButton.disabled = false;
    if (!batch?.records.length) { earlierButton.hidden = true; return; }
    const [block, known] = [[], []];
    split(batch, block, ([name, stream]) => {
      let found = known.find((source) => source.name === name && source.stream === stream);
      if (!found) known.push(found = { name, stream, rest: "", decoder: null, first: null });
      return found;
    });
    // The last piece of the block is the beginning of the line that the page has.
    for (const part of known) {
      const source = sourceOf([part.name, part.stream]);
      if (part.rest && source.first) source.first.text = plain(part.rest) + source.first.text;
      else if (part.rest) source.rest = part.rest + source.rest;
      source.first = part.first ?? source.first;
    }
    for (const line of block) line.source = sourceOf([line.source.name, line.source.stream]);
    lines = block.concat(lines);
    first = batch.records[0][0];
    earlierButton.hidden = first <= 1;
    restart();
    choose();
    view.scrollTop += block.length * ROW;
    soon();
  }

  const two = (n, width = 2) => String(n).padStart(width, "0");
  function timeOf(at) {
    if (!at) return "";
    const time = new Date(at);
    return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${two(time.getMilliseconds(), 3)}`;
  }
  function row(index) {
    const line = lines[index];
    const item = document.createElement("li");
    const piece = (tag, name, text) => { const e = document.createElement(tag); e.className = name; e.textContent = text; return e; };
    item.className = `row${line.gap ? " g" : ""}${line.source.stream === "stderr" ? " e" : ""}`;
    if (search.value && matches(line)) item.classList.add(hits[hit] === index ? "now" : "hit");
    item.append(piece("i", "at", timeOf(line.at)), piece("i", "of", line.source.name), piece("b", "", line.text.slice(0, WIDEST)));
    return item;
  }
  const matches = (line) => line.text.toLowerCase().includes(search.value.toLowerCase());
  function scan() {
    if (!search.value) { hits_.textContent = ""; return; }
    const until = performance.now() + 8;
    while (scanned < lines.length && performance.now() < until) {
      const stop = Math.min(scanned + 2_000, lines.length);
      for (; scanned < stop; scanned++) {
        const line = lines[scanned];
        if ((!wanted || line.source.name === wanted) && matches(line)) hits.push(scanned);
      }
    }
    const more = scanned < lines.length ? "…" : "";
    hits_.textContent = hits.length ? `${hit + 1} of ${hits.length.toLocaleString()}${more}` : more || "no hit";
    if (more) soon();
  }
  function draw() {
    const before = hits.length;
    scan();
    if (hit < 0 && hits.length && search.value) jump(1);
    if (!dirty && hits.length === before) return;
    dirty = false;
    const count = shown ? shown.length : lines.length;
    space.style.height = `${count * ROW}px`;
    if (following.checked) view.scrollTop = count * ROW;
    const from = Math.max(0, Math.floor(view.scrollTop / ROW) - 10);
    const to = Math.min(count, from + Math.ceil(view.clientHeight / ROW) + 20);
    list.style.top = `${from * ROW}px`;
    const rows = [];
    for (let i = from; i < to; i++) rows.push(row(shown ? shown[i] : i));
    list.replaceChildren(...rows);
    section.dataset.lines = String(lines.length + dropped);
  }
  function jump(step) {
    if (!hits.length) return;
    hit = (hit + step + hits.length) % hits.length;
    following.checked = false;
    section.scrollIntoView({ block: "nearest" });
    const place = shown ? shown.indexOf(hits[hit]) : hits[hit];
    view.scrollTop = Math.max(0, place * ROW - view.clientHeight / 2);
    dirty = true;
    soon();
  }
  view.addEventListener("scroll", () => {
    dirty = true;
    soon();
  });
  // Only the reader's own way up ends following.
  view.addEventListener("wheel", (event) => { if (event.deltaY < 0) following.checked = false; }, { passive: true });
  view.addEventListener("keydown", (event) => {
    if (["ArrowUp", "PageUp", "Home"].includes(event.key)) following.checked = false;
    if (event.key === "End") following.checked = true;
  });
  new ResizeObserver(() => { dirty = true; soon(); }).observe(view);
  following.onchange = () => { dirty = true; soon(); };
  service.onchange = () => { choose(); restart(); soon(); };
  search.oninput = () => { restart(); dirty = true; soon(); };
  $("log-search").onsubmit = (event) => { event.preventDefault(); jump(1); };
  earlierButton.onclick = earlier;
  if (!main.dataset.events && attempt) ask().then((batch) => { if (batch) { take(batch); end(); soon(); } });
  return { take, end, draw, jump, focus: () => search.focus(), toggle: () => following.click(), lines: () => lines.length + dropped };
})();

// ---- links to steps: #/steps/PATH opens the step in the newest attempt that has it
function showStep() {
  const found = /^#\/steps\/(.+)$/.exec(location.hash);
  if (!found) return;
  let path = found[1];
  try { path = decodeURIComponent(path); } catch { /* not encoded */ }
  const step = all("details.step[data-path]").findLast((step) => step.dataset.path === path);
  if (!step) return;
  step.open = true;
  step.scrollIntoView({ block: "center" });
  step.firstElementChild.focus({ preventScroll: true });
}
addEventListener("hashchange", showStep);
showStep();

// ---- keys
const KEYS = [["← ↑ ↓ →", "move in the grid"], ["Enter", "open the cell"], ["n / N", "next / previous failing cell"], ["/", "search in the log"],
  ["f", "follow the log"], ["c", "go to the cancel button"], ["?", "this list"]];
function help() {
  let dialog = $("keys");
  if (!dialog) {
    dialog = Object.assign(document.createElement("dialog"), { id: "keys" });
    dialog.setAttribute("aria-label", "Keys");
    const entries = document.createElement("dl");
    for (const [key, what] of KEYS) {
      const name = document.createElement("dt");
      name.append(Object.assign(document.createElement("kbd"), { textContent: key }));
      entries.append(name, Object.assign(document.createElement("dd"), { textContent: what }));
    }
    const close = Object.assign(document.createElement("button"), { textContent: "Close", onclick: () => dialog.close() });
    dialog.append(entries, close);
    document.body.append(dialog);
  }
  dialog.showModal();
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = { n: () => failing(1), N: () => failing(-1), "/": () => log?.focus(), f: () => log?.toggle(),
    c: () => $("cancel")?.focus(), "?": help }[event.key];
  if (act) { event.preventDefault(); act(); }
});

connect();
})();
