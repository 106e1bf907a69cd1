"""Ticks, scales and lines of the charts, and numbers as written."""

import itertools
import math
import xml.etree.ElementTree as ET

import pytest

from report import formatting
from report.charts import LineChart, ReferenceLine, Series, line_chart, smoothed, thinned
from report.ticks import linear_ticks, log_ticks, tick_label


def chart(points, **options) -> str:
    return line_chart(
        LineChart(
            slug="loss",
            title="Loss <b>",
            description="what is seen",
            x_label="step",
            y_label="nats",
            series=(Series(name="train", points=points, style=options.pop("style", "line")),),
            **options,
        )
    )


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  our own output, not untrusted XML


def path_of(svg: str) -> str:
    return next(e for e in parsed(svg).iter() if e.tag == "path").get("d") or ""


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (1.283, 2.25), (0, 3e-3), (10, 1220), (-3, 7), (1e12, 9e12), (2.7, 2.7001), (0, 1e-9)],
)
def test_linear_ticks_are_few_inside_and_evenly_spaced(low, high):
    ticks = linear_ticks(low, high)
    assert 2 <= len(ticks) <= 10
    tiny = 1e-6 * (high - low)
    assert all(low - tiny <= tick <= high + tiny for tick in ticks)
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-6)
    assert any(mantissa == pytest.approx(nice, rel=1e-4) for nice in (1, 2, 2.5, 5))


@pytest.mark.parametrize(("low", "high"), [(1, 1220), (10, 1e6), (1, 1e12), (30, 90), (400, 410)])
def test_log_ticks_are_few_inside_and_increasing(low, high):
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 10
    assert ticks == sorted(set(ticks))
    assert low * 0.999 <= ticks[0] and ticks[-1] <= high * 1.001


def test_neighbouring_ticks_never_share_a_label():
    for low, high in [(0, 1), (2.70, 2.71), (0, 3e-3), (10, 1220), (995, 1005), (1.0e6, 1.001e6)]:
        ticks = linear_ticks(low, high)
        labels = [tick_label(tick, ticks[1] - ticks[0]) for tick in ticks]
        assert len(set(labels)) == len(labels), labels


def test_tick_labels_are_short():
    assert tick_label(0.0, 1.0) == "0"
    assert tick_label(2000.0, 500.0) == "2k"
    assert tick_label(1500.0, 500.0) == "1.5k"
    assert tick_label(0.25, 0.25) == "0.25"
    assert tick_label(3e-4, 1e-4) == "3e−4"
    assert tick_label(-2.0, 1.0) == "−2"


def test_a_chart_is_well_formed_and_named_for_those_who_do_not_see_it():
    root = parsed(chart([(1, 5.0), (2, 4.0), (3, 3.5)]))
    assert root.get("role") == "img"
    assert root.find("title").text == "Loss <b>"  # type: ignore[union-attr]
    assert root.find("desc").text == "what is seen"  # type: ignore[union-attr]
    assert root.get("aria-labelledby") == "loss-title loss-desc"


def test_larger_values_are_drawn_higher_and_later_steps_further_right():
    (x0, y0), (x1, y1) = [
        tuple(map(float, point.split(",")))
        for point in path_of(chart([(1, 5.0), (2, 4.0)])).replace("M", "").split("L")
    ]
    assert x0 < x1 and y0 < y1  # pixels count downwards


def test_a_nan_breaks_the_line_and_nothing_else():
    svg = chart([(1, 5.0), (2, 4.0), (3, math.nan), (4, 3.0), (5, 2.0)])
    assert path_of(svg).count("M") == 2
    assert "nan" not in svg.lower()


def test_a_point_between_gaps_is_drawn_as_a_dot():
    assert "<circle" in chart([(1, math.nan), (2, 4.0), (3, math.inf)])


@pytest.mark.parametrize("points", [[], [(1, math.nan)], [(math.nan, 1.0)]])
def test_a_chart_without_a_finite_point_says_so(points):
    assert "Nothing logged yet" in chart(points)


@pytest.mark.parametrize(
    "points",
    [
        [(1, 2.0)],
        [(1, 0.0), (2, 0.0)],
        [(0, 1e299), (1, -1e299)],
        [(1, 1e308), (2, -1e308), (3, 1)],
    ],
)
@pytest.mark.parametrize("x_axis", ["linear", "log"])
def test_degenerate_ranges_stay_inside_the_picture(points, x_axis):
    for point in path_of(chart(points, x_axis=x_axis)).replace("M", "L").split("L")[1:]:
        x, y = map(float, point.split(","))
        assert 0 <= x <= 640 and 0 <= y <= 300


def test_a_log_axis_gives_each_decade_the_same_width():
    svg = chart([(1, 1.0), (10, 2.0), (100, 3.0)], x_axis="log")
    x = [float(point.split(",")[0]) for point in path_of(svg)[1:].split("L")]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.11)  # coordinates have one decimal


def test_reference_lines_widen_the_axis():
    reference = ReferenceLine(name="xz 9", value=9.0)
    root = parsed(chart([(1, 1.0), (2, 2.0)], references=(reference,)))
    line = next(e for e in root.iter("line") if e.get("class") == "reference")
    assert 0 <= float(line.get("y1") or -1) <= 300


def test_thinning_keeps_peaks_and_the_last_point():
    points = [(float(step), 1.0) for step in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    kept = thinned(points)
    assert len(kept) <= 410
    assert (54_321.0, 9.0) in kept and kept[-1] == points[-1]
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


def test_smoothing_keeps_a_constant_and_passes_over_nan():
    points = [(float(step), 2.0) for step in range(500)]
    points[100] = (100.0, math.nan)
    averaged = smoothed(points)
    assert math.isnan(averaged[100][1])
    assert all(y == pytest.approx(2.0) for x, y in averaged if x != 100)


def test_numbers_read_as_people_write_them():
    assert formatting.count(1_234_567) == "1.23M"
    assert formatting.count(999_999) == "1.00M"
    assert formatting.count(42) == "42"
    assert formatting.flops(4.5e13) == "4.50e13 FLOPs"
    assert formatting.byte_size(1.5 * 2**30) == "1.50 GiB"
    assert formatting.byte_size(512) == "512 B"
    assert formatting.duration(3723) == "1:02:03"
    assert formatting.duration(0.0861) == "86.1 ms"
    assert formatting.duration(59.99) == "0:01:00"
    assert formatting.signed_percent(-0.0104) == "−1.0%"
    assert formatting.significant(None) == formatting.flops(None) == "—"
    assert formatting.count(float("nan")) == "NaN"
