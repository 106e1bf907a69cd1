"""The picture of a sampler's candidates: every step a panel, cut candidates grey alone."""

from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from report.pictures.canvas import save_png
from report.pictures.probabilities import Bar, Panel, probabilities_figure

BARS = (
    Bar(label="·$x$", model=0.5, scaled=0.6, kept=0.7, is_chosen=False),
    Bar(label="a very long token", model=0.2, scaled=0.25, kept=0.3, is_chosen=True),
    Bar(label="漢", model=0.1, scaled=0.05, kept=0.0, is_chosen=False),
)


def test_each_step_is_a_panel_of_its_candidates(tmp_path):
    figure = probabilities_figure([Panel(bars=BARS), Panel(bars=BARS[:2])], title="temperature 0.7")
    axes = [panel for panel in figure.axes if panel.axison]
    assert len(axes) == 2
    bars: list[Any] = list(axes[0].patches)
    scaled, kept = bars[:3], bars[3:]
    assert [bar.get_width() for bar in scaled] == [0.6, 0.25, 0.05]
    assert [bar.get_width() for bar in kept] == [0.7, 0.3, 0.0]
    assert [np.asarray(line.get_xdata())[0] for line in axes[0].lines] == [0.5, 0.2, 0.1]
    assert kept[0].get_facecolor() != kept[1].get_facecolor() != scaled[1].get_facecolor()
    assert save_png(figure, tmp_path / "picture.png").stat().st_size > 1000


def test_a_long_text_shows_its_first_steps_and_says_so():
    figure = probabilities_figure([Panel(bars=BARS[:1])] * 30, title="greedy")
    assert len(figure.axes) == 24
    assert figure.get_suptitle() == "greedy (the first 24 of 30 steps)"


def test_no_step_is_refused():
    with pytest.raises(InputError, match="^picture: got 0"):
        probabilities_figure([], title="")
