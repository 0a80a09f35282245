"use strict";
// Logs of the report, in a worker: inflates blocks, merges the services' lines by time, and searches. The page asks with
// {id, ask, …} and gets {id, …}. Lines are addressed by their place in the merged order of the services that are shown.
const packed = new Map(); // key of a block -> base64
const opened = new Map(); // key -> {at, of, kinds, lines, order, shown, names, counts}

async function inflate(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function parse(text) {
  const end = text.indexOf("\n");
  const head = JSON.parse(end < 0 ? text : text.slice(0, end));
  const lines = end < 0 ? [] : text.slice(end + 1).split("\n");
  const at = new Float64Array(lines.length), of = new Uint16Array(lines.length);
  const kinds = head.services.map((service) => service.kinds).join("");
  const counts = head.services.map((service) => service.kinds.length);
  let line = 0;
  head.services.forEach((service, index) => {
    let time = service.start;
    for (const delta of service.kinds ? service.deltas.split(" ") : []) {
      time += parseInt(delta, 36);
      at[line] = time;
      of[line++] = index;
    }
  });
  return { at, of, kinds, lines, order: merge(at, counts), shown: null, names: head.services.map((service) => service.name), counts };
}

// The lines of each service are in the order of their times.
function merge(at, counts) {
  const order = new Uint32Array(at.length);
  const next = [], end = [];
  let from = 0;
  for (const count of counts) { next.push(from); from += count; end.push(from); }
  for (let i = 0; i < order.length; i++) {
    let best = -1;
    for (let s = 0; s < next.length; s++) {
      if (next[s] < end[s] && (best < 0 || at[next[s]] < at[next[best]])) best = s;
    }
    order[i] = next[best]++;
  }
  return order;
}

// A query in small letters matches letters of either case.
function matcher(query) {
  const small = query.toLowerCase();
  return small === query ? (line) => line.toLowerCase().includes(small) : (line) => line.includes(query);
}

function searchBlock(text, query) {
  const small = query.toLowerCase() === query;
  const start = text.indexOf("\n");
  const hay = small ? text.toLowerCase() : text;
  const samples = [];
  let count = 0;
  if (hay.length !== text.length) { // few letters change their length; their places are found line by line
    const hits = text.slice(start + 1).split("\n").filter(matcher(query));
    return { count: hits.length, samples: hits.slice(0, 3) };
  }
  for (let at = start < 0 ? -1 : hay.indexOf(query, start + 1); at >= 0;) {
    const from = text.lastIndexOf("\n", at) + 1;
    let to = text.indexOf("\n", at);
    if (to < 0) to = text.length;
    if (samples.length < 3) samples.push(text.slice(from, to));
    count++;
    at = hay.indexOf(query, to);
  }
  return { count, samples };
}

const answers = {
  keep: ({ blocks }) => { for (const [key, text] of blocks) packed.set(key, text); return {}; },
  async open({ key }) {
    if (!opened.has(key)) opened.set(key, parse(await inflate(packed.get(key))));
    const log = opened.get(key);
    log.shown = log.order;
    return { names: log.names, counts: log.counts, total: log.order.length };
  },
  show({ key, services }) {
    const log = opened.get(key);
    const wanted = new Set(services);
    log.shown = wanted.size === log.names.length ? log.order : log.order.filter((line) => wanted.has(log.of[line]));
    return { total: log.shown.length };
  },
  rows({ key, from, to }) {
    const log = opened.get(key);
    return { rows: Array.from(log.shown.slice(from, to), (line) => [log.at[line], log.names[log.of[line]], log.kinds[line], log.lines[line]]) };
  },
  find({ key, query }) {
    const log = opened.get(key), holds = matcher(query), hits = [];
    log.shown.forEach((line, index) => { if (holds(log.lines[line])) hits.push(index); });
    return { hits: Uint32Array.from(hits) };
  },
  place({ key, at }) {
    const log = opened.get(key);
    let low = 0, high = log.shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (log.at[log.shown[middle]] < at) low = middle + 1; else high = middle;
    }
    return { index: low };
  },
  async search({ query, id }) {
    let lines = 0, blocks = 0;
    for (const [key, text] of packed) {
      const found = searchBlock(await inflate(text), query);
      if (found.count) {
        lines += found.count;
        blocks++;
        postMessage({ id, part: { key, ...found } });
      }
    }
    return { lines, blocks };
  },
};

onmessage = async ({ data }) => {
  try {
    postMessage({ id: data.id, ...(await answers[data.ask](data)) });
  } catch (error) {
    postMessage({ id: data.id, error: String(error) });
  }
};
