"""The page's style sheet and its one small script; both are constants, nothing is fetched."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --panel: #ffffff; --text: #1b1c1e; --muted: #63666c; --faint: #8d9096;
  --rule: #e3e3df; --grid: #ecece8; --code: #f3f3f0;
  --c1: #2463c4; --c2: #b8560b; --c3: #2e7d4f;
  --good: #1d7044; --good-back: #e3f3e9; --bad: #b02a23; --bad-back: #fbe7e5;
  --wait: #63666c; --wait-back: #ededea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #141517; --panel: #1b1d20; --text: #e9e9e6; --muted: #a3a6ac; --faint: #7d8087;
    --rule: #303338; --grid: #282b2f; --code: #212327;
    --c1: #74a7f5; --c2: #ee9a52; --c3: #6cc592;
    --good: #79d0a0; --good-back: #1b3327; --bad: #ff938b; --bad-back: #43211f;
    --wait: #a3a6ac; --wait-back: #2b2e33;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans",
    Arial, sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; margin: 0; font-weight: 650;
  overflow-wrap: anywhere; }
h2 { font-size: 19px; letter-spacing: -0.005em; margin: 52px 0 14px; font-weight: 640; }
h3 { font-size: 15px; margin: 0 0 2px; font-weight: 620; }
p { margin: 0 0 12px; max-width: 78ch; }
.muted, .note { color: var(--muted); }
.note, .small { font-size: 13px; }
.brand { color: var(--muted); font-size: 13px; margin-bottom: 6px; }
.title { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; }
.facts { display: flex; flex-wrap: wrap; gap: 2px 20px; margin-top: 10px; font-size: 13px;
  color: var(--muted); }
.chip { display: inline-block; padding: 1px 9px; border-radius: 10px; font-size: 12.5px;
  font-weight: 600; white-space: nowrap; }
.good { color: var(--good); background: var(--good-back); }
.bad { color: var(--bad); background: var(--bad-back); }
.wait { color: var(--wait); background: var(--wait-back); }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1px; margin-top: 30px;
  background: var(--rule); border: 1px solid var(--rule); border-radius: 10px; overflow: hidden; }
.tile { background: var(--panel); padding: 16px 20px 15px; }
.tile .value { font-size: 29px; line-height: 1.25; font-weight: 630; letter-spacing: -0.02em; }
.tile .caption { color: var(--muted); font-size: 13px; }
.tile:first-child .value { color: var(--c1); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--muted);
  padding: 6px 16px 6px 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
td { padding: 8px 16px 8px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.note { font-size: 13px; line-height: 1.45; padding-top: 9px; }
table.wide { min-width: 780px; }
table.wide td:first-child { white-space: nowrap; }
.after { margin-top: 12px; }
.pairs td:first-child { width: 250px; }
.pairs + .scroll { margin-top: 18px; }
code, pre, .mono { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; font-size: 12.5px; }
pre { margin: 0; padding: 14px 16px; background: var(--code); border-radius: 8px; line-height: 1.55;
  white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 4; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 30px 32px; }
figure { margin: 0; min-width: 0; }
figcaption { margin-bottom: 8px; }
.legend { display: flex; flex-wrap: wrap; gap: 0 16px; font-size: 13px; color: var(--muted);
  min-height: 20px; }
.key::before { content: ""; display: inline-block; width: 16px; border-top: 2.5px solid;
  vertical-align: middle; margin-right: 6px; }
.key.c1::before { border-color: var(--c1); } .key.c2::before { border-color: var(--c2); }
.key.c3::before { border-color: var(--c3); } .key.faint::before { opacity: 0.35; }
.chart { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { font-size: 12.5px; fill: var(--muted); }
.chart .tick { text-anchor: middle; font-variant-numeric: tabular-nums; }
.chart .end, .chart .readout, .chart .reference-label { text-anchor: end; }
.chart .middle { text-anchor: middle; }
.chart .readout { fill: var(--text); font-variant-numeric: tabular-nums; }
.chart .grid { stroke: var(--grid); } .chart .axis { stroke: var(--faint); }
.chart .reference { stroke: var(--muted); stroke-dasharray: 5 4; stroke-width: 1.3; }
.chart .reference-label { fill: var(--text); paint-order: stroke; stroke: var(--page);
  stroke-width: 4px; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .line.faint { stroke-width: 1; opacity: 0.35; }
.chart path.c1 { stroke: var(--c1); } .chart path.c2 { stroke: var(--c2); }
.chart path.c3 { stroke: var(--c3); }
.chart circle { stroke: var(--page); stroke-width: 1.5; }
.chart circle.c1 { fill: var(--c1); } .chart circle.c2 { fill: var(--c2); }
.chart circle.c3 { fill: var(--c3); }
.chart .cross { stroke: var(--faint); stroke-dasharray: 2 3; }
.chart .hover[hidden] { display: none; }
.switch input { position: absolute; opacity: 0; }
.switch label { font-size: 13px; color: var(--muted); cursor: pointer; padding: 1px 8px;
  border-radius: 10px; }
.switch input:checked + label { background: var(--wait-back); color: var(--text); }
.switch input:focus-visible + label { outline: 2px solid var(--c1); }
.switch .log, .switch .on-log:checked ~ .linear { display: none; }
.switch .on-log:checked ~ .log { display: block; }
.bar { display: flex; height: 22px; border-radius: 5px; overflow: hidden; gap: 2px;
  margin: 4px 0 14px; background: var(--page); }
.bar span { min-width: 2px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 9px; }
.b1 { background: var(--c1); } .b2 { background: var(--c2); } .b3 { background: var(--c3); }
.sample { margin-bottom: 22px; }
.sample .prompt { color: var(--muted); } .sample .generated { color: var(--c1); }
.sample pre + .note { margin: 10px 0 4px; }
details summary { cursor: pointer; color: var(--muted); margin-bottom: 12px; }
.problem { border-left: 3px solid var(--bad); padding-left: 12px; }
.empty { color: var(--muted); padding: 26px 0; }
footer { margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--rule);
  color: var(--muted); font-size: 13px; }
@media (max-width: 800px) {
  main { padding: 24px 16px 48px; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
  .charts { grid-template-columns: minmax(0, 1fr); }
}
@media print { .chart .readout, .switch label { display: none; } figure { break-inside: avoid; } }
"""

# Moves a line to the logged step nearest the pointer and writes its values above the plot.
SCRIPT = """
for (const chart of document.querySelectorAll("svg.chart")) {
  const lines = JSON.parse(chart.dataset.hover);
  const group = chart.querySelector(".hover"), cross = group.querySelector(".cross");
  const readout = chart.querySelector(".readout");
  const dots = lines.map((_, index) => {
    const dot = document.createElementNS(chart.namespaceURI, "circle");
    dot.setAttribute("r", 4);
    dot.style.fill = "var(--text)";
    return group.appendChild(dot);
  });
  chart.addEventListener("pointermove", event => {
    const box = chart.getBoundingClientRect();
    const x = (event.clientX - box.left) * chart.viewBox.baseVal.width / box.width;
    let best = null;
    lines.forEach((points, index) => {
      for (const point of points) {
        const distance = Math.abs(point[0] - x);
        if (!best || distance < best.distance) best = {distance, point, index};
      }
    });
    if (!best) return;
    group.removeAttribute("hidden");
    cross.setAttribute("x1", best.point[0]);
    cross.setAttribute("x2", best.point[0]);
    dots.forEach((dot, index) => {
      const point = lines[index].find(other => other[0] === best.point[0]);
      dot.style.display = point ? "" : "none";
      if (point) { dot.setAttribute("cx", point[0]); dot.setAttribute("cy", point[1]); }
    });
    const here = lines.map(points => points.find(other => other[0] === best.point[0]));
    const texts = here.filter(Boolean).map(point => point[2]);
    const values = texts.map((text, index) => index ? text.slice(text.indexOf(": ") + 2) : text);
    readout.textContent = values.join(", ");
  });
  chart.addEventListener("pointerleave", () => {
    group.setAttribute("hidden", "");
    readout.textContent = "";
  });
}
"""
