"""Pictures and page show the weights they are given, under the tokens they are given."""

import base64

import numpy as np
import pytest
from matplotlib.image import imread

from report.pictures.attention import (
    HeadWeights,
    attention_page,
    head_figure,
    heads_figure,
    page_bytes,
)
from report.pictures.canvas import save_png
from tests.report.pictures.test_page import data_of

QUERIES, KEYS = ["<s>", "def", "·f", "$x_1$"], ["<s>", "a<b", "</script>", "漢", "↵"]


@pytest.fixture
def shown() -> HeadWeights:
    weights = np.random.default_rng(0).dirichlet(np.ones(5), (2, 3, 4)).astype(np.float32)
    return HeadWeights(
        kind="cross-attention",
        weights_NHLM=weights,
        queries=QUERIES,
        keys=KEYS,
        layers=[1, 4],
        heads=[0, 2, 5],
        statistics={(1, 0): {"entropy": 1.25, "previous": None}},
    )


def test_every_head_is_drawn_at_its_place(shown):
    figure = heads_figure(shown)
    panels = figure.axes
    assert len(panels) == 6
    for panel, weights_LM in zip(panels, shown.weights_NHLM.reshape(6, 4, 5), strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), weights_LM)
        assert panel.images[0].get_clim() == (0, 1)
    assert [panel.get_title() for panel in panels[:3]] == ["head 0", "head 2", "head 5"]
    assert [panels[0].get_ylabel(), panels[3].get_ylabel()] == ["layer 1", "layer 4"]


def test_the_large_view_names_queries_down_and_keys_across(shown):
    figure = head_figure(shown, 4, 2)
    panel = figure.axes[0]
    np.testing.assert_array_equal(panel.images[0].get_array(), shown.weights_NHLM[1, 1])
    assert [label.get_text() for label in panel.get_yticklabels()] == QUERIES
    assert [label.get_text() for label in panel.get_xticklabels()] == KEYS
    assert panel.yaxis_inverted(), "the first query is on top"


def test_a_long_text_names_some_of_its_tokens():
    L = 200
    shown = HeadWeights(
        kind="decoder self-attention",
        weights_NHLM=np.eye(L, dtype=np.float32)[None, None],
        queries=[f"token number {i}" for i in range(L)],
        keys=[f"{i}" for i in range(L)],
        layers=[0],
        heads=[0],
        statistics={},
    )
    panel = head_figure(shown, 0, 0).axes[0]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels[:2] == ["token numbe…"] * 2 and len(labels) == 50
    assert [label.get_text() for label in panel.get_xticklabels()][:3] == ["0", "4", "8"]


def test_pictures_of_any_token_reach_the_disk(shown, tmp_path):
    # The font has no 漢: a warning would be an error here.
    path = save_png(head_figure(shown, 1, 0), tmp_path / "new" / "head.png")
    assert imread(path).shape[0] > 200
    assert [file.name for file in path.parent.iterdir()] == ["head.png"]


def test_the_page_holds_the_weights(shown):
    page = attention_page("Attention of <run>", [shown])
    (data,) = data_of(page)
    assert (data["queries"], data["keys"]) == (QUERIES, KEYS)
    assert (data["layers"], data["heads"]) == ([1, 4], [0, 2, 5])
    assert data["statistics"] == {"1.0": {"entropy": 1.25, "previous": None}}
    steps = np.frombuffer(base64.b64decode(data["weights"]), "<u2").reshape(2, 3, 4, 5)
    np.testing.assert_allclose(steps / 65535, shown.weights_NHLM, atol=0.5 / 65535 + 1e-7)
    assert "<h1>Attention of &lt;run&gt;</h1>" in page
    assert page_bytes([shown]) == len(data["weights"])
