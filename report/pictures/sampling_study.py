"""How settings of the sampler change text: repetition and likelihood beside those of people."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from report.pictures.canvas import COLORS, MUTED, new_figure, style

_HUMAN = "#1b1c1e"


@dataclass(frozen=True, kw_only=True)
class SettingPoint:
    """One way to continue, as measured.

    temperature: None where it is not one of the row of temperatures. repeated_4, log_probability:
    means, with their standard errors (0: unknown). log_probability_by_quarter: None where texts
    were too short.
    """

    name: str
    temperature: float | None
    repeated_4: float
    repeated_4_error: float
    log_probability: float
    log_probability_error: float
    log_probability_by_quarter: Sequence[float] | None


def study_figure(
    title: str, settings: Sequence[SettingPoint], human: SettingPoint | None
) -> Figure:
    """Against temperature: repetition and likelihood; all settings in one plane; drift."""
    with style():
        figure = new_figure(11, 8.4)
        panels = figure.subplots(2, 2)
        row = sorted(
            (s for s in settings if s.temperature is not None), key=lambda s: s.temperature or 0
        )
        _against_temperature(panels[0, 0], row, human, "repeated_4", "repeated 4-grams")
        _against_temperature(panels[0, 1], row, human, "log_probability", "log p of a token (nats)")
        _drift(panels[1, 1], row, human)
        figure.suptitle(title, fontsize=11, color=MUTED)
        _plane(figure, panels[1, 0], settings, human)  # last: names go where the layout ends
    return figure


def _against_temperature(
    panel: Axes, row: Sequence[SettingPoint], human: SettingPoint | None, field: str, name: str
) -> None:
    panel.errorbar(
        [s.temperature or 0 for s in row],
        [getattr(s, field) for s in row],
        yerr=[getattr(s, f"{field}_error") for s in row],
        color=COLORS[0],
        marker="o",
        markersize=4,
        capsize=2,
    )
    if human:
        level, error = getattr(human, field), getattr(human, f"{field}_error")
        panel.axhline(level, color=_HUMAN, linestyle="--", linewidth=1)
        panel.axhspan(level - error, level + error, color=_HUMAN, alpha=0.1, linewidth=0)
        panel.annotate(
            "people",
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
    panel.set_xlabel("temperature (0: greedy)")
    panel.set_ylabel(name)


def _plane(
    figure: Figure, panel: Axes, settings: Sequence[SettingPoint], human: SettingPoint | None
) -> None:
    """Likelihood across, repetition up: where people are, and which settings come near."""
    for setting in settings:
        is_plain = setting.temperature is not None
        panel.scatter(
            setting.log_probability,
            setting.repeated_4,
            s=22,
            color=COLORS[0] if is_plain else COLORS[1],
            zorder=3,
        )
    if human:
        panel.scatter(
            human.log_probability, human.repeated_4, s=130, marker="*", color=_HUMAN, zorder=4
        )
    everything = [*settings, *([human] if human else [])]
    highest = max(one.repeated_4 for one in everything)
    # The root spreads the many settings that hardly repeat; a little room below zero for names.
    panel.set_yscale("function", functions=(_signed_root, _signed_square))
    panel.set_ylim(-0.02 * max(highest, 0.1), 1.25 * max(highest, 0.1))
    panel.set_yticks([t for t in (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1) if t <= 1.25 * highest])
    lowest, likeliest = (f(one.log_probability for one in everything) for f in (min, max))
    room = 0.2 * (likeliest - lowest) or 1
    panel.set_xlim(lowest - room / 2, likeliest + 1.4 * room)
    panel.set_xlabel("log p of a token (nats)")
    panel.set_ylabel("repeated 4-grams (root scale)")
    _name_points(figure, panel, everything)


def _signed_root(values: Any) -> Any:
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: Any) -> Any:
    return np.sign(values) * np.square(values)


def _name_points(figure: Figure, panel: Axes, settings: Sequence[SettingPoint]) -> None:
    """Names right or left of points, or further off, where they cover no other name or point."""
    figure.draw_without_rendering()
    unit = figure.dpi / 72
    points = {
        s.name: panel.transData.transform((s.log_probability, s.repeated_4)) for s in settings
    }
    taken = [(x - 4 * unit, x + 4 * unit, y) for x, y in points.values()]
    places = [(side, shift) for shift in (0, 1, -1, 2, 3, 4, 5, 6) for side in (1, -1)]
    for setting in sorted(settings, key=lambda s: -s.repeated_4):
        x, y = points[setting.name]
        width = 5 * len(setting.name) * unit
        for side, shift in places:
            begin, at = (x + 6 * unit if side > 0 else x - 6 * unit - width), y + 11 * shift * unit
            end = begin + width
            if not any(begin < b and a < end and abs(at - c) < 10 * unit for a, b, c in taken):
                taken.append((begin, end, at))
                break
        else:
            side, shift = places[0]
        panel.annotate(
            setting.name,
            (setting.log_probability, setting.repeated_4),
            xytext=(7 * side, 11 * shift),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "#c9c9c4", "linewidth": 0.6} if shift else None,
        )


def _drift(panel: Axes, row: Sequence[SettingPoint], human: SettingPoint | None) -> None:
    """log p in each quarter of the text: a fall is a text that leaves what the model knows."""
    names: list[tuple[float, str, Any]] = []
    for index, setting in enumerate(row):
        if setting.log_probability_by_quarter is not None:
            fraction = index / max(len(row) - 1, 1)
            color = (0.14 + 0.6 * fraction, 0.39 - 0.1 * fraction, 0.77 - 0.62 * fraction)
            values = setting.log_probability_by_quarter
            panel.plot(range(4), values, "o-", color=color, markersize=4, linewidth=1.3)
            names.append((values[-1], setting.name, color))
    if human and human.log_probability_by_quarter is not None:
        values = human.log_probability_by_quarter
        panel.plot(range(4), values, "*--", color=_HUMAN, markersize=6, linewidth=1.3)
        names.append((values[-1], human.name, _HUMAN))
    low, high = panel.get_ylim()
    lowest_free = -np.inf
    for value, name, color in sorted(names, key=lambda one: one[0]):
        at = max(value, lowest_free)  # a name keeps its distance from the one below
        lowest_free = at + 0.045 * (high - low)
        panel.annotate(name, (3.1, at), va="center", fontsize=8, color=color)
    panel.set_xticks(range(4), ["first", "second", "third", "last"])
    panel.set_xlim(-0.2, 3.6)
    panel.set_xlabel("quarter of the continuation")
    panel.set_ylabel("log p of a token (nats)")
