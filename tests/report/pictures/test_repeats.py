"""The picture of repeats shows the two copies and what the second one is set against."""

import numpy as np

from report.pictures.canvas import save_png
from report.pictures.repeats import Repeated, repeats_figure


def test_a_panel_shows_both_copies_and_the_tokens_after_another_sequence(tmp_path):
    repeated = Repeated(name="text", by_place=[4.0] * 30 + [1.0] * 30, other_by_place=[3.0] * 30)
    figure = repeats_figure([repeated, repeated])
    panel = figure.axes[0]
    first, other, second, _ = [np.asarray(line.get_ydata(), float) for line in panel.lines]
    np.testing.assert_allclose(first, 4)
    np.testing.assert_allclose(other, 3)
    np.testing.assert_allclose(second, 1)
    assert [np.asarray(line.get_xdata())[0] for line in panel.lines[:3]] == [0, 30, 30]
    assert len(figure.axes) == 2
    assert save_png(figure, tmp_path / "repeats.png").stat().st_size > 1000


def test_losses_are_smoothed_over_neighbours_and_the_ends_over_those_there_are():
    spike = [0, 0, 5, 0, 0, 0, 0, 0]
    repeated = Repeated(name="text", by_place=[*spike, *[0] * 8], other_by_place=[3] * 8)
    (panel,) = repeats_figure([repeated]).axes
    first = np.asarray(panel.lines[0].get_ydata(), float)
    # Means over two places on either side: over 3, 4, 5, 5 and 5 places.
    np.testing.assert_allclose(first, [5 / 3, 5 / 4, 1, 1, 1, 0, 0, 0])
