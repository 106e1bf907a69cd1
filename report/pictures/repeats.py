"""The loss on what a context repeats, token by token, as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from report.pictures.canvas import COLORS, MUTED, new_figure, style


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Losses (nats) by place of a row that is a sequence twice, [2n], and of the sequence after
    another one, [n]."""

    name: str
    by_place: Sequence[float]
    other_by_place: Sequence[float]


def repeats_figure(repeats: Sequence[Repeated]) -> Figure:
    """One panel a kind of sequence: loss by place, smoothed a little."""
    with style():
        figure = new_figure(max(3.3 * len(repeats), 4), 3)
        panels = figure.subplots(1, len(repeats), squeeze=False)[0]
        for panel, repeated in zip(panels, repeats, strict=True):
            length = len(repeated.other_by_place)
            places = np.arange(2 * length)
            first, second = np.split(np.asarray(repeated.by_place), 2)
            panel.plot(places[:length], _smooth(first), color=COLORS[4], label="first copy")
            panel.plot(
                places[length:],
                _smooth(repeated.other_by_place),
                color=COLORS[1],
                label="after another sequence",
            )
            panel.plot(places[length:], _smooth(second), color=COLORS[0], label="second copy")
            panel.axvline(length, color=MUTED, linewidth=0.8, linestyle=":")
            panel.set_title(repeated.name, fontsize=10)
            panel.set_xlabel("token")
            panel.set_ylim(bottom=0)
        panels[0].set_ylabel("loss (nats)")
        panels[0].legend(fontsize=8, loc="lower left")
    return figure


def _smooth(losses: Sequence[float] | np.ndarray, width: int = 5) -> np.ndarray:
    """Means over up to `width` places around each."""
    values = np.asarray(losses, float)
    kernel = np.ones(min(width, len(values)))
    near = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / near
