"""The charts of a run: which numbers of its files are drawn, and how."""

import html
import math

from report import formatting
from report.charts import LineChart, ReferenceLine, Series, line_chart, smoothed
from report.read import Record, RunRecord, number

Points = list[tuple[float, float]]


def curves_section(run: RunRecord) -> str:
    """Loss, bits per byte, learning rate, throughput, MFU."""
    figures = [
        _loss(run),
        _bits_per_byte(run),
        _learning_rate(run),
        _gradient_norm(run),
        _throughput(run),
        _mfu(run),
    ]
    return f'<h2>Curves</h2><div class="charts">{"".join(figures)}</div>'


def points(records: list[Record], key: str) -> Points:
    """(step, value) of every record that has a number, or null (not finite), under `key`."""
    found = []
    for record in records:
        value = number(record, key)
        if value is None and key in record and record[key] is None:
            value = math.nan
        if value is not None:
            found.append((number(record, "step") or 0.0, value))
    return found


def _loss(run: RunRecord) -> str:
    train = points(run.metrics, "loss")
    series = [
        Series(name="train", points=train, style="faint"),
        Series(name="train, smoothed", points=smoothed(train)),
        Series(
            name="held out",
            points=points(run.evaluations, "nats_per_token"),
            color=2,
            style="marked",
        ),
    ]
    charts = [
        LineChart(
            slug=f"loss-{axis}",
            title="Loss",
            description="Training loss and held-out loss in nats per token against the step.",
            x_label="step",
            y_label="nats per token",
            series=tuple(line for line in series if line.points),
            format_y=lambda value: formatting.significant(value, 4),
            x_axis=axis,
        )
        for axis in ("linear", "log")
    ]
    not_finite = sum(not math.isfinite(loss) for _, loss in train)
    note = ""
    if not_finite:
        note = f'<p class="problem small">Logged losses that were not finite: {not_finite}.</p>'
    switch = (
        '<div class="switch">'
        '<input type="radio" name="loss-axis" id="loss-axis-linear" class="on-linear" checked>'
        '<label for="loss-axis-linear">linear steps</label>'
        '<input type="radio" name="loss-axis" id="loss-axis-log" class="on-log">'
        '<label for="loss-axis-log">logarithmic</label>'
        f'<div class="linear">{line_chart(charts[0])}</div>'
        f'<div class="log">{line_chart(charts[1])}</div></div>'
    )
    return _figure(charts[0], note=note, drawing=switch if train else None)


def _bits_per_byte(run: RunRecord) -> str:
    if run.evaluations and all(e.get("bits_per_byte") is None for e in run.evaluations):
        return ""  # the objective gives bytes no probability
    baselines = [
        ("xz −9e", number(run.summary, "baselines", "xz_bits_per_byte")),
        ("xz primed", number(run.summary, "baselines", "xz_primed_bits_per_byte")),
    ]
    chart = LineChart(
        slug="bits-per-byte",
        title="Held-out bits per byte",
        description="Bits per byte of the held-out documents at each evaluation, and of xz.",
        x_label="step",
        y_label="bits per byte",
        series=(
            Series(
                name="model",
                points=points(run.evaluations, "bits_per_byte"),
                color=2,
                style="marked",
            ),
        ),
        references=tuple(
            ReferenceLine(name=f"{name} {formatting.significant(value, 4)}", value=value)
            for name, value in baselines
            if value is not None
        ),
        format_y=lambda value: formatting.significant(value, 4),
    )
    return _figure(chart)


def _learning_rate(run: RunRecord) -> str:
    return _single(run, "learning_rate", "Learning rate", "", formatting.significant)


def _gradient_norm(run: RunRecord) -> str:
    return _single(run, "grad_norm", "Gradient norm", "before clipping", formatting.significant)


def _throughput(run: RunRecord) -> str:
    return _single(run, "tokens_per_second", "Throughput", "tokens per second", formatting.count)


def _single(run: RunRecord, key: str, title: str, y_label: str, format_y) -> str:
    """A chart of one number of metrics.jsonl, its axis from zero."""
    chart = LineChart(
        slug=key.replace("_", "-"),
        title=title,
        description=f"{title} ({y_label}) against the step." if y_label else f"{title} by step.",
        x_label="step",
        y_label=y_label,
        series=(Series(name=title.lower(), points=points(run.metrics, key)),),
        format_y=format_y,
        include_zero=True,
    )
    return _figure(chart)


def _mfu(run: RunRecord) -> str:
    def share(key: str) -> Points:
        return [(step, 100 * value) for step, value in points(run.metrics, key)]

    chart = LineChart(
        slug="mfu",
        title="Model FLOPs utilisation",
        description="MFU in percent of the peak against the step, by two conventions.",
        x_label="step",
        y_label="percent of peak",
        series=(
            Series(name="causal attention halved", points=share("mfu")),
            Series(name="PaLM: attention in full", points=share("mfu_palm"), color=3),
        ),
        format_y=lambda value: f"{formatting.significant(value)}%",
        include_zero=True,
    )
    return _figure(chart)


def _figure(chart: LineChart, *, note: str = "", drawing: str | None = None) -> str:
    """A figure: title, legend where there are several lines, and the drawing (or the chart's)."""
    shown = [line for line in chart.series if line.points]
    keys = [
        f'<span class="key c{line.color} {line.style}">{html.escape(line.name)}</span>'
        for line in shown
    ]
    legend = "".join(keys) if len(shown) > 1 else ""
    return (
        f"<figure><figcaption><h3>{html.escape(chart.title)}</h3>"
        f'<div class="legend">{legend}</div></figcaption>'
        f"{line_chart(chart) if drawing is None else drawing}{note}</figure>"
    )
