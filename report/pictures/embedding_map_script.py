"""What the page of a map holds besides its data; constants, nothing is fetched."""

BODY = """
<h1>TITLE</h1>
<p class="note">Near in the plane need not be near in the space: click a point for the nearest by
cosine in all dimensions. Wheel to zoom, drag to move, double click for all of it.</p>
<div class="controls">
  <label>search <input id="search" type="search" placeholder="part of a token"></label>
  <label><input id="names" type="checkbox" checked> names</label>
  <span id="found" class="note"></span>
</div>
<div class="controls" id="legend"></div>
<p class="readout" id="readout">&nbsp;</p>
<div class="views"><canvas id="map"></canvas><div id="near"></div></div>
"""

STYLE = """
main { max-width: 1400px; }
.views { display: flex; flex-wrap: wrap; gap: 24px; align-items: flex-start; }
#map { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px;
  cursor: crosshair; touch-action: none; }
#near { flex: 1 1 200px; font: 13px/1.7 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; }
#near div { cursor: pointer; white-space: pre; }
#near .number { color: var(--muted); }
#legend label { cursor: pointer; }
#legend .swatch { margin: 0 6px 0 4px; border-radius: 50%; }
"""

SCRIPT = """
const byId = id => document.getElementById(id);
const canvas = byId("map"), pen = canvas.getContext("2d");
const visible = data.names.map(() => true);
const width = Math.min(940, Math.max(320, innerWidth - 60)), height = Math.round(width * 0.72);
let here = -1, chosen = data.marked.length ? data.marked[0] : -1, found = [], view;
function fit() {
  const xs = data.points.map(p => p[0]), ys = data.points.map(p => p[1]);
  const span = values => [Math.min(...values), Math.max(...values)];
  const [left, right] = span(xs), [low, high] = span(ys);
  view = {x: (left + right) / 2, y: (low + high) / 2,
    scale: Math.min((width - 60) / (right - left || 1), (height - 60) / (high - low || 1))};
}
const place = index => [width / 2 + (data.points[index][0] - view.x) * view.scale,
  height / 2 - (data.points[index][1] - view.y) * view.scale];
function dot(index, radius, alpha) {
  const [x, y] = place(index);
  pen.globalAlpha = alpha;
  pen.fillStyle = data.colors[data.kinds[index]];
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.fill();
  pen.globalAlpha = 1;
}
function draw() {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  pen.scale(ratio, ratio);
  const text = getComputedStyle(document.body).color;
  const near = chosen < 0 ? [] : data.neighbours[chosen];
  const isOn = new Set([...found, ...near, chosen, here]);
  const fades = found.length || chosen >= 0;
  data.points.forEach((_, index) => {
    if (visible[data.kinds[index]]) dot(index, 2.6, fades && !isOn.has(index) ? 0.22 : 0.75);
  });
  for (const index of isOn) if (index >= 0) dot(index, 4.5, 1);
  const taken = [];
  function name(index, strong) {
    const [x, y] = place(index), label = data.labels[index];
    if (x < 0 || y < 0 || x > width || y > height) return;
    pen.font = (strong ? "bold 12px" : "11px") + " monospace";
    const box = [x, y - 7, x + 10 + pen.measureText(label).width, y + 7];
    if (taken.some(o => box[0] < o[2] && o[0] < box[2] && box[1] < o[3] && o[1] < box[3])) return;
    taken.push(box);
    pen.globalAlpha = strong ? 1 : 0.75;
    pen.fillStyle = text;
    pen.fillText(label, x + 6, y + 4);
    pen.globalAlpha = 1;
  }
  for (const index of [here, chosen, ...near, ...found.slice(0, 80)])
    if (index >= 0) name(index, true);
  if (byId("names").checked && !fades)
    for (let i = 0; i < data.points.length && taken.length < 160; i++)
      if (visible[data.kinds[i]]) name(i, false);
  pen.fillStyle = text;
  pen.font = "12px sans-serif";
  pen.globalAlpha = 0.7;
  pen.fillText(data.axes[0], 10, height - 10);
  pen.save();
  pen.translate(16, height - 28);
  pen.rotate(-Math.PI / 2);
  pen.fillText(data.axes[1], 0, 0);
  pen.restore();
  pen.globalAlpha = 1;
}
function nearestTo(event) {
  const box = canvas.getBoundingClientRect();
  const px = event.clientX - box.left, py = event.clientY - box.top;
  let best = -1, distance = 144;
  data.points.forEach((_, index) => {
    if (!visible[data.kinds[index]]) return;
    const [x, y] = place(index), squared = (x - px) ** 2 + (y - py) ** 2;
    if (squared < distance) { distance = squared; best = index; }
  });
  return best;
}
function tell() {
  byId("readout").textContent = here < 0 ? "\\u00a0"
    : `${JSON.stringify(data.labels[here])}, ${data.names[data.kinds[here]]}, ` +
      `(${data.points[here].map(v => v.toFixed(2)).join(", ")})`;
}
function choose(index) {
  chosen = index;
  const rows = index < 0 ? [] : data.neighbours[index].map((other, k) => {
    const row = document.createElement("div");
    const number = row.appendChild(document.createElement("span"));
    number.className = "number";
    number.textContent = data.cosines[index][k].toFixed(3) + "  ";
    row.append(data.labels[other]);
    row.onclick = () => choose(other);
    return row;
  });
  const head = document.createElement("h3");
  if (index >= 0) head.textContent = `nearest to ${JSON.stringify(data.labels[index])}`;
  byId("near").replaceChildren(head, ...rows);
  draw();
}
let dragged = null;
canvas.onpointerdown = event => {
  dragged = {x: event.clientX, y: event.clientY, moved: false};
  canvas.setPointerCapture(event.pointerId);
};
canvas.onpointermove = event => {
  if (dragged) {
    const dx = event.clientX - dragged.x, dy = event.clientY - dragged.y;
    dragged.moved = dragged.moved || Math.abs(dx) + Math.abs(dy) > 3;
    if (dragged.moved) {
      view.x -= dx / view.scale;
      view.y += dy / view.scale;
      Object.assign(dragged, {x: event.clientX, y: event.clientY});
    }
  } else here = nearestTo(event);
  tell();
  draw();
};
canvas.onpointerup = event => {
  if (dragged && !dragged.moved) choose(nearestTo(event));
  dragged = null;
};
canvas.onpointerleave = () => { here = -1; tell(); draw(); };
canvas.ondblclick = () => { fit(); draw(); };
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  const box = canvas.getBoundingClientRect(), factor = Math.exp(-event.deltaY / 400);
  const px = event.clientX - box.left - width / 2, py = height / 2 - (event.clientY - box.top);
  view.x += px / view.scale * (1 - 1 / factor);
  view.y += py / view.scale * (1 - 1 / factor);
  view.scale *= factor;
  draw();
}, {passive: false});
byId("search").oninput = event => {
  const wanted = event.target.value;
  found = wanted ? data.labels.flatMap((label, i) => label.includes(wanted) ? [i] : []) : [];
  byId("found").textContent = wanted ? `${found.length} found` : "";
  choose(-1);
};
byId("names").onchange = draw;
data.names.forEach((name, kind) => {
  const count = data.kinds.filter(other => other === kind).length;
  if (!count) return;
  const label = byId("legend").appendChild(document.createElement("label"));
  const box = label.appendChild(document.createElement("input"));
  box.type = "checkbox";
  box.checked = true;
  box.onchange = () => { visible[kind] = box.checked; draw(); };
  const swatch = label.appendChild(document.createElement("span"));
  swatch.className = "swatch";
  swatch.style.background = data.colors[kind];
  label.append(`${name} (${count})`);
});
matchMedia("(prefers-color-scheme: dark)").onchange = draw;
fit();
choose(chosen);
"""
