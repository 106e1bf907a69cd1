"""Scores against the number of shots, as a picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from report.pictures.canvas import COLORS, MUTED, new_figure, style

_COLUMNS = 4
_CAPTION = "shots (those that fit); bars: two standard errors, dashed: chance"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A task's score, its standard error and chance's score (None: not defined) for each number of
    shots, fewest first. mean_shots: how many were shown where the context held fewer."""

    name: str
    measure: str
    shots: Sequence[int]
    mean_shots: Sequence[float]
    scores: Sequence[float]
    errors: Sequence[float]
    chances: Sequence[float | None]


def shots_figure(curves: Sequence[Curve]) -> Figure:
    """One panel a task: its score with two standard errors, and chance as a dashed line."""
    columns = min(_COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    with style():
        figure = new_figure(max(2.7 * columns, 3.4), 2.5 * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, curve in zip(panels, curves, strict=False):
            _draw_curve(panel, curve)
        for panel in panels[len(curves) :]:
            panel.set_axis_off()
        figure.supxlabel(_CAPTION, fontsize=9, color=MUTED)
    return figure


def _draw_curve(panel: Axes, curve: Curve) -> None:
    # Evenly spaced: 0, 1, 4 and 16 fit neither a linear axis nor a logarithmic one.
    places = np.arange(len(curve.shots))
    errors = 2 * np.asarray(curve.errors)
    panel.errorbar(
        places, curve.scores, errors, color=COLORS[0], marker="o", markersize=4, capsize=2
    )
    if all(chance is not None for chance in curve.chances):
        chances = [float(chance or 0) for chance in curve.chances]
        panel.plot(places, chances, color=COLORS[1], linestyle="--", linewidth=1)
    is_percent = curve.measure == "bleu"
    panel.set_ylim(0, 100 if is_percent else 1)
    labels = [
        str(asked) if shown > asked - 0.05 else f"{asked}\n({shown:.1f})"
        for asked, shown in zip(curve.shots, curve.mean_shots, strict=True)
    ]
    panel.set_xticks(places, labels)
    panel.set_xlim(-0.3, len(places) - 0.7)
    panel.set_title(f"{curve.name}\n", fontsize=10)
    panel.text(
        0.5, 1.02, curve.measure.replace("_", " "), transform=panel.transAxes, ha="center",
        fontsize=8, color=MUTED,
    )  # fmt: skip
