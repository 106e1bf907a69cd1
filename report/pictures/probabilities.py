"""What a sampler had to choose from: a small bar chart for each token of a text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from configs.errors import require
from report.pictures.canvas import COLORS, MUTED, new_figure, style

_MAX_PANELS = 24
_COLUMNS = 4
_LABEL_LENGTH = 12
_SCALED = "#cfcfca"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A candidate: what it reads as, and its probability under the model, after temperature and
    penalty (`scaled`), and after the cuts (`kept`; 0: cut off)."""

    label: str
    model: float
    scaled: float
    kept: float
    is_chosen: bool


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The candidates of a step, likeliest first."""

    bars: tuple[Bar, ...]


def probabilities_figure(panels: Sequence[Panel], *, title: str) -> Figure:
    """Steps in reading order, the first 24 at most.

    A candidate has three marks: a line across, the model's own probability; a grey bar, after
    temperature and penalty; a bar in colour, after the cuts, so that what is only grey was cut off.
    The chosen one's label is in the colour of its bar.
    """
    require(len(panels) > 0, "picture", len(panels), "at least one step to draw")
    shown = panels[:_MAX_PANELS]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    most = max(len(panel.bars) for panel in shown)
    with style():
        figure = new_figure(2.6 * columns + 0.4, (0.19 * most + 0.55) * rows + 0.7)
        axes = figure.subplots(rows, columns, squeeze=False)
        for place, panel in enumerate(axes.flat):
            if place < len(shown):
                _draw(panel, shown[place], place + 1, most)
            else:
                panel.set_axis_off()
        _legend(figure)
        left_out = len(panels) - len(shown)
        more = f" (the first {len(shown)} of {len(panels)} steps)" if left_out else ""
        figure.suptitle(f"{title}{more}", fontsize=10, color=MUTED)
    return figure


def _draw(axes: Axes, panel: Panel, number: int, most: int) -> None:
    places = range(len(panel.bars))
    axes.barh(places, [bar.scaled for bar in panel.bars], height=0.78, color=_SCALED)
    colors = [COLORS[1] if bar.is_chosen else COLORS[0] for bar in panel.bars]
    axes.barh(places, [bar.kept for bar in panel.bars], height=0.42, color=colors)
    for place, bar in enumerate(panel.bars):
        axes.plot([bar.model] * 2, [place - 0.42, place + 0.42], color=MUTED, linewidth=1.1)
    axes.set_yticks(list(places), [_shown(bar.label) for bar in panel.bars])
    for label, bar in zip(axes.get_yticklabels(), panel.bars, strict=True):
        label.set_fontsize(7.5)
        label.set_color(COLORS[1] if bar.is_chosen else MUTED)
        label.set_fontweight("bold" if bar.is_chosen else "normal")
    axes.set_ylim(most - 0.5, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "", "1"], fontsize=7.5)
    axes.tick_params(length=0)
    chosen = next((bar.label for bar in panel.bars if bar.is_chosen), "")
    axes.set_title(f"{number}: {_shown(chosen)}", fontsize=8.5, loc="left")


def _legend(figure: Figure) -> None:
    handles = [
        Line2D([], [], color=MUTED, linewidth=1.1, label="the model"),
        Patch(color=_SCALED, label="after temperature and penalty"),
        Patch(color=COLORS[0], label="after the cuts"),
        Patch(color=COLORS[1], label="chosen"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)


def _shown(text: str) -> str:
    """A token as a label: short, and `$` escaped, which would begin a formula."""
    label = text.replace("$", r"\$")
    return label if len(label) <= _LABEL_LENGTH else f"{label[:_LABEL_LENGTH]}…"
