"""The picture of scores against shots shows every task, its scores, its errors and chance."""

from dataclasses import replace

import numpy as np
import pytest

from report.pictures.canvas import save_png
from report.pictures.shots import Curve, shots_figure

CURVE = Curve(
    name="copy",
    measure="accuracy_per_byte",
    shots=[0, 1, 4],
    mean_shots=[0.0, 1.0, 2.5],
    scores=[0.2, 0.4, 0.9],
    errors=[0.05, 0.04, 0.01],
    chances=[0.25, 0.25, 0.25],
)


def test_a_panel_shows_scores_chance_and_how_many_shots_fitted():
    (panel,) = shots_figure([CURVE]).axes
    scores, *bars, chance = [np.asarray(line.get_ydata(), float) for line in panel.lines]
    np.testing.assert_allclose(scores, CURVE.scores)
    np.testing.assert_allclose(chance, 0.25)
    lower, upper = bars
    np.testing.assert_allclose(upper - lower, 4 * np.array(CURVE.errors))  # two up, two down
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0", "1", "4\n(2.5)"]
    assert panel.get_title().strip() == "copy"
    assert panel.get_ylim() == (0, 1)


def test_without_chance_no_line_is_drawn_for_it():
    (panel,) = shots_figure([replace(CURVE, chances=[None] * 3)]).axes
    (known,) = shots_figure([CURVE]).axes
    assert len(panel.lines) == len(known.lines) - 1


def test_bleu_is_drawn_in_its_own_range():
    (panel,) = shots_figure([replace(CURVE, measure="bleu", scores=[10, 20, 30])]).axes
    assert panel.get_ylim() == (0, 100)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_every_task_gets_a_panel_and_the_picture_is_written(count, tmp_path):
    curves = [replace(CURVE, name=f"task_{number}") for number in range(count)]
    figure = shots_figure(curves)
    shown = [panel.get_title().strip() for panel in figure.axes if panel.axison]
    assert shown == [curve.name for curve in curves]
    path = save_png(figure, tmp_path / "shots.png")
    assert path.read_bytes().startswith(b"\x89PNG")
