// The page of tested runs: N tested images (all numbers), n of them shown.
const page = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const COLOURS = ["#5aa9e6", "#ff8c61", "#7fd1ae", "#e4c1f9", "#f6e27f", "#c0c0c0"];
const NAMES = { TP: "true positive", FP: "false positive", FN: "false negative", TN: "true negative", "": "truth not known" };
const SHADES = Object.fromEntries([...Object.keys(NAMES), "none"].filter(Boolean).map(name =>
  [name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()]));
const n = page.key.length;
const state = { label: page.labels[0], now: 0, listed: [], outcomes: new Set(["TP", "FP", "FN", "TN", ""]) };
const cards = [];

// ---- data of a run for the label in view ----
function column(run, label = state.label) {
  run.columns ??= {};
  run.columns[label] ??= {
    scores: unpacked(run.scores[label], Float32Array), truths: unpacked(run.truth[label], Int8Array),
    threshold: run.thresholds[label] ?? 0.5, own: run.thresholds[label] ?? null,
  };
  return run.columns[label];
}
function rocCurve(c) { return "roc" in c ? c.roc : (c.roc = rocOf(c.truths, c.scores)); }
function of(run, i) {
  const c = column(run), at = page.tested[i];
  return { score: c.scores[at], truth: c.truths[at], outcome: outcome(c.truths[at], c.scores[at], c.threshold) };
}
function heatOf(run, i) {
  const maps = run.maps;
  if (!maps) return null;
  maps.unpacked ??= {};
  const all = maps.unpacked[state.label] ??= unpacked(maps.cells[state.label], Uint8Array);
  const size = maps.side * maps.side;
  return all.subarray(i * size, (i + 1) * size);
}
const focus = () => page.runs[Number($("focus").value) || 0];
const shown = (value, digits = 3) => value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits);

// ---- list ----
function matches(i) {
  const word = $("search").value.trim().toLowerCase();
  if (word && !page.key[i].toLowerCase().includes(word) && page.patient[i].toLowerCase() !== word) return false;
  if ($("view").value && page.view[i] !== $("view").value) return false;
  if ($("sex").value && page.sex[i] !== $("sex").value) return false;
  if ($("finding").value && page.findings[$("finding").value][i] !== 1) return false;
  return !$("differ").checked || new Set(page.runs.map(run => of(run, i).outcome)).size > 1;
}
function sorted(rows) {
  const run = focus(), c = column(run), score = i => c.scores[page.tested[i]], truth = i => c.truths[page.tested[i]];
  const error = i => (truth(i) < 0 ? -1 : Math.abs(truth(i) - score(i)));
  const by = {
    confident: (a, b) => score(b) - score(a), doubtful: (a, b) => score(a) - score(b), wrong: (a, b) => error(b) - error(a),
    near: (a, b) => Math.abs(score(a) - c.threshold) - Math.abs(score(b) - c.threshold), key: () => 0,
  };
  return rows.sort((a, b) => by[$("sort").value](a, b) || a - b);
}
function thumb(i, side) {
  const one = document.createElement("span");
  one.className = "thumb";
  one.style.backgroundSize = `${page.across * side}px auto`;
  one.style.backgroundPosition = `${-(i % page.across) * side}px ${-Math.floor(i / page.across) * side}px`;
  return one;
}
function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function list() {
  const run = focus(), counts = { TP: 0, FP: 0, FN: 0, TN: 0, "": 0 };
  const candidates = [];
  for (let i = 0; i < n; i++) {
    if (!matches(i)) continue;
    const one = of(run, i).outcome;
    counts[one]++;
    if (state.outcomes.has(one)) candidates.push(i);
  }
  state.listed = sorted(candidates);
  for (const chip of $("outcomes").children) chip.querySelector("small").textContent = counts[chip.dataset.outcome];
  const rows = document.createDocumentFragment(), options = document.createDocumentFragment();
  for (const i of state.listed) {
    const { score, outcome: one } = of(run, i), row = element("li", "", one), words = element("span", "", "key");
    row.dataset.i = i;
    words.append(element("b", page.key[i]), element("small", `${NAMES[one]}`));
    row.append(thumb(i, 44), words, element("span", shown(score), "p"));
    rows.append(row);
    options.append(new Option(`${shown(score)}  ${page.key[i]}${one ? `  ${one}` : ""}`, i));
  }
  $("list").replaceChildren(rows);
  $("sample").replaceChildren(options);
  const all = page.count === n ? `${n} images` : `${n} of ${page.count} images are on the page, drawn at random`;
  $("count").textContent = `${state.listed.length} listed; ${all}`;
  mark();
}
function mark() {
  for (const row of $("list").children) {
    const now = Number(row.dataset.i) === state.now;
    if (now !== (row.getAttribute("aria-selected") === "true")) row.setAttribute("aria-selected", now);
    if (now) { // the list alone scrolls: on a phone the page must stay at the image
      const list = $("list"), top = row.offsetTop - list.offsetTop;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + row.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top + row.offsetHeight - list.clientHeight;
    }
  }
  $("sample").value = state.listed.includes(state.now) ? state.now : "";
}

// ---- one image ----
let pictures = null;
function pictureOf(i) { // one base64 JPEG a line, at the end of the document; null until all of it has been read
  if (document.readyState === "loading") return null;
  pictures ??= $("images").textContent.split("\n");
  return pictures[i];
}
function paint(card, run) {
  const picture = pictureOf(state.now);
  if (picture === null) return;
  const pen = card.querySelector(".picture").getContext("2d"), size = 512, mode = $("mode").value;
  const heat = heatOf(run, state.now), number = state.now;
  const draw = () => {
    if (number !== state.now) return;
    pen.fillStyle = "#000"; pen.fillRect(0, 0, size, size); pen.globalAlpha = 1;
    if (mode !== "map" || !heat) pen.drawImage(card.image, 0, 0, size, size);
    if (heat && mode !== "xray") lay(pen, heat, run.maps.side, mode === "map" ? 1 : Number($("opacity").value), mode);
    if ($("boxes").checked) frame(pen, size);
  };
  card.image.onload = draw;
  const address = `data:image/jpeg;base64,${picture}`;
  if (card.image.src !== address) card.image.src = address; else if (card.image.complete) draw();
}
function lay(pen, cells, side, opacity, mode) {
  const size = 128, values = enlarged(cells, side, size), sheet = new OffscreenCanvas(size, size), ink = sheet.getContext("2d");
  const pixels = ink.createImageData(size, size);
  for (let k = 0; k < values.length; k++) {
    const [r, g, b] = heatColour(values[k]);
    pixels.data.set([r, g, b, mode === "map" ? 255 : 255 * Math.min(1, 1.6 * values[k])], 4 * k);
  }
  ink.putImageData(pixels, 0, 0);
  pen.globalAlpha = opacity;
  pen.drawImage(sheet, 0, 0, 512, 512);
  pen.globalAlpha = 1;
}
function frame(pen, size) {
  pen.strokeStyle = "#fff"; pen.lineWidth = 2; pen.setLineDash([7, 5]);
  for (const [label, left, top, right, bottom] of page.boxes[state.now] ?? []) {
    if (label === state.label) pen.strokeRect(left * size, top * size, (right - left) * size, (bottom - top) * size);
  }
  pen.setLineDash([]);
}
function judge(card, run) {
  const { score, truth, outcome: one } = of(run, state.now), c = column(run), counts = confusion(c.truths, c.scores, c.threshold);
  const called = score >= c.threshold, get = name => card.querySelector(name);
  get(".outcome").textContent = NAMES[one]; get(".outcome").className = `outcome ${one}`;
  get(".words").textContent = `truth ${truth < 0 ? "not known" : truth ? "positive" : "negative"}, predicted ${called ? "positive" : "negative"}`;
  get(".fill").style.width = `${100 * score}%`; get(".mark").style.left = `${100 * c.threshold}%`;
  get(".fill").style.background = one ? SHADES[one] : SHADES.none;
  get(".against").textContent = `probability ${shown(score)} ${called ? "≥" : "<"} threshold ${shown(c.threshold)}`;
  get(".threshold").value = c.threshold;
  if (document.activeElement !== get(".exact")) get(".exact").value = Number(c.threshold.toPrecision(6));
  for (const name of ["TP", "FP", "FN", "TN"]) {
    get(`td.${name}`).textContent = counts[name];
    get(`td.${name}`).classList.toggle("now", name === one);
  }
  const values = rates(counts);
  get(".metrics").replaceChildren(...Object.entries(values).map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(element("dt", name), element("dd", shown(value)));
    pair.dataset.metric = name; pair.dataset.value = value;
    return pair;
  }));
}
function facts() {
  const i = state.now, has = page.labels.filter(label => page.findings[label]?.[i] === 1);
  const words = [page.key[i], page.patient[i] && `patient ${page.patient[i]}`, page.view[i], page.sex[i], page.age[i] === null ? null : `${page.age[i]} years`];
  $("facts").textContent = `${words.filter(Boolean).join(" · ")} · ${has.length ? has.join(", ") : "none of these labels marked positive"}`;
}
function open(i) {
  if (!(i >= 0 && i < n)) return;
  state.now = i;
  cards.forEach((card, k) => { judge(card, page.runs[k]); paint(card, page.runs[k]); });
  facts(); mark(); drawMap();
}
function step(by) {
  const at = state.listed.indexOf(state.now), to = at < 0 ? 0 : Math.min(state.listed.length - 1, Math.max(0, at + by));
  if (state.listed.length) open(state.listed[to]);
}

// ---- ROC ----
const SVG = "http://www.w3.org/2000/svg";
function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function drawRoc() {
  const x = v => 44 + 246 * v, y = v => 262 - 252 * v, parts = [];
  for (const v of [0, 0.5, 1]) {
    parts.push(shape("text", { x: x(v), y: 276, "text-anchor": "middle" }, v), shape("text", { x: 38, y: y(v) + 4, "text-anchor": "end" }, v));
    parts.push(shape("path", { d: `M${x(v)},${y(0)}V${y(1)}M${x(0)},${y(v)}H${x(1)}`, stroke: "#343b44" }));
  }
  parts.push(shape("path", { d: `M${x(0)},${y(0)}L${x(1)},${y(1)}`, stroke: "#59626d", "stroke-dasharray": "4 4" }));
  parts.push(shape("text", { x: x(0.5), y: 293, "text-anchor": "middle" }, "1 − specificity"));
  parts.push(shape("text", { x: 12, y: y(0.5), "text-anchor": "middle", transform: `rotate(-90 12 ${y(0.5)})` }, "sensitivity"));
  $("legend").replaceChildren();
  page.runs.forEach((run, k) => {
    const c = column(run), curve = rocCurve(c), colour = COLOURS[k % COLOURS.length], row = document.createElement("li");
    const line = document.createElement("i");
    line.style.background = colour;
    row.append(line, `${run.name}: AUROC ${curve ? shown(curve.area) : "undefined (one class only)"}`);
    row.dataset.auroc = curve ? curve.area : "";
    $("legend").append(row);
    if (!curve) return;
    parts.push(shape("path", { d: "M" + curve.points.map(([a, b]) => `${x(a).toFixed(2)},${y(b).toFixed(2)}`).join("L"), fill: "none", stroke: colour, "stroke-width": 2 }));
    const { sensitivity, specificity } = rates(confusion(c.truths, c.scores, c.threshold));
    parts.push(shape("circle", { cx: x(1 - specificity), cy: y(sensitivity), r: 6, fill: colour, stroke: "#fff", "stroke-width": 2,
      "data-fpr": 1 - specificity, "data-tpr": sensitivity }));
  });
  $("roc").replaceChildren(...parts);
}

// ---- map ----
function colourOf(i) {
  const by = $("colour").value;
  if (by === "outcome") return SHADES[of(focus(), i).outcome || "none"];
  if (by === "probability") return `hsl(${240 - 240 * of(focus(), i).score} 80% 60%)`;
  if (by === "truth") return [SHADES.none, COLOURS[0], COLOURS[1]][of(focus(), i).truth + 1];
  const values = by === "view" ? page.views : page.sexes, at = values.indexOf(page[by][i]);
  return at < 0 ? SHADES.none : COLOURS[at % COLOURS.length];
}
function place(i, side) {
  const { x, y } = focus().flat;
  return [14 + x[i] * (side - 28), 14 + (1 - y[i]) * (side - 28)];
}
function drawMap() {
  const canvas = $("map"), pen = canvas.getContext("2d"), side = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  if (!side) return;
  canvas.width = canvas.height = side * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const listed = new Set(state.listed);
  const dot = (i, radius) => { const [x, y] = place(i, side); pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.fill(); };
  for (let i = 0; i < n; i++) {
    pen.globalAlpha = listed.has(i) ? 0.9 : 0.12; pen.fillStyle = colourOf(i);
    dot(i, 3.2);
  }
  pen.globalAlpha = 1; pen.fillStyle = colourOf(state.now);
  dot(state.now, 6.5); pen.lineWidth = 2; pen.strokeStyle = "#fff"; pen.stroke();
  $("axes").textContent = focus().flat.axes;
}
function nearest(event) {
  const box = $("map").getBoundingClientRect(), side = $("map").clientWidth;
  let best = -1, least = 400;
  for (let i = 0; i < n; i++) {
    const [x, y] = place(i, side), q = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
    if (q < least) { least = q; best = i; }
  }
  return best;
}

// ---- what a hand does ----
let waiting = false;
function setThreshold(k, value) {
  const c = column(page.runs[k]);
  if (!(value >= 0 && value <= 1) && value !== c.own) return; // a run's own may lie just above a highest score of 1
  c.threshold = value;
  judge(cards[k], page.runs[k]); drawRoc();
  if (waiting) return;
  waiting = true; // the list follows some 30 times a second, however fast the slider moves
  setTimeout(() => { waiting = false; list(); drawMap(); }, 30);
}
function relabel() {
  state.label = $("label").value;
  cards.forEach((card, k) => {
    const c = column(page.runs[k]), reset = card.querySelector(".reset");
    reset.textContent = c.own === null ? "0.5 (none from validation)" : `back to ${shown(c.own)}`;
    reset.title = c.own === null ? "the run chose no threshold for this label" : `chosen on validation by ${page.runs[k].rule}`;
  });
  list(); drawRoc(); open(state.now);
}
function build() {
  const thumbs = document.createElement("style"); // one rule, so that the picture of all thumbnails is kept once
  thumbs.textContent = `.thumb { background-image: url(${page.sprite}); }`;
  document.head.append(thumbs);
  for (const label of page.labels) $("label").add(new Option(label, label));
  page.runs.forEach((run, k) => {
    const card = $("card").content.firstElementChild.cloneNode(true);
    card.image = new Image();
    card.querySelector("h2").textContent = run.name; card.querySelector("h2").style.color = COLOURS[k % COLOURS.length];
    card.querySelector(".model").textContent = run.about;
    card.querySelector(".threshold").addEventListener("input", e => setThreshold(k, Number(e.target.value)));
    card.querySelector(".exact").addEventListener("input", e => setThreshold(k, e.target.valueAsNumber)); // NaN when empty
    card.querySelector(".reset").addEventListener("click", () => setThreshold(k, column(run).own ?? 0.5));
    card.querySelector(".picture").addEventListener("click", overlay);
    $("cards").append(card); cards.push(card);
    $("focus").add(new Option(run.name, k));
  });
  for (const [one, name] of Object.entries(NAMES)) {
    const chip = element("button", one || "?", one);
    chip.dataset.outcome = one; chip.title = name; chip.setAttribute("aria-pressed", true);
    chip.append(element("small", ""));
    chip.addEventListener("click", () => {
      const on = !state.outcomes.delete(one);
      if (on) state.outcomes.add(one);
      chip.setAttribute("aria-pressed", on); list(); drawMap();
    });
    if (one || page.runs.some(run => page.labels.some(label => column(run, label).truths.includes(-1)))) $("outcomes").append(chip);
  }
  const choices = (id, values) => {
    $(id).add(new Option("any", ""));
    for (const value of values) $(id).add(new Option(value, value));
    if ($(`${id}-filter`)) $(`${id}-filter`).hidden = values.length < 2;
  };
  choices("view", page.views); choices("sex", page.sexes); choices("finding", Object.keys(page.findings));
  $("focus-filter").hidden = $("differ-filter").hidden = page.runs.length < 2;
  $("boxes-choice").hidden = !page.boxes.some(Boolean);
  for (const by of ["outcome", "probability", "truth", ...(page.views.length > 1 ? ["view"] : []), ...(page.sexes.length > 1 ? ["sex"] : [])]) {
    $("colour").add(new Option(by, by));
  }
  $("tested").textContent = page.count;
}
function overlay() {
  $("mode").value = $("mode").value === "xray" ? "overlay" : "xray";
  repaint();
}
function repaint() { cards.forEach((card, k) => paint(card, page.runs[k])); }
function listen() {
  document.addEventListener("DOMContentLoaded", repaint); // now the pictures are there
  $("label").addEventListener("change", relabel);
  $("before").addEventListener("click", () => step(-1)); $("after").addEventListener("click", () => step(1));
  $("sample").addEventListener("change", e => open(Number(e.target.value)));
  $("list").addEventListener("click", e => { const row = e.target.closest("li"); if (row) open(Number(row.dataset.i)); });
  for (const id of ["search", "sort", "view", "sex", "finding", "focus", "differ"]) {
    $(id).addEventListener("input", () => { list(); drawMap(); });
  }
  for (const id of ["mode", "opacity", "boxes"]) $(id).addEventListener("input", repaint);
  $("colour").addEventListener("input", drawMap);
  $("map").addEventListener("click", e => open(nearest(e)));
  window.addEventListener("resize", drawMap);
  document.addEventListener("keydown", e => {
    if (e.ctrlKey || e.altKey || e.metaKey || ["SELECT", "INPUT"].includes(e.target.tagName)) return;
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[e.key];
    if (by) step(by); else if (e.key === " " && e.target.tagName !== "BUTTON") overlay(); else return;
    e.preventDefault();
  });
}
build(); listen();
const asked = page.key.findIndex(key => [key, encodeURIComponent(key), encodeURI(key)].includes(location.hash.slice(1)));
relabel();
open(asked >= 0 ? asked : state.listed[0] ?? 0);
