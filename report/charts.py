"""Line charts as inline SVG: no library, no script needed, colours from CSS variables."""

import html
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from report import formatting
from report.ticks import Scale, enclosing_ticks, linear_ticks, log_ticks, tick_labels

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 26, 42
MAX_POINTS = 400


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart.

    Attributes:
        name: as the legend and the readout write it.
        points: (x, y) in order of x. A y that is not finite breaks the line.
        color: which of the page's colours, 1 to 3.
        style: line; faint: what a line smooths; marked: a line with a dot at every point.
    """

    name: str
    points: list[tuple[float, float]]
    color: Literal[1, 2, 3] = 1
    style: Literal["line", "faint", "marked"] = "line"


@dataclass(frozen=True, kw_only=True)
class ReferenceLine:
    """A dashed horizontal line at `value`, labelled on the line itself."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """What to draw.

    Attributes:
        slug: an identifier that is unique on the page, letters and dashes.
        title: one line, without the units.
        description: what there is to see, for readers who do not see it.
        x_label, y_label: names of the axes, with units.
        series, references: what is drawn.
        format_y: how a y is written in the readout.
        x_axis: a logarithmic x axis leaves out points at 0 or below.
        include_zero: start the y axis at 0.
    """

    slug: str
    title: str
    description: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    references: tuple[ReferenceLine, ...] = ()
    format_y: Callable[[float | None], str] = formatting.significant
    x_axis: Literal["linear", "log"] = "linear"
    include_zero: bool = False


def line_chart(chart: LineChart) -> str:
    """The chart as one <svg> element, or a paragraph that says there is nothing to draw yet."""
    series = [_drawable(line, chart.x_axis) for line in chart.series]
    finite = [point for line in series for point in line.points if _is_finite(point)]
    if not finite:
        return '<p class="empty">Nothing logged yet.</p>'
    references = [line for line in chart.references if math.isfinite(line.value)]
    ys = [y for _, y in finite] + [line.value for line in references]
    x_scale = _x_scale([x for x, _ in finite], log=chart.x_axis == "log")
    y_scale, y_ticks = _y_scale(ys, include_zero=chart.include_zero)
    body = [*_x_axis(chart, x_scale), *_y_axis(chart, y_scale, y_ticks)]
    body += [_reference(line, y_scale) for line in references]
    body += [_series(line, x_scale, y_scale) for line in series]
    hover = html.escape(json.dumps(_hover_points(chart, series, x_scale, y_scale)))
    title, description = html.escape(chart.title), html.escape(chart.description)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="{chart.slug}-title {chart.slug}-desc" data-hover="{hover}">'
        f'<title id="{chart.slug}-title">{title}</title>'
        f'<desc id="{chart.slug}-desc">{description}</desc>{"".join(body)}'
        f'<g class="hover" hidden=""><line class="cross" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></g>'
        f'<text class="readout" x="{WIDTH - RIGHT}" y="12"></text></svg>'
    )


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """An exponential moving average over about a fiftieth of the points, bias corrected.

    A y that is not finite stays where it is, and the average goes on without it.
    """
    decay = 1 - 1 / max(1.0, len(points) / 50)
    total = weight = 0.0
    averaged = []
    for x, y in points:
        if math.isfinite(y):
            total, weight = decay * total + (1 - decay) * y, decay * weight + (1 - decay)
            y = total / weight
        averaged.append((x, y))
    return averaged


def thinned(
    points: list[tuple[float, float]], limit: int = MAX_POINTS
) -> list[tuple[float, float]]:
    """At most about `limit` points: the lowest and the highest of each stretch, in order.

    Peaks and dips survive. A stretch without a finite y keeps one point, so the gap survives too.
    """
    if len(points) <= limit:
        return points
    stretch = math.ceil(2 * len(points) / limit)
    kept = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        finite = [point for point in part if math.isfinite(point[1])]
        if not finite:
            kept.append(part[0])
            continue
        extremes = {min(finite, key=lambda point: point[1]), max(finite, key=lambda p: p[1])}
        kept += sorted(extremes)
    if math.isfinite(points[-1][1]) and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def _is_finite(point: tuple[float, float]) -> bool:
    # Beyond 1e300 differences overflow; nothing a run logs is that large.
    return all(math.isfinite(value) and abs(value) < 1e300 for value in point)


def _drawable(line: Series, x_axis: str) -> Series:
    points = [(x, y) for x, y in line.points if math.isfinite(x) and (x_axis != "log" or x > 0)]
    points = [point if _is_finite(point) else (point[0], math.nan) for point in points]
    return Series(name=line.name, points=thinned(points), color=line.color, style=line.style)


def _x_scale(xs: list[float], *, log: bool) -> Scale:
    low, high = min(xs), max(xs)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 1, high + 1)
    return Scale(low, high, LEFT, WIDTH - RIGHT, log)


def _y_scale(ys: list[float], *, include_zero: bool) -> tuple[Scale, list[float]]:
    """The scale and its ticks: it ends on a tick on either side, so the top one is labelled."""
    values = [*ys, 0.0] if include_zero else ys
    ticks = enclosing_ticks(min(values), max(values))
    return Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP), ticks


def _x_axis(chart: LineChart, scale: Scale) -> list[str]:
    if chart.x_axis == "log":
        ticks = log_ticks(scale.low, scale.high)
    else:
        ticks = linear_ticks(scale.low, scale.high, 6)
    bottom = HEIGHT - BOTTOM
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>']
    for tick, label in zip(ticks, tick_labels(ticks, each=chart.x_axis == "log"), strict=True):
        x = scale(tick)
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        )
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}">{label}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    label = html.escape(chart.x_label)
    parts.append(f'<text class="label middle" x="{middle}" y="{HEIGHT - 6}">{label}</text>')
    return parts


def _y_axis(chart: LineChart, scale: Scale, ticks: list[float]) -> list[str]:
    parts = [f'<text class="label" x="0" y="12">{html.escape(chart.y_label)}</text>']
    for tick, label in zip(ticks, tick_labels(ticks, each=False), strict=True):
        y = scale(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text class="tick end" x="{LEFT - 8}" y="{y + 4:.1f}">{label}</text>')
    return parts


def _reference(line: ReferenceLine, y_scale: Scale) -> str:
    y = y_scale(line.value)
    label = html.escape(line.name)
    return (
        f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="reference-label" x="{WIDTH - RIGHT}" y="{y - 5:.1f}">{label}</text>'
    )


def _series(line: Series, x_scale: Scale, y_scale: Scale) -> str:
    path, marks, pen_up = [], [], True
    dots = line.style == "marked" and len(line.points) <= 60
    for position, (x, y) in enumerate(line.points):
        if not math.isfinite(y):
            pen_up = True
            continue
        px, py = x_scale(x), y_scale(y)
        path.append(f"{'M' if pen_up else 'L'}{px:.1f},{py:.1f}")
        after = line.points[position + 1 : position + 2]
        alone = pen_up and not (after and math.isfinite(after[0][1]))
        if dots or alone:
            marks.append(f'<circle class="c{line.color}" cx="{px:.1f}" cy="{py:.1f}" r="3.5"/>')
        pen_up = False
    return f'<path class="line c{line.color} {line.style}" d="{"".join(path)}"/>{"".join(marks)}'


def _hover_points(
    chart: LineChart, series: list[Series], x_scale: Scale, y_scale: Scale
) -> list[list[list[float | str]]]:
    """Per line that is not faint, [pixel x, pixel y, what the readout says] of each point."""
    return [
        [
            [
                round(x_scale(x), 1),
                round(y_scale(y), 1),
                f"{chart.x_label} {formatting.whole(x)}: {line.name} {chart.format_y(y)}",
            ]
            for x, y in line.points
            if math.isfinite(y)
        ]
        for line in series
        if line.style != "faint"
    ]
