"""What the attention page holds besides its data; constants, nothing is fetched."""

BODY = """
<h1>TITLE</h1>
<p class="note">Every row is a query and adds up to 1: how much of each key's value it takes.
Point at a weight to read it; click to keep a row. Arrow keys change the head and the layer. A space
reads ·, a line's end ↵.</p>
<div class="controls">
  <label>attention <select id="kind"></select></label>
  <label>layer <select id="layer"></select></label>
  <label>head <select id="head"></select></label>
</div>
<div class="heads" id="heads"></div>
<p class="readout" id="readout"></p>
<div class="views">
  <div class="map"><canvas id="map"></canvas></div>
  <div class="text"><h2>The text as the query sees it</h2><div id="tokens"></div>
    <table id="statistics"></table></div>
</div>
"""

STYLE = """
.heads { display: grid; gap: 4px; justify-content: start; margin: 14px 0; }
.heads canvas { width: 56px; height: 56px; border: 2px solid transparent; cursor: pointer;
  image-rendering: pixelated; }
.heads canvas.on { border-color: var(--c2); }
.views { display: flex; flex-wrap: wrap; gap: 28px; align-items: flex-start; }
.map { overflow: auto; max-width: 100%; }
.map canvas { cursor: crosshair; }
.text { flex: 1 1 300px; }
#tokens { font: 13px/1.9 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; margin-bottom: 18px; }
#tokens span { padding: 1px 0; border-radius: 3px; }
#statistics { width: auto; font-size: 13px; }
#statistics td { padding: 3px 28px 3px 0; }
#tokens span.query { outline: 2px solid var(--c2); }
"""

SCRIPT = """
const byId = id => document.getElementById(id);
const state = {kind: 0, layer: 0, head: 0, query: -1, key: -1, kept: -1};
for (const one of data) {
  const bytes = Uint8Array.from(atob(one.weights), letter => letter.charCodeAt(0));
  one.weights = new Uint16Array(bytes.buffer);
}
const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
function color(weight) {
  const [from, to] = dark() ? [[27, 29, 32], [116, 167, 245]] : [[255, 255, 255], [8, 48, 107]];
  return from.map((low, i) => Math.round(low + (to[i] - low) * Math.pow(weight, 0.7)));
}
function weightsOf(one, layer, head) {
  const size = one.queries.length * one.keys.length;
  const start = (layer * one.heads.length + head) * size;
  return one.weights.subarray(start, start + size);
}
function paint(canvas, one, layer, head) {
  const weights = weightsOf(one, layer, head), pen = canvas.getContext("2d");
  canvas.width = one.keys.length;
  canvas.height = one.queries.length;
  const image = pen.createImageData(canvas.width, canvas.height);
  weights.forEach((step, i) => image.data.set([...color(step / 65535), 255], 4 * i));
  pen.putImageData(image, 0, 0);
}
const margin = 100;
function drawMap() {
  const one = data[state.kind], canvas = byId("map"), pen = canvas.getContext("2d");
  const small = document.createElement("canvas");
  paint(small, one, state.layer, state.head);
  const cell = Math.max(5, Math.min(22, Math.floor(640 / Math.max(small.width, small.height))));
  const width = margin + cell * small.width, height = margin + cell * small.height;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  pen.scale(ratio, ratio);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, margin, margin, cell * small.width, cell * small.height);
  const paper = getComputedStyle(document.body);
  pen.font = Math.min(12, cell + 1) + "px monospace";
  pen.textBaseline = "middle";
  pen.strokeStyle = paper.color;
  pen.globalAlpha = 0.35;
  pen.strokeRect(margin, margin, width - margin, height - margin);
  pen.globalAlpha = 1;
  const every = cell >= 9 ? 1 : Math.ceil(9 / cell);
  const short = text => text.length > 12 ? text.slice(0, 11) + "\\u2026" : text;
  function label(text, index, here, turn) {
    if (index % every && !here) return;
    pen.save();
    pen.fillStyle = here ? getComputedStyle(document.documentElement).getPropertyValue("--c2")
      : paper.color;
    pen.textAlign = turn ? "left" : "right";
    const middle = margin + cell * (index + 0.5);
    if (turn) { pen.translate(middle, margin - 5); pen.rotate(-Math.PI / 2); }
    else pen.translate(margin - 5, middle);
    pen.fillText(short(text), 0, 0);
    pen.restore();
  }
  one.queries.forEach((text, index) => label(text, index, index === state.query, false));
  one.keys.forEach((text, index) => label(text, index, index === state.key, true));
  state.cell = cell;
}
function drawHeads() {
  const one = data[state.kind], box = byId("heads");
  box.style.gridTemplateColumns = `repeat(${one.heads.length}, auto)`;
  box.replaceChildren();
  one.layers.forEach((layer, row) => one.heads.forEach((head, column) => {
    const canvas = box.appendChild(document.createElement("canvas"));
    canvas.title = `layer ${layer}, head ${head}`;
    canvas.className = row === state.layer && column === state.head ? "on" : "";
    canvas.onclick = () => choose({layer: row, head: column});
    paint(canvas, one, row, column);
  }));
}
function drawTokens() {
  const one = data[state.kind], box = byId("tokens"), self = one.queries === one.keys ||
    one.queries.join() === one.keys.join();
  const weights = weightsOf(one, state.layer, state.head), M = one.keys.length;
  box.replaceChildren();
  one.keys.forEach((text, key) => {
    const span = box.appendChild(document.createElement("span"));
    span.textContent = text;
    if (text.endsWith("\\u21b5")) box.append("\\n");
    if (state.query < 0) return;
    const weight = weights[state.query * M + key] / 65535;
    span.style.background = `rgba(${dark() ? "116,167,245" : "36,99,196"},${Math.sqrt(weight)})`;
    if (weight > 0.4) span.style.color = dark() ? "#141517" : "#ffffff";
    span.title = weight.toFixed(4);
    if (self && key === state.query) span.className = "query";
  });
}
function drawReadout() {
  const one = data[state.kind];
  if (state.query < 0) { byId("readout").textContent = "\\u00a0"; return; }
  const query = JSON.stringify(one.queries[state.query]);
  if (state.key < 0) { byId("readout").textContent = `query ${state.query} ${query}`; return; }
  const weights = weightsOf(one, state.layer, state.head);
  const weight = weights[state.query * one.keys.length + state.key] / 65535;
  byId("readout").textContent = `query ${state.query} ${query} \\u2192 key ${state.key} ` +
    `${JSON.stringify(one.keys[state.key])}: weight ${weight.toFixed(4)}`;
}
function drawStatistics() {
  const one = data[state.kind];
  const name = `${one.layers[state.layer]}.${one.heads[state.head]}`;
  byId("statistics").replaceChildren(...Object.entries(one.statistics[name] || {}).map(pair => {
    const row = document.createElement("tr");
    row.appendChild(document.createElement("td")).textContent = pair[0];
    const value = row.appendChild(document.createElement("td"));
    value.className = "number";
    value.textContent = pair[1] === null ? "\\u2013" : pair[1].toFixed(3);
    return row;
  }));
}
function fill(select, names, chosen) {
  select.replaceChildren(...names.map((name, index) => new Option(name, index)));
  select.value = chosen;
}
function choose(change) {
  const before = state.kind;
  Object.assign(state, change);
  const one = data[state.kind];
  if (state.kind !== before) Object.assign(state, {query: -1, key: -1, kept: -1});
  state.layer = Math.max(0, Math.min(state.layer, one.layers.length - 1));
  state.head = Math.max(0, Math.min(state.head, one.heads.length - 1));
  fill(byId("kind"), data.map(other => other.kind), state.kind);
  fill(byId("layer"), one.layers, state.layer);
  fill(byId("head"), one.heads, state.head);
  drawHeads(); drawMap(); drawTokens(); drawReadout(); drawStatistics();
}
function point(event) {
  const box = byId("map").getBoundingClientRect(), one = data[state.kind];
  const key = Math.floor((event.clientX - box.left - margin) / state.cell);
  const query = Math.floor((event.clientY - box.top - margin) / state.cell);
  const inside = key >= 0 && query >= 0 && key < one.keys.length && query < one.queries.length;
  state.key = inside ? key : -1;
  state.query = inside ? query : state.kept;
  drawMap(); drawTokens(); drawReadout();
}
for (const name of ["kind", "layer", "head"])
  byId(name).onchange = event => choose({[name]: Number(event.target.value)});
byId("map").onpointermove = point;
byId("map").onclick = event => { point(event); state.kept = state.key < 0 ? -1 : state.query; };
byId("map").onpointerleave = () => {
  Object.assign(state, {query: state.kept, key: -1});
  drawMap(); drawTokens(); drawReadout();
};
document.onkeydown = event => {
  const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
  if (!(event.key in step) || event.target.tagName === "SELECT") return;
  event.preventDefault();
  const [layers, heads] = step[event.key];
  choose({layer: state.layer + layers, head: state.head + heads});
};
matchMedia("(prefers-color-scheme: dark)").onchange = () => choose({});
choose({});
"""
