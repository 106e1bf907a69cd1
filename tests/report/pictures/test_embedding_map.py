"""The map shows every point in the colour of its kind, and names that cover no other."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from report.pictures.embedding_map import KIND_COLORS, EmbeddingMap, map_figure, map_page
from tests.report.pictures.test_page import data_of


@pytest.fixture
def shown() -> EmbeddingMap:
    rng = np.random.default_rng(0)
    return EmbeddingMap(
        points_N2=rng.standard_normal((300, 2)).astype(np.float32),
        labels=[f"token{i}" for i in range(299)] + ["</script>"],
        kinds=[0] * 200 + [2] * 100,
        kind_names=("word", "number", "mark"),
        axes=("first, 10.0%", "second, 5.0%"),
        neighbours_NK=np.tile(np.arange(3), (300, 1)),
        cosines_NK=np.tile(np.array([0.9, 0.5, 0.25], np.float32), (300, 1)),
        marked=[250],
    )


def test_points_lie_where_they_should_in_the_colour_of_their_kind(shown):
    panel: Any = map_figure("tokens", shown).axes[0]
    words, marks, ring = panel.collections
    np.testing.assert_allclose(words.get_offsets(), shown.points_N2[:200])
    np.testing.assert_allclose(marks.get_offsets(), shown.points_N2[200:])
    np.testing.assert_allclose(ring.get_offsets(), shown.points_N2[[250]])
    assert to_hex(marks.get_facecolors()[0]) == KIND_COLORS[2]
    assert (panel.get_xlabel(), panel.get_ylabel()) == shown.axes
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    assert legend == ["word (200)", "mark (100)"]


def test_names_cover_no_other_and_the_marked_point_has_one(shown):
    figure = map_figure("tokens", shown)
    figure.draw_without_rendering()
    names = figure.axes[0].texts
    assert names[0].get_text() == "token250" and len(names) > 30
    boxes = [name.get_window_extent() for name in names]
    for a, b in combinations(boxes, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        # Widths are estimates: an edge may touch by a few pixels.
        assert wide <= 8 or high <= 4


def test_the_page_holds_points_and_neighbours(shown):
    data = data_of(map_page("tokens", shown))
    np.testing.assert_allclose(data["points"], shown.points_N2, atol=1e-4)
    assert data["labels"][-1] == "</script>" and data["marked"] == [250]
    assert data["neighbours"][7] == [0, 1, 2] and data["cosines"][7] == [0.9, 0.5, 0.25]
    assert data["axes"] == ["first, 10.0%", "second, 5.0%"]
