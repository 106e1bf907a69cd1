"""Axes, marks and legends of standalone SVG figures, 800 × 480 on a background of their own."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from report.ticks import Scale, log_ticks, minor_log_ticks, tick_labels

WIDTH, HEIGHT = 800, 480
INK, MUTED = "#1b1c1e", "#63666c"

Points = Sequence[tuple[float, float]]
Mark = Literal["dot", "hollow", "diamond"]
Stroke = Literal["line", "dashed", "faint", "thin"]

_CSS = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
  "Liberation Sans", Arial, sans-serif; fill: #1b1c1e; }
.title { font-size: 16px; font-weight: 640; }
.muted, .tick { fill: #63666c; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.halo, .shaded { paint-order: stroke; stroke: #ffffff; stroke-width: 4px;
  stroke-linejoin: round; }
.shaded { stroke: #f3f3f0; }
.axis { stroke: #8d9096; }
.grid { stroke: #ecece8; }
.line, .dashed, .faint, .thin { fill: none; stroke-width: 2; stroke-linejoin: round; }
.dashed { stroke-dasharray: 7 4; }
.faint { stroke-width: 1.5; stroke-dasharray: 2 3; }
.thin { stroke-width: 1; opacity: 0.5; }
.zero { stroke: #63666c; }
.band { opacity: 0.16; }
.dot { stroke: #ffffff; }
.hollow { fill: #ffffff; stroke-width: 1.6; }
.diamond { stroke: #ffffff; stroke-width: 1.2; }
.beyond { fill: #f3f3f0; }
.edge { stroke: #63666c; stroke-dasharray: 4 3; }
"""
_SUPERSCRIPT = re.compile(r"\^\{([^{}]*)\}")


@dataclass(frozen=True)
class Panel:
    """The two axes of a plot; y.start is its bottom."""

    x: Scale
    y: Scale

    def place(self, points: Points) -> list[tuple[float, float]]:
        """Pixels of the points that have a place on these axes."""
        return [
            (self.x(x), self.y(y))
            for x, y in points
            if math.isfinite(x) and math.isfinite(y)
            if (x > 0 or not self.x.log) and (y > 0 or not self.y.log)
        ]


@dataclass(frozen=True)
class Key:
    """An entry of a legend; a gap only keeps its place free."""

    mark: Mark | Stroke | Literal["band", "curve", "gap"]
    color: str = INK
    label: str = ""


def figure(title: str, subtitle: str, body: Iterable[str]) -> str:
    """The text of an SVG file. `^{…}` in a text that is drawn becomes a superscript."""
    described = html.escape(f"{title}: " + _SUPERSCRIPT.sub(r"^\1", subtitle))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n<title>{described}</title>\n'
        f'<style>{_CSS}</style>\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        f"{text(20, 28, title, 'title')}\n{text(20, 48, subtitle, 'muted')}\n"
        + "\n".join(part for part in body if part)
        + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, style: str = "") -> str:
    """One line of text; `^{…}` is a superscript, everything else is escaped."""
    parts = _SUPERSCRIPT.split(words)  # plain and superscript by turns
    written = html.escape(parts[0])
    for raised, plain in zip(parts[1::2], parts[2::2], strict=True):
        written += f'<tspan dy="-4" font-size="9">{html.escape(raised)}</tspan>'
        written += f'<tspan dy="4">{html.escape(plain)}</tspan>' if plain else ""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{written}</text>'


def scientific(value: float, digits: int = 2) -> str:
    """A power of ten with a factor where it is not 1: 10^{12}, 6×10^{11}, 5.4×10^{12}."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    power = f"10^{{{int(exponent)}}}".replace("-", "−")
    return power if mantissa == "1" else f"{mantissa}×{power}"


def log_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Over the values above 0 with a little room; a single value gets a factor of 2 either way."""
    positive = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(positive), max(positive)
    room = (high / low) ** 0.04 if high > low * (1 + 1e-6) else 2.0
    return Scale(low / room, high * room, start, end, log=True)


def log_x_axis(panel: Panel, name: str, *, powers: bool = False) -> str:
    """A logarithmic axis below the panel; `powers` writes 10^12, not 1T."""
    scale, bottom = panel.x, panel.y.start
    ticks = log_ticks(scale.low, scale.high, int((scale.end - scale.start) // 62))
    labels = [scientific(tick) for tick in ticks] if powers else tick_labels(ticks, each=True)
    parts = [_segment("axis", scale.start, bottom, scale.end, bottom)]
    for tick in minor_log_ticks(scale.low, scale.high):
        parts.append(_segment("axis", scale(tick), bottom, scale(tick), bottom + 3))
    for tick, label in zip(ticks, labels, strict=True):
        x = scale(tick)
        parts.append(_segment("axis", x, bottom, x, bottom + 6))
        parts.append(text(x, bottom + 20, label, "tick middle"))
    parts.append(text((scale.start + scale.end) / 2, bottom + 43, name, "middle"))
    return "".join(parts)


def log_y_axis(panel: Panel, name: str) -> str:
    """A logarithmic axis left of the panel, with grid lines at its labels."""
    ticks = log_ticks(panel.y.low, panel.y.high, 8)
    minor = [
        _segment("axis", panel.x.start - 3, panel.y(tick), panel.x.start, panel.y(tick))
        for tick in minor_log_ticks(panel.y.low, panel.y.high)
    ]
    spine = _segment("axis", panel.x.start, panel.y.start, panel.x.start, panel.y.end)
    axis = y_axis(panel, ticks, tick_labels(ticks, each=True), name)
    return "".join([axis, spine, *minor])


def y_axis(panel: Panel, ticks: Sequence[float], labels: Sequence[str], name: str) -> str:
    """Grid lines with their labels on the left, and the name of the axis above them."""
    parts = [text(panel.x.start - 42, panel.y.end - 14, name)]
    for tick, label in zip(ticks, labels, strict=True):
        y = panel.y(tick)
        parts.append(_segment("grid", panel.x.start, y, panel.x.end, y))
        parts.append(text(panel.x.start - 8, y + 4, label, "tick end"))
    return "".join(parts)


def line(panel: Panel, points: Points, color: str, stroke: Stroke) -> str:
    """The points joined; nothing where fewer than two have a place."""
    placed = panel.place(points)
    if len(placed) < 2:
        return ""
    path = "L".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return f'<path class="{stroke}" stroke="{color}" d="M{path}"/>'


def marks(panel: Panel, points: Points, color: str, mark: Mark) -> str:
    """A mark at every point that has a place."""
    return "".join(_mark(mark, color, x, y) for x, y in panel.place(points))


def band(panel: Panel, lower: Points, upper: Points, color: str) -> str:
    """The area between two lines."""
    outline = [*panel.place(lower), *reversed(panel.place(upper))]
    if len(outline) < 4:
        return ""
    path = "L".join(f"{x:.1f},{y:.1f}" for x, y in outline)
    return f'<path class="band" fill="{color}" d="M{path}Z"/>'


def horizontal(panel: Panel, value: float) -> str:
    """A line across the panel at a value of y."""
    y = panel.y(value)
    return _segment("zero", panel.x.start, y, panel.x.end, y)


def beyond(panel: Panel, value: float) -> str:
    """Shades the panel from a value of x on."""
    x, end = panel.x(value), panel.x.end
    top, height = panel.y.end, panel.y.start - panel.y.end
    return (
        f'<rect class="beyond" x="{x:.1f}" y="{top}" width="{end - x:.1f}" height="{height}"/>'
        + _segment("edge", x, panel.y.start, x, top)
    )


def corner_note(panel: Panel, words: Sequence[str]) -> str:
    """Lines of text in the lower right corner."""
    x, bottom = panel.x.end - 8, panel.y.start - 10
    return "".join(
        text(x, bottom - 15 * above, one, "muted end shaded")
        for above, one in enumerate(reversed(words))
    )


def clipped(panel: Panel, name: str, parts: Iterable[str]) -> str:
    """Parts of which nothing outside the panel shows; `name` is unique in the figure."""
    width, height = panel.x.end - panel.x.start, panel.y.start - panel.y.end
    return (
        f'<clipPath id="{name}"><rect x="{panel.x.start}" y="{panel.y.end}" width="{width}" '
        f'height="{height}"/></clipPath><g clip-path="url(#{name})">{"".join(parts)}</g>'
    )


def label_beside(panel: Panel, point: tuple[float, float], words: str, others: Points) -> str:
    """Words at the first side of a point where they cover no other point and stay inside."""
    placed = panel.place([point])
    if not placed:
        return ""
    (x, y), half = placed[0], 3.5 * len(words)
    sides = ((half + 9, 0), (-half - 9, 0), (0, -16), (0, 16))
    taken = [spot for spot in panel.place(others) if spot != placed[0]]

    def covered(dx: float, dy: float) -> int:
        inside = panel.x.start < x + dx - half and x + dx + half < panel.x.end
        inside = inside and panel.y.end < y + dy < panel.y.start
        hits = sum(abs(x + dx - a) < half + 6 and abs(y + dy - b) < 13 for a, b in taken)
        return hits + 1000 * (not inside)

    dx, dy = min(sides, key=lambda side: covered(*side))
    return text(x + dx, y + dy + 4, words, "middle halo")


def legend_column(x: float, y: float, heading: str, keys: Sequence[Key]) -> str:
    """Entries below one another, under a heading."""
    parts = [text(x, y, heading)]
    for row, key in enumerate(keys, start=1):
        parts.append(_key(x, y + 19 * row, key))
    return "".join(parts)


def legend_row(x: float, y: float, keys: Sequence[Key]) -> str:
    """Entries beside one another."""
    parts = []
    for key in keys:
        parts.append(_key(x, y, key))
        x += 50 + 6.8 * len(key.label)  # wider than most fonts need
    return "".join(parts)


def _key(x: float, y: float, key: Key) -> str:
    if key.mark == "gap":
        return ""
    middle, height, drawn = x + 13, y - 4, ""
    if key.mark == "band":
        drawn = (
            f'<rect class="band" fill="{key.color}" x="{x:.1f}" y="{y - 10:.1f}" width="26" '
            'height="12"/>'
        )
    elif key.mark in ("line", "dashed", "faint", "thin", "curve"):
        style = "line" if key.mark == "curve" else key.mark
        drawn = f'<path class="{style}" stroke="{key.color}" d="M{x:.1f},{height:.1f}h26"/>'
    if key.mark in ("dot", "curve"):
        drawn += _mark("dot", key.color, middle, height)
    elif key.mark in ("hollow", "diamond"):
        drawn = _mark(key.mark, key.color, middle, height)
    return drawn + text(x + 34, y, key.label)


def _mark(mark: Mark, color: str, x: float, y: float) -> str:
    if mark == "diamond":
        outline = f"M{x:.1f},{y - 6.5:.1f}l5,6.5l-5,6.5l-5,-6.5Z"
        return f'<path class="diamond" fill="{color}" d="{outline}"/>'
    paint = "stroke" if mark == "hollow" else "fill"
    return f'<circle class="{mark}" {paint}="{color}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def _segment(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
