"use strict";
(() => {
/* --------------------------------------------------------------------------
 * Data. Nothing here comes to the page but as text: see `element`.
 * ------------------------------------------------------------------------ */
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);

function decode(id, Type) {
  const text = atob($(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return new Type(bytes.buffer);
}

const N = data.ids.length;
const scores = decode("scores", data.dtype === "f4" ? Float32Array : Float64Array);
const videoScores = decode("video-scores", Float64Array);
const trueEvents = decode("true-events", Uint32Array); // first, last, first, last, ...
const starts = sums(data.n_snippets); // of each video, in `scores`
const trueStarts = sums(data.n_true || new Array(N).fill(0));
const frames = new Float64Array(scores.length); // of each snippet
const firsts = new Float64Array(scores.length); // its first frame
const anomalous = new Float64Array(scores.length); // its anomalous frames

function sums(lengths) {
  const ends = new Float64Array(lengths.length + 1);
  lengths.forEach((length, i) => { ends[i + 1] = ends[i] + length; });
  return ends;
}

const ofVideo = (value, v) => (Array.isArray(value) ? value[v] : value);
const isAnomalous = (v) => trueStarts[v + 1] > trueStarts[v];
const fpsOf = (v) => ofVideo(data.fps, v);
const IOU = 0.5; // not lower: see countEvents
const hasTruth = data.n_true !== null;
for (let v = 0; v < N; v++) placeSnippets(v);

/* The same arithmetic as sklearn_vad.timeline.snippet_bounds, also of fractions. */
function firstFrame(index, length) {
  let first = Math.ceil(index * length);
  if (Math.floor((first - 1) / length) >= index) first -= 1;
  if (Math.floor(first / length) < index) first += 1;
  return first;
}

function placeSnippets(v) {
  const length = ofVideo(data.snippet_length, v), n = data.n_frames[v];
  const begin = starts[v], end = starts[v + 1];
  for (let j = begin; j < end; j++) firsts[j] = Math.min(firstFrame(j - begin, length), n);
  let k = trueStarts[v];
  for (let j = begin; j < end; j++) {
    const last = j + 1 < end ? firsts[j + 1] : n;
    frames[j] = last - firsts[j];
    while (k < trueStarts[v + 1] && trueEvents[2 * k + 1] <= firsts[j]) k++;
    for (let e = k; e < trueStarts[v + 1] && trueEvents[2 * e] < last; e++) {
      anomalous[j] += Math.min(last, trueEvents[2 * e + 1]) - Math.max(firsts[j], trueEvents[2 * e]);
    }
  }
}

/* The snippet of a frame: the last one that begins at or before it. */
function snippetAt(v, frame) {
  let low = starts[v], high = starts[v + 1] - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (firsts[middle] <= frame) low = middle; else high = middle - 1;
  }
  while (low > starts[v] && frames[low] === 0) low--;
  return low;
}

/* --------------------------------------------------------------------------
 * Counting, as sklearn_vad.metrics and sklearn_vad.postprocessing count
 * ------------------------------------------------------------------------ */
/* numpy compares float32 scores with a threshold of the same precision. */
const limitOf = (threshold) => (data.dtype === "f4" ? Math.fround(threshold) : threshold);

/* As find_events: first, last (excluded) and highest score of each, flat. */
function findEvents(v, limit) {
  const found = [];
  for (let j = starts[v]; j < starts[v + 1]; j++) {
    if (!(scores[j] >= limit) || frames[j] === 0) continue;
    const n = found.length, gap = n ? firsts[j] - found[n - 2] : Infinity;
    if (gap === 0 || gap < data.merge_frames) {
      found[n - 2] = firsts[j] + frames[j];
      found[n - 1] = Math.max(found[n - 1], scores[j]);
    } else found.push(firsts[j], firsts[j] + frames[j], scores[j]);
  }
  if (data.min_frames <= 1) return found;
  const long = [];
  for (let i = 0; i < found.length; i += 3) {
    if (found[i + 1] - found[i] >= data.min_frames) long.push(found[i], found[i + 1], found[i + 2]);
  }
  return long;
}

/* Pairs of predicted and true events that share frames; both are in order of time. */
function overlaps(v, found) {
  const pairs = [], end = trueStarts[v + 1];
  let k = trueStarts[v];
  for (let i = 0; i < found.length; i += 3) {
    while (k < end && trueEvents[2 * k + 1] <= found[i]) k++;
    for (let e = k; e < end && trueEvents[2 * e] < found[i + 1]; e++) {
      const first = trueEvents[2 * e], last = trueEvents[2 * e + 1];
      const shared = Math.min(last, found[i + 1]) - Math.max(first, found[i]);
      const union = last - first + found[i + 1] - found[i] - shared;
      pairs.push({ event: i, truth: e, iou: shared / union });
    }
  }
  return pairs;
}

const nEvents = new Float64Array(N); // predicted, at the threshold
const wrong = new Float64Array(N); // share of frames on the wrong side of it

function recount(threshold) {
  const limit = limitOf(threshold);
  const c = { threshold, detected: 0, hits: 0, falseVideos: 0, above: 0, events: 0,
    quietAlarms: 0, framesAbove: 0, found: 0, matched: 0, falseEvents: 0 };
  for (let v = 0; v < N; v++) {
    const own = isAnomalous(v), detected = videoScores[v] > threshold;
    c.detected += detected;
    c.hits += detected && own;
    c.falseVideos += detected && !own;
    let alarms = 0, right = 0, totalAnomalous = 0;
    for (let j = starts[v]; j < starts[v + 1]; j++) {
      totalAnomalous += anomalous[j];
      if (!(scores[j] >= limit)) continue;
      c.above += 1;
      alarms += frames[j];
      right += anomalous[j];
    }
    c.framesAbove += alarms;
    if (!own) c.quietAlarms += alarms;
    wrong[v] = (alarms - right + totalAnomalous - right) / data.n_frames[v];
    nEvents[v] = alarms ? countEvents(v, limit, own, c) : 0;
  }
  return c;
}

function countEvents(v, limit, own, c) {
  const found = findEvents(v, limit), n = found.length / 3;
  c.events += n;
  const pairs = own ? overlaps(v, found) : [];
  c.falseEvents += n - new Set(pairs.map((pair) => pair.event)).size;
  c.found += new Set(pairs.map((pair) => pair.truth)).size;
  // From an IoU of 0.5 on, no event can match two: this is the number of true ones
  // in event_average_precision_score, whatever the order in which they are matched.
  c.matched += pairs.filter((pair) => pair.iou >= IOU).length;
  return n;
}

const total = { snippets: scores.length, frames: 0, anomalousFrames: 0, quiet: 0,
  anomalousVideos: 0, hours: 0, normalHours: 0, trueEvents: trueEvents.length / 2 };
for (let v = 0; v < N; v++) {
  let bad = 0;
  for (let j = starts[v]; j < starts[v + 1]; j++) bad += anomalous[j];
  total.frames += data.n_frames[v];
  total.anomalousFrames += bad;
  total.anomalousVideos += isAnomalous(v);
  if (!isAnomalous(v)) total.quiet += data.n_frames[v];
  const perHour = 3600 * (fpsOf(v) || NaN); // one video without fps: no hours at all
  total.hours += data.n_frames[v] / perHour;
  total.normalHours += (data.n_frames[v] - bad) / perHour;
}

/* --------------------------------------------------------------------------
 * Texts
 * ------------------------------------------------------------------------ */
const whole = new Intl.NumberFormat("en");
const count = (n, one, many = `${one}s`) => `${whole.format(n)} ${n === 1 ? one : many}`;
const share = (part, all) => {
  const percent = (100 * part) / all;
  return percent > 0 && percent < 0.095 ? `${percent.toPrecision(1)} %` : `${percent.toFixed(1)} %`;
};
const precise = (x) => (Math.abs(x) >= 100 ? x.toPrecision(5) : x.toFixed(3));

function clock(seconds, digits = 0) {
  const unit = 10 ** digits, all = Math.floor(seconds * unit + 1e-6) / unit;
  const s = (all % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  const m = Math.floor(all / 60) % 60, h = Math.floor(all / 3600);
  return h ? `${h}:${String(m).padStart(2, "0")}:${s}` : `${m}:${s}`;
}

const duration = (hours) => (hours >= 1 ? `${hours.toFixed(1)} h` : `${(60 * hours).toFixed(1)} min`);
const isolated = (text) => `\u2068${text}\u2069`; // a text in another direction turns no other
const categoriesOf = (v) => ((data.categories && data.categories[v]) || []).map(isolated);
const moment = (v, frame) => (fpsOf(v) ? clock(frame / fpsOf(v), 1) : whole.format(frame));

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("aria-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children); // strings become text nodes
  return made;
}

const STATES = { // of a video: class and word
  hit: "hit", missed: "missed", alarm: "false alarm", quiet: "normal", detected: "detected", none: "",
};
function stateOf(v) {
  const detected = videoScores[v] > counts.threshold;
  if (!hasTruth) return detected ? "detected" : "none";
  if (isAnomalous(v)) return detected ? "hit" : "missed";
  return detected ? "alarm" : "quiet";
}

/* --------------------------------------------------------------------------
 * Canvas
 * ------------------------------------------------------------------------ */
const colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["text", "muted", "line", "score", "alarm", "truth", "truth-pale", "panel"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

/* Fit a canvas to its size on the screen and return what to draw with. */
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

const [LOW, HIGH] = data.range; // of scores
const relative = (score) => (score - LOW) / (HIGH - LOW);

/* The highest score in each of `width` equal parts of a video's frames a to b. */
function profile(v, width, a = 0, b = data.n_frames[v]) {
  const highest = new Float64Array(width).fill(-Infinity);
  for (let j = snippetAt(v, a); j < starts[v + 1] && firsts[j] < b; j++) {
    if (frames[j] === 0) continue;
    const from = Math.max(0, Math.floor(((firsts[j] - a) / (b - a)) * width));
    const to = Math.min(width, Math.ceil(((firsts[j] + frames[j] - a) / (b - a)) * width));
    for (let x = from; x < to; x++) if (scores[j] > highest[x]) highest[x] = scores[j];
  }
  return highest;
}

const profiles = new Map(); // of rows: scrolling must not read scores again
function rowProfile(v, width) {
  const key = v * 4096 + width;
  if (!profiles.has(key)) {
    if (profiles.size > 500) profiles.clear();
    profiles.set(key, profile(v, width));
  }
  return profiles.get(key);
}

/* Bars of a video's scores, its true events below: in rows and as a map. */
function drawStrip(canvas, v) {
  const { context, width, height } = prepare(canvas);
  if (width < 2) return;
  const foot = hasTruth ? 4 : 0, limit = limitOf(counts.threshold);
  const highest = rowProfile(v, Math.floor(width)), top = height - foot;
  for (const [colour, above] of [["score", false], ["alarm", true]]) {
    context.fillStyle = colours[colour];
    context.beginPath();
    highest.forEach((score, x) => {
      if ((score >= limit) !== above) return;
      const size = Math.max(1, relative(score) * top);
      context.rect(x, top - size, 1, size);
    });
    context.fill();
  }
  context.fillStyle = colours.truth;
  for (let e = trueStarts[v]; e < trueStarts[v + 1]; e++) {
    const a = (trueEvents[2 * e] / data.n_frames[v]) * width;
    const b = (trueEvents[2 * e + 1] / data.n_frames[v]) * width;
    context.fillRect(a, height - 3, Math.max(b - a, 1), 3);
  }
}

const BINS = 100;
const bins = { normal: new Float64Array(BINS), anomalous: new Float64Array(BINS) };
for (let j = 0; j < scores.length; j++) {
  const bin = Math.min(BINS - 1, Math.floor(relative(scores[j]) * BINS));
  bins.anomalous[bin] += anomalous[j];
  bins.normal[bin] += frames[j] - anomalous[j];
}

/* Heights are roots, or the many low scores would hide the few high ones; each class
 * has a scale of its own. Normal frames stand above the axis, anomalous ones below. */
function drawHistogram() {
  const { context, width, height } = prepare($("histogram"));
  const scale = (own) => Math.sqrt(Math.max(...own, 1));
  const most = scale(bins.normal), mostAnomalous = scale(bins.anomalous);
  const axis = hasTruth ? Math.round(height / 2) : height, w = width / BINS;
  for (let i = 0; i < BINS; i++) {
    context.globalAlpha = (i + 1) / BINS > relative(counts.threshold) ? 1 : 0.4;
    const up = (Math.sqrt(bins.normal[i]) / most) * (axis - 1);
    context.fillStyle = colours.score;
    context.fillRect(i * w, axis - up, Math.max(w - 1, 0.5), up);
    const down = (Math.sqrt(bins.anomalous[i]) / mostAnomalous) * (height - axis - 1);
    context.fillStyle = colours.truth;
    context.fillRect(i * w, axis + 1, Math.max(w - 1, 0.5), down);
  }
  context.globalAlpha = 1;
  context.fillStyle = colours.text;
  context.fillRect(Math.min(relative(counts.threshold) * width, width - 1) - 0.5, 0, 1, height);
}

/* --------------------------------------------------------------------------
 * Counts
 * ------------------------------------------------------------------------ */
const rate = (c) => (total.quiet ? c.quietAlarms / total.quiet : null);
const outOf = (part, all) => `${whole.format(part)} / ${whole.format(all)}`;
const ofAll = (c) => `${share(c.above, total.snippets)} of all`;
const hourly = (n, hours, of) => (
  hours > 0 ? `${(n / hours).toFixed(n / hours < 10 ? 2 : 1)} per hour of ${of}` : null
);
const normalVideos = N - total.anomalousVideos;
const iouText = `IoU ≥ ${IOU}`;
const TILES = hasTruth ? [ // id, label, value, text, note
  ["hits", "Anomalous detected", (c) => c.hits,
    (c) => outOf(c.hits, total.anomalousVideos),
    (c) => `videos; ${whole.format(total.anomalousVideos - c.hits)} missed`],
  ["false-videos", "Normal detected", (c) => c.falseVideos,
    (c) => outOf(c.falseVideos, normalVideos), () => "videos; false alarms"],
  ["false-alarm-rate", "False-alarm rate", rate,
    (c) => (rate(c) === null ? "–" : share(c.quietAlarms, total.quiet)),
    () => "of normal videos' frames"],
  ["found", "True events found", (c) => c.found,
    (c) => outOf(c.found, total.trueEvents), (c) => `${whole.format(c.matched)} at ${iouText}`],
  ["false-events", "False events", (c) => c.falseEvents, (c) => outOf(c.falseEvents, c.events),
    (c) => hourly(c.falseEvents, total.normalHours, "normal video") || "without an anomalous frame"],
  ["above", "Snippets above", (c) => c.above, (c) => whole.format(c.above), ofAll],
] : [
  ["detected", "Videos detected", (c) => c.detected,
    (c) => outOf(c.detected, N), (c) => share(c.detected, N)],
  ["events", "Events", (c) => c.events, (c) => whole.format(c.events),
    (c) => hourly(c.events, total.hours, "video") || "predicted, in all videos"],
  ["frames", "Frames above", (c) => c.framesAbove,
    (c) => share(c.framesAbove, total.frames), (c) => count(c.framesAbove, "frame")],
  ["above", "Snippets above", (c) => c.above, (c) => whole.format(c.above), ofAll],
];
const tiles = TILES.map(([id, label, value, text, note]) => {
  const number = element("data", { id: `count-${id}` });
  const small = element("span", { class: "note" });
  $("counts").append(element("div", {}, element("dt", {}, label), element("dd", {}, number, small)));
  return { number, small, value, text, note };
});

function showCounts() {
  for (const tile of tiles) {
    const value = tile.value(counts);
    tile.number.value = value === null ? "" : String(value);
    tile.number.textContent = tile.text(counts);
    tile.small.textContent = tile.note(counts);
  }
  if (hasTruth) $("count-found").dataset.matched = counts.matched;
  if (hasTruth) $("count-false-events").dataset.events = counts.events;
}

/* --------------------------------------------------------------------------
 * List: filter, order, and only the rows that are in sight
 * ------------------------------------------------------------------------ */
const KINDS = {
  all: ["All", () => true, () => N],
  anomalous: ["Anomalous", isAnomalous, () => total.anomalousVideos],
  normal: ["Normal", (v) => !isAnomalous(v), () => N - total.anomalousVideos],
  detected: ["Detected", (v) => videoScores[v] > counts.threshold, () => counts.detected],
  missed: ["Missed", (v) => stateOf(v) === "missed", () => total.anomalousVideos - counts.hits],
  alarm: ["False alarms", (v) => stateOf(v) === "alarm", () => counts.falseVideos],
  quiet: ["Not detected", (v) => videoScores[v] <= counts.threshold, () => N - counts.detected],
};
const shownKinds = hasTruth
  ? ["all", "anomalous", "normal", "detected", "missed", "alarm"] : ["all", "detected", "quiet"];

const byScore = data.ids.map((_, v) => v);
byScore.sort((a, b) => videoScores[b] - videoScores[a] || a - b);
const ranks = new Float64Array(N);
byScore.forEach((v, i) => { ranks[v] = i; });
const collator = new Intl.Collator("en", { numeric: true });
let idOrder = null; // place of each id in the alphabet, when first asked for
function placeOfId(v) {
  if (idOrder === null) {
    idOrder = new Float64Array(N);
    [...byScore].sort((a, b) => collator.compare(data.ids[a], data.ids[b]) || a - b)
      .forEach((w, i) => { idOrder[w] = i; });
  }
  return idOrder[v];
}
const SORTS = { // name, key, whether the highest comes first
  score: ["score", (v) => videoScores[v], true],
  id: ["id", placeOfId, false],
  length: ["length", (v) => data.n_frames[v], true],
  events: ["events", (v) => nEvents[v], true],
  ...(hasTruth && {
    auc: ["AUC within", (v) => data.auc[v], false],
    wrong: ["wrong frames", (v) => wrong[v], true],
  }),
};

const namesOf = (v) => [data.ids[v], ...((data.categories && data.categories[v]) || [])];
const haystack = data.ids.map((_, v) => namesOf(v).join("\n").toLowerCase());
const state = {
  kind: "all", words: [], sort: "score", down: true, // of the list
  video: byScore[0], a: 0, b: 1, frame: 0, hover: null, // frames a to b are in sight
};
let counts = recount(data.threshold);
let items = byScore;

function arrange() {
  const fits = KINDS[state.kind][1], key = SORTS[state.sort][1], sign = state.down ? -1 : 1;
  const hasWords = (v) => state.words.every((word) => haystack[v].includes(word));
  const kept = byScore.filter((v) => fits(v) && hasWords(v));
  const keys = new Map(kept.map((v) => [v, key(v)]));
  items = kept.sort((a, b) => {
    const x = keys.get(a), y = keys.get(b);
    if (x === null || y === null) return (x === null) - (y === null) || ranks[a] - ranks[b];
    return sign * (x - y) || ranks[a] - ranks[b];
  });
}

let rowHeight = 56;
const rows = [];
function makeRow() {
  const row = { rank: element("span", { class: "rank" }), id: element("bdi", { class: "id" }),
    facts: element("span", { class: "facts" }), strip: element("canvas", { class: "strip" }),
    score: element("span", { class: "score" }), state: element("span", { class: "state" }) };
  row.node = element("div", { class: "row", role: "option" }, row.rank,
    element("span", { class: "what" }, row.id, row.facts), row.strip,
    element("span", { class: "verdict" }, row.score, row.state));
  $("spacer").append(row.node);
  rows.push(row);
}

function factsOf(v) {
  const length = fpsOf(v) ? clock(data.n_frames[v] / fpsOf(v)) : `${whole.format(data.n_frames[v])} fr`;
  const facts = [length, count(nEvents[v], "event")];
  if (state.sort === "wrong") facts.unshift(`${share(wrong[v], 1)} wrong`);
  else if (hasTruth && data.auc[v] !== null) facts.push(`AUC ${data.auc[v].toFixed(2)}`);
  return [...facts, ...categoriesOf(v)].join(" · ");
}

function fillRow(row, index) {
  const v = items[index], verdict = stateOf(v);
  row.node.hidden = v === undefined;
  row.node.removeAttribute("id");
  if (v === undefined) return;
  row.node.id = `video-${v}`;
  row.node.dataset.index = index;
  row.node.style.transform = `translateY(${index * rowHeight}px)`;
  row.rank.textContent = whole.format(ranks[v] + 1);
  row.id.textContent = row.id.title = data.ids[v];
  row.facts.textContent = row.facts.title = factsOf(v);
  row.score.textContent = precise(videoScores[v]);
  row.state.textContent = STATES[verdict];
  row.state.dataset.state = verdict;
  row.node.setAttribute("aria-selected", v === state.video);
  row.node.setAttribute("aria-posinset", index + 1);
  row.node.setAttribute("aria-setsize", items.length);
  const spoken = [isolated(data.ids[v]), `rank ${ranks[v] + 1}`, `score ${precise(videoScores[v])}`];
  row.node.setAttribute("aria-label", [...spoken, STATES[verdict], factsOf(v)].join(", "));
  drawStrip(row.strip, v);
}

function showRows() {
  const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / rowHeight) - 1);
  const needed = Math.ceil(list.clientHeight / rowHeight) + 3;
  while (rows.length < needed) makeRow();
  rows.forEach((row, i) => (i < needed ? fillRow(row, first + i) : fillRow(row, N)));
  if ($(`video-${state.video}`)) list.setAttribute("aria-activedescendant", `video-${state.video}`);
  else list.removeAttribute("aria-activedescendant");
}

function showList() {
  arrange();
  $("spacer").style.height = `${items.length * rowHeight}px`;
  const some = items.length < N ? `${whole.format(items.length)} of ` : "";
  $("shown").textContent = some + count(N, "video");
  for (const kind of shownKinds) {
    const [label, , number] = KINDS[kind], button = $(`kind-${kind}`);
    button.replaceChildren(label, element("span", { class: "number" }, whole.format(number())));
    button.setAttribute("aria-pressed", state.kind === kind);
  }
  $("direction").textContent = state.down ? "↓" : "↑";
  $("direction").setAttribute("aria-label", `${state.down ? "Highest" : "Lowest"} first; turn round`);
  showRows();
}

function reveal(index) {
  if (index < 0) return;
  const list = $("list"), top = index * rowHeight, highest = top + rowHeight - list.clientHeight;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (list.scrollTop < highest) list.scrollTop = highest;
}

function select(v) {
  if (v === undefined) return;
  state.video = v;
  Object.assign(state, { a: 0, b: data.n_frames[v], frame: 0, hover: null });
  reveal(items.indexOf(v));
  showRows();
  showMedia();
  showDetail();
}

function step(by) {
  const index = items.indexOf(state.video);
  if (index < 0) select(items[0]);
  else select(items[Math.max(0, Math.min(items.length - 1, index + by))]);
}

/* --------------------------------------------------------------------------
 * Timeline
 * ------------------------------------------------------------------------ */
const box = { left: 40, right: 12, top: 14, bottom: 12 };
const canvas = $("timeline");
const plotWidth = () => Math.max(10, canvas.clientWidth - box.left - box.right);
const toX = (frame) => box.left + ((frame - state.a) / (state.b - state.a)) * plotWidth();
const toFrame = (x) => state.a + ((x - box.left) / plotWidth()) * (state.b - state.a);

function niceStep(least, steps) {
  const known = steps.find((candidate) => candidate >= least);
  if (known) return known;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((n) => n * power).find((candidate) => candidate >= least);
}

function drawAxis(context, y, perUnit, steps, label, unit) {
  const n = Math.max(2, Math.floor(plotWidth() / 85));
  const a = state.a / perUnit, b = state.b / perUnit, gap = niceStep((b - a) / n, steps);
  context.fillStyle = colours.muted;
  context.textAlign = "right";
  context.fillText(unit, box.left - 6, y);
  for (let i = Math.ceil(a / gap); i * gap <= b; i++) {
    const x = toX(i * gap * perUnit), text = label(i * gap, gap);
    const half = context.measureText(text).width / 2;
    context.textAlign = "center";
    if (x - half < box.left) context.textAlign = "left";
    else if (x + half > canvas.clientWidth) context.textAlign = "right";
    context.fillText(text, x, y);
  }
}

const SECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600];
function drawTimeline() {
  const v = state.video, fps = fpsOf(v), { context, width, height } = prepare(canvas);
  const axes = fps ? 34 : 19, foot = height - axes - (hasTruth ? box.bottom : 4);
  const toY = (score) => box.top + (1 - relative(score)) * (foot - box.top);
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "middle";
  context.save();
  context.beginPath();
  context.rect(box.left, 0, plotWidth(), height);
  context.clip();
  drawTruth(context, v, foot);
  drawFound(context, v);
  drawScores(context, v, toY, foot);
  context.restore();
  drawFrame(context, toY, width, foot);
  drawAxis(context, height - axes + 10, 1, [1, 2, 5], (x) => whole.format(x), "frame");
  if (fps) {
    drawAxis(context, height - 9, fps, SECONDS, (x, gap) => clock(x, gap < 1 ? 1 : 0), "time");
  }
  drawCursor(context, v, toY, foot);
  drawMap(v);
}

function drawTruth(context, v, foot) {
  for (let e = trueStarts[v]; e < trueStarts[v + 1]; e++) {
    const a = toX(trueEvents[2 * e]), w = Math.max(1, toX(trueEvents[2 * e + 1]) - a);
    context.fillStyle = colours["truth-pale"];
    context.fillRect(a, box.top, w, foot - box.top);
    context.fillStyle = colours.truth;
    context.fillRect(a, foot + 3, w, 5);
  }
}

let found = []; // predicted events of the video shown
function drawFound(context) {
  context.fillStyle = colours.alarm;
  for (let i = 0; i < found.length; i += 3) {
    const a = toX(found[i]);
    context.fillRect(a, 4, Math.max(1.5, toX(found[i + 1]) - a), 5);
  }
}

/* Snippets as steps; where a pixel holds many, the highest of them. */
function drawScores(context, v, toY, foot) {
  const bars = [], last = Math.min(data.n_frames[v], Math.ceil(state.b));
  const from = snippetAt(v, Math.floor(state.a)), to = snippetAt(v, last - 1);
  if (to - from < 2 * plotWidth()) {
    for (let j = from; j <= to; j++) {
      if (frames[j]) bars.push([toX(firsts[j]), toX(firsts[j] + frames[j]), scores[j]]);
    }
  } else {
    const highest = profile(v, Math.floor(plotWidth()), state.a, state.b);
    highest.forEach((score, x) => bars.push([box.left + x, box.left + x + 1, score]));
  }
  const limit = limitOf(counts.threshold);
  for (const [colour, above] of [["score", false], ["alarm", true]]) {
    context.fillStyle = colours[colour];
    context.globalAlpha = 0.28;
    context.beginPath();
    for (const [a, b, score] of bars) {
      if ((score >= limit) === above) context.rect(a, toY(score), b - a, foot - toY(score));
    }
    context.fill();
    context.globalAlpha = 1;
  }
  context.strokeStyle = colours.score;
  context.lineWidth = 1.6;
  context.lineJoin = "round";
  context.beginPath();
  bars.forEach(([a, b, score], i) => {
    if (i === 0) context.moveTo(a, toY(score)); else context.lineTo(a, toY(score));
    context.lineTo(b, toY(score));
  });
  context.stroke();
}

function drawFrame(context, toY, width, foot) {
  context.fillStyle = colours.line;
  context.fillRect(box.left, foot, plotWidth(), 1);
  context.textAlign = "right";
  context.fillStyle = colours.muted;
  for (const score of [LOW, (LOW + HIGH) / 2, HIGH]) {
    context.fillText(String(Number(score.toPrecision(3))), box.left - 6, toY(score));
  }
  context.strokeStyle = colours.text;
  context.lineWidth = 1;
  context.setLineDash([5, 4]);
  context.beginPath();
  const y = Math.round(toY(counts.threshold)) + 0.5;
  context.moveTo(box.left, y);
  context.lineTo(width - box.right, y);
  context.stroke();
  context.setLineDash([]);
}

function drawCursor(context, v, toY, foot) {
  for (const [frame, alpha] of [[state.hover, 0.45], [state.frame, 1]]) {
    if (frame === null || frame < state.a || frame > state.b) continue;
    const x = toX(frame);
    context.globalAlpha = alpha;
    context.fillStyle = colours.text;
    context.fillRect(x - 0.75, box.top - 10, 1.5, foot - box.top + 18);
    context.beginPath();
    context.arc(x, toY(scores[snippetAt(v, frame)]), 3.5, 0, 7);
    context.fill();
    context.globalAlpha = 1;
  }
}

function drawMap(v) {
  const map = $("map");
  map.hidden = state.b - state.a >= data.n_frames[v];
  if (map.hidden) return;
  drawStrip(map, v);
  const context = map.getContext("2d"), scale = map.clientWidth / data.n_frames[v];
  const a = state.a * scale, b = Math.max(state.b * scale, a + 3), height = map.clientHeight;
  context.fillStyle = colours.panel;
  context.globalAlpha = 0.7;
  context.fillRect(0, 0, a, height);
  context.fillRect(b, 0, map.clientWidth - b, height);
  context.globalAlpha = 1;
  context.strokeStyle = colours.text;
  context.strokeRect(a + 0.5, 0.5, b - a - 1, height - 1);
}

function tell(frame) {
  const v = state.video, fps = fpsOf(v), j = snippetAt(v, frame);
  const parts = [`frame ${whole.format(frame)}`];
  if (fps) parts.push(clock(frame / fps, 1));
  parts.push(`score ${precise(scores[j])}`);
  if (hasTruth) parts.push(isTrue(v, frame) ? "anomalous" : "normal");
  return parts.join(" · ");
}

function isTrue(v, frame) {
  for (let e = trueStarts[v]; e < trueStarts[v + 1]; e++) {
    if (trueEvents[2 * e] <= frame && frame < trueEvents[2 * e + 1]) return true;
  }
  return false;
}

function showPosition() {
  const text = tell(state.frame);
  $("readout").textContent = tell(state.hover === null ? state.frame : state.hover);
  canvas.setAttribute("aria-valuemax", data.n_frames[state.video] - 1);
  canvas.setAttribute("aria-valuenow", state.frame);
  canvas.setAttribute("aria-valuetext", text);
  drawTimeline();
  markPicture();
}

/* Show the frames a to b; neither more than the video nor less than two snippets. */
function view(a, b) {
  const n = data.n_frames[state.video], width = widthInSight(b - a);
  state.a = Math.max(0, Math.min(n - width, (a + b - width) / 2));
  state.b = state.a + width;
  drawTimeline();
}

function widthInSight(width) {
  const n = data.n_frames[state.video], two = 2 * ofVideo(data.snippet_length, state.video);
  return Math.min(n, Math.max(width, Math.min(two, 60)));
}

/* What is at `around` stays where it is. */
function zoom(factor, around = state.frame) {
  const centre = Math.max(state.a, Math.min(state.b, around));
  const real = widthInSight((state.b - state.a) * factor) / (state.b - state.a);
  view(centre - (centre - state.a) * real, centre + (state.b - centre) * real);
}

function seek(frame, fromVideo = false) {
  const n = data.n_frames[state.video];
  state.frame = Math.max(0, Math.min(n - 1, Math.floor(frame)));
  state.hover = null;
  const width = state.b - state.a;
  if (state.frame < state.a || state.frame >= state.b) {
    view(state.frame - width / 2, state.frame + width / 2);
  }
  if (!fromVideo) seekVideo();
  showPosition();
}

function seekSnippets(by) {
  const v = state.video;
  let j = snippetAt(v, state.frame) + by;
  j = Math.max(starts[v], Math.min(starts[v + 1] - 1, j));
  seek(firsts[j]);
}

function seekEvent(forward) {
  const begins = found.filter((_, i) => i % 3 === 0);
  const next = forward ? begins.find((f) => f > state.frame) : begins.findLast((f) => f < state.frame);
  if (next !== undefined) seek(next);
}

/* Pointers: a click seeks, a drag moves what is in sight, two fingers zoom. */
const pointers = new Map();
let drag = null;
const place = (event) => event.clientX - canvas.getBoundingClientRect().left;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place(event));
  drag = { x: place(event), a: state.a, b: state.b, moved: pointers.size > 1 };
  if (pointers.size === 2) drag.frames = [...pointers.values()].map(toFrame);
});
canvas.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) {
    if (event.pointerType === "mouse") hover(toFrame(place(event)));
    return;
  }
  pointers.set(event.pointerId, place(event));
  if (pointers.size === 2 && drag.frames) pinch(...pointers.values());
  else if (drag.moved || Math.abs(place(event) - drag.x) > 4) {
    drag.moved = true;
    const by = ((drag.x - place(event)) / plotWidth()) * (drag.b - drag.a);
    view(drag.a + by, drag.b + by);
  }
});
function pinch(x, y) {
  const [f, g] = drag.frames;
  if (Math.abs(x - y) < 10) return;
  const perPixel = (g - f) / (y - x);
  if (perPixel > 0) view(f - (x - box.left) * perPixel, f + (plotWidth() + box.left - x) * perPixel);
}
function lift(event) {
  if (!pointers.delete(event.pointerId)) return;
  if (event.type === "pointerup" && !drag.moved) seek(toFrame(place(event)));
  if (pointers.size === 1) drag = { x: [...pointers.values()][0], a: state.a, b: state.b, moved: true };
}
canvas.addEventListener("pointerup", lift);
canvas.addEventListener("pointercancel", lift);
canvas.addEventListener("pointerleave", () => { state.hover = null; showPosition(); });
canvas.addEventListener("dblclick", () => view(0, data.n_frames[state.video]));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const sideways = event.shiftKey ? event.deltaY : event.deltaX;
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    const by = (sideways / plotWidth()) * (state.b - state.a);
    view(state.a + by, state.b + by);
  } else zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.005), toFrame(place(event)));
}, { passive: false });

function hover(frame) {
  const inside = frame >= state.a && frame < Math.min(state.b, data.n_frames[state.video]);
  state.hover = inside ? Math.floor(frame) : null;
  showPosition();
}

function moveByMap(event) {
  if (event.buttons !== 1) return;
  const map = $("map"), width = state.b - state.a;
  const x = event.clientX - map.getBoundingClientRect().left;
  const middle = (x / map.clientWidth) * data.n_frames[state.video];
  view(middle - width / 2, middle + width / 2);
}
$("map").addEventListener("pointerdown", (event) => {
  $("map").setPointerCapture(event.pointerId);
  moveByMap(event);
});
$("map").addEventListener("pointermove", moveByMap);

/* --------------------------------------------------------------------------
 * Detail: facts, pictures, events
 * ------------------------------------------------------------------------ */
let video = null;
let pictures = [];

function secondsOf(frame) {
  const v = state.video, fps = fpsOf(v);
  if (fps) return (frame + 0.5) / fps; // the middle of it: at its edge, the one before shows
  return video.duration > 0 ? ((frame + 0.5) / data.n_frames[v]) * video.duration : null;
}

function seekVideo() {
  if (!video) return;
  const seconds = secondsOf(state.frame);
  if (seconds === null) { // its length is not known yet
    video.addEventListener("loadedmetadata", seekVideo, { once: true });
  } else video.currentTime = seconds;
}

function followVideo(own) {
  if (own !== video || own.paused) return; // another one, meanwhile
  const v = state.video, perSecond = fpsOf(v) || data.n_frames[v] / own.duration;
  if (perSecond > 0) seek(own.currentTime * perSecond, true);
  requestAnimationFrame(() => followVideo(own));
}

function showMedia() {
  const media = data.media && data.media[state.video], place = $("media");
  if (video) video.pause();
  video = null;
  pictures = [];
  place.replaceChildren();
  if (!media) return;
  if (media.video) {
    const note = element("p", { class: "note", role: "status" });
    video = element("video", {
      controls: true, preload: "metadata", playsInline: true, muted: true, src: media.video,
    });
    video.setAttribute("aria-label", `Video ${data.ids[state.video]}`);
    const own = video;
    video.addEventListener("play", () => followVideo(own));
    video.addEventListener("error", () => {
      note.textContent = `This browser can't play ${media.video}`;
    });
    place.append(video, note);
  }
  if (media.images.length) place.append(showPictures(media.images));
}

/* Pictures are taken as evenly spread over the video. */
function showPictures(images) {
  const n = data.n_frames[state.video];
  pictures = images.map((source, i) => {
    const frame = Math.floor((i * n) / images.length), at = moment(state.video, frame);
    const image = element("img", { loading: "lazy", alt: "", src: source });
    const about = { type: "button", class: "picture", "aria-label": `Go to ${at}` };
    const button = element("button", about, image, element("span", {}, at));
    button.addEventListener("click", () => seek(frame));
    return { button, frame };
  });
  const about = { class: "pictures", role: "group", "aria-label": "Pictures of the video" };
  return element("div", about, ...pictures.map((picture) => picture.button));
}

function markPicture() {
  const now = pictures.findLast((picture) => picture.frame <= state.frame);
  for (const picture of pictures) {
    const current = picture === now;
    if (picture.current === current) continue;
    picture.current = current;
    picture.button.setAttribute("aria-current", current);
    const strip = picture.button.parentNode; // scrollIntoView would move the page too
    if (!current || !strip) continue;
    strip.scrollLeft = picture.button.offsetLeft - (strip.clientWidth - picture.button.clientWidth) / 2;
    strip.scrollTop = picture.button.offsetTop - (strip.clientHeight - picture.button.clientHeight) / 2;
  }
}

const MOST_EVENTS = 60;
const small = (text) => element("span", { class: "note" }, text);
function eventButtons(title, events, kind) {
  const line = element("div", { class: "events", role: "group", "aria-label": title });
  line.append(element("h3", {}, `${title}: ${whole.format(events.length)}`));
  for (const { first, last, note, good } of events.slice(0, MOST_EVENTS)) {
    const text = `${moment(state.video, first)} – ${moment(state.video, last)}`;
    const button = element("button", { type: "button", class: `event ${kind}` }, text, small(note));
    if (hasTruth) button.dataset.good = good;
    button.addEventListener("click", () => seek(first));
    line.append(button);
  }
  const rest = events.length - MOST_EVENTS;
  if (rest > 0) line.append(small(`and ${whole.format(rest)} more`));
  return line;
}

function showEvents() {
  const v = state.video, pairs = overlaps(v, found), predicted = [], truth = [];
  const right = new Set(pairs.map((pair) => pair.event));
  const met = new Set(pairs.map((pair) => pair.truth));
  for (let i = 0; i < found.length; i += 3) {
    const good = right.has(i), verdict = good ? " · hit" : " · false";
    const note = precise(found[i + 2]) + (hasTruth ? verdict : "");
    predicted.push({ first: found[i], last: found[i + 1], note, good });
  }
  for (let e = trueStarts[v]; e < trueStarts[v + 1]; e++) {
    const good = met.has(e), note = good ? "found" : "missed";
    truth.push({ first: trueEvents[2 * e], last: trueEvents[2 * e + 1], note, good });
  }
  const lines = [eventButtons("Predicted events", predicted, "predicted")];
  if (hasTruth) lines.push(eventButtons("True events", truth, "true"));
  $("events").replaceChildren(...lines);
}

function showDetail() {
  const v = state.video, verdict = stateOf(v), length = ofVideo(data.snippet_length, v);
  found = findEvents(v, limitOf(counts.threshold));
  $("name").textContent = data.ids[v];
  $("state").textContent = STATES[verdict];
  $("state").dataset.state = verdict;
  const facts = [...categoriesOf(v), `score ${precise(videoScores[v])}`];
  facts.push(`rank ${whole.format(ranks[v] + 1)} of ${whole.format(N)}`);
  facts.push(count(data.n_frames[v], "frame"));
  if (fpsOf(v)) facts.push(clock(data.n_frames[v] / fpsOf(v)));
  facts.push(`${count(data.n_snippets[v], "snippet")} of ${Number(length.toFixed(2))} frames`);
  if (hasTruth && data.auc[v] !== null) facts.push(`AUC within ${data.auc[v].toFixed(3)}`);
  if (hasTruth) facts.push(`${share(wrong[v], 1)} of frames wrong`);
  $("facts").textContent = facts.join(" · ");
  showEvents();
  showPosition();
}

/* --------------------------------------------------------------------------
 * Controls
 * ------------------------------------------------------------------------ */
function setThreshold(value) {
  if (!Number.isFinite(value)) return;
  counts = recount(value);
  $("threshold").value = value;
  const number = $("threshold-number");
  if (document.activeElement !== number) number.value = Number(value.toPrecision(6));
  $("threshold").setAttribute("aria-valuetext", String(Number(value.toPrecision(4))));
  $("threshold-reset").disabled = value === data.threshold;
  showCounts();
  drawHistogram();
  showList();
  showDetail();
}

const roundThreshold = (value) => {
  const unit = 10 ** Math.floor(Math.log10((HIGH - LOW) / 500));
  return Number((Math.round(value / unit) * unit).toPrecision(12));
};
$("threshold").min = LOW;
$("threshold").max = HIGH;
$("threshold").addEventListener("input", (event) => {
  setThreshold(roundThreshold(Number(event.target.value)));
});
$("threshold-number").addEventListener("input", (event) => {
  if (event.target.value !== "") setThreshold(Number(event.target.value));
});
$("threshold-number").addEventListener("change", (event) => {
  event.target.value = Number(counts.threshold.toPrecision(6));
});
$("threshold-reset").textContent = `Back to ${Number(data.threshold.toPrecision(4))}`;
$("threshold-reset").addEventListener("click", () => setThreshold(data.threshold));

function showFromTop() {
  $("list").scrollTop = 0;
  showList();
}
for (const kind of shownKinds) {
  const button = element("button", { type: "button", id: `kind-${kind}` });
  button.addEventListener("click", () => { state.kind = kind; showFromTop(); });
  $("kinds").append(button);
}
for (const [value, [label]] of Object.entries(SORTS)) {
  $("sort").append(element("option", { value }, label));
}
$("sort").addEventListener("change", (event) => {
  state.sort = event.target.value;
  state.down = SORTS[state.sort][2];
  showFromTop();
});
$("direction").addEventListener("click", () => { state.down = !state.down; showFromTop(); });
$("filter").addEventListener("input", (event) => {
  state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  showFromTop();
});
let waiting = false;
$("list").addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; showRows(); });
});
$("list").addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (!row) return;
  select(items[Number(row.dataset.index)]);
  if (window.innerWidth < 800) $("detail").scrollIntoView({ block: "nearest" });
});
$("zoom-in").addEventListener("click", () => zoom(0.5));
$("zoom-out").addEventListener("click", () => zoom(2));
$("zoom-all").addEventListener("click", () => view(0, data.n_frames[state.video]));

const system = window.matchMedia("(prefers-color-scheme: dark)");
function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").setAttribute("aria-pressed", dark);
  $("theme").setAttribute("aria-label", "Dark theme");
  readColours();
}
const isDark = () => document.documentElement.dataset.theme === "dark";
function redraw() { drawHistogram(); showRows(); drawTimeline(); }
function changeTheme(dark) { setTheme(dark); redraw(); }
$("theme").addEventListener("click", () => changeTheme(!isDark()));
system.addEventListener("change", (event) => changeTheme(event.matches));

/* --------------------------------------------------------------------------
 * Keys
 * ------------------------------------------------------------------------ */
const nudge = (by) => {
  const value = counts.threshold + (by * (HIGH - LOW)) / 100;
  setThreshold(roundThreshold(Math.max(LOW, Math.min(HIGH, value))));
};
const openHelp = () => { if (!$("help").open) $("help").showModal(); };
const play = () => video && (video.paused ? video.play().catch(() => {}) : video.pause());
const KEYS = [ // keys, what they do, for the help
  [["ArrowUp", "k"], () => step(-1), "↑ ↓", "previous, next video"],
  [["ArrowDown", "j"], () => step(1)],
  [["PageUp"], () => step(-10), "Page ↑ ↓", "ten videos on"],
  [["PageDown"], () => step(10)],
  [["Home"], () => select(items[0]), "Home End", "first, last video"],
  [["End"], () => select(items[items.length - 1])],
  [["ArrowLeft"], (e) => seekSnippets(e.shiftKey ? -10 : -1), "← →", "one snippet back, on; ten with Shift"],
  [["ArrowRight"], (e) => seekSnippets(e.shiftKey ? 10 : 1)],
  [["p"], () => seekEvent(false), "p n", "previous, next predicted event"],
  [["n"], () => seekEvent(true)],
  [["+", "="], () => zoom(0.5), "+ −", "zoom in, out; also the wheel, or two fingers"],
  [["-", "_"], () => zoom(2)],
  [["0"], () => view(0, data.n_frames[state.video]), "0", "whole video; also a double click"],
  [[","], () => nudge(-1), ", .", "lower, raise the threshold"],
  [["."], () => nudge(1)],
  [[" "], play, "Space", "play or pause the video"],
  [["/"], () => { $("filter").focus(); $("filter").select(); }, "/", "filter; Esc leaves it"],
  [["t"], () => changeTheme(!isDark()), "t", "light or dark"],
  [["?"], openHelp, "?", "this help"],
];

function leaveFilter() {
  $("filter").value = "";
  state.words = [];
  showList();
  reveal(items.indexOf(state.video));
}

const MOVES = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "PageUp", "PageDown", "Home", "End"];
function onKey(event) {
  const target = event.target, tag = target.tagName;
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (target === $("filter")) {
    if (event.key === "Escape") leaveFilter();
    if (!["Escape", "Enter", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    $("list").focus();
    return;
  }
  if (tag === "SELECT" || tag === "VIDEO" || target.type === "number") return;
  if (target === $("threshold") && MOVES.includes(event.key)) return;
  if (tag === "BUTTON" && event.key === " ") return;
  if (target === canvas && event.key === "Home") { event.preventDefault(); return void seek(0); }
  if (target === canvas && event.key === "End") { event.preventDefault(); return void seek(Infinity); }
  const entry = KEYS.find(([keys]) => keys.includes(event.key));
  if (!entry) return;
  event.preventDefault();
  entry[1](event);
}
document.addEventListener("keydown", onKey);
$("help-open").addEventListener("click", openHelp);

const merging = data.merge_frames > 0
  ? ` Runs with fewer than ${data.merge_frames} frames between them are one.` : "";
const dropping = data.min_frames > 1
  ? ` Events of fewer than ${data.min_frames} frames are left out.` : "";
const WORDS = [ // word, meaning, whether it needs the truth
  ["Hit, missed, false alarm",
    "Of videos: an anomalous one that is detected, one that is not, a normal one that is.", true],
  ["Threshold",
    "A video is detected above it. A frame is an alarm, or belongs to a predicted event, from it on.",
    false],
  ["False-alarm rate", "Alarms among the frames of normal videos, as false_alarm_rate.", true],
  ["Predicted event", `A run of alarms.${merging}${dropping}`, false],
  ["True events found", `Those with a frame in a predicted event. At ${iouText}: those that a`
    + " predicted event matches as event_average_precision_score has it.", true],
  ["False events",
    "Predicted events without an anomalous frame; per hour of frames that are not anomalous.", true],
  ["AUC within", "ROC AUC over the frames of this video alone.", true],
  ["Wrong frames", "Anomalous frames below the threshold and normal ones from it on.", true],
];

/* --------------------------------------------------------------------------
 * Begin
 * ------------------------------------------------------------------------ */
function legend(id, entries) {
  for (const [kind, text] of entries) {
    $(id).append(element("span", { class: "key" }, element("i", { class: kind }), text));
  }
}

function showTexts() {
  $("title").textContent = data.title;
  $("list").style.setProperty("--rank-width", `${whole.format(N).length}ch`);
  const facts = [data.detector, count(N, "video"), count(total.frames, "frame")];
  if (total.hours > 0) facts.push(duration(total.hours));
  for (const [label, value] of data.metrics) {
    facts.push(`${label} ${value === null ? "–" : value.toFixed(3)}`);
  }
  $("subtitle").textContent = facts.filter(Boolean).join(" · ");
  const truth = hasTruth ? [["truth", "true event"]] : [];
  legend("legend", [["alarm", "predicted event"], ["score", "score"], ...truth, ["dash", "threshold"]]);
  legend("histogram-legend", hasTruth
    ? [["score", "normal frames"], ["truth", "anomalous frames"]] : [["score", "frames"]]);
}

function showHelp() {
  const cell = (content) => element("td", {}, content);
  for (const [, , keys, text] of KEYS) {
    if (text) $("help-keys").append(element("tr", {}, cell(element("kbd", {}, keys)), cell(text)));
  }
  for (const [word, text, needsTruth] of WORDS) {
    if (needsTruth && !hasTruth) continue;
    $("help-words").append(element("dt", {}, word), element("dd", {}, text));
  }
}

function measureRow() {
  if (!rows.length) makeRow();
  rows[0].node.hidden = false;
  rowHeight = rows[0].node.offsetHeight || 56;
}

setTheme(system.matches);
showTexts();
showHelp();
measureRow();
setThreshold(data.threshold);
select(byScore[0]);
const observer = new ResizeObserver(() => { measureRow(); showList(); redraw(); });
for (const id of ["list", "timeline", "histogram"]) observer.observe($(id));
performance.mark("ready");
})();
