"""Attention weights as pictures: every head small, one head large, and a page to look around in."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from report.pictures.attention_script import BODY, SCRIPT, STYLE
from report.pictures.canvas import MUTED, new_figure, style
from report.pictures.page import page_of

_MAP = "Blues"
_MAX_LABELS = 64
_LABEL_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class HeadWeights:
    """The heads of one kind of attention that are to be shown.

    kind: what it is called ("decoder self-attention"). weights_NHLM: layers, heads, queries, keys.
    queries, keys: tokens as they read. layers, heads: the numbers that the model knows them by.
    statistics: (layer, head) -> name -> value or None, as the page shows them.
    """

    kind: str
    weights_NHLM: np.ndarray
    queries: Sequence[str]
    keys: Sequence[str]
    layers: Sequence[int]
    heads: Sequence[int]
    statistics: Mapping[tuple[int, int], Mapping[str, float | None]]


def heads_figure(shown: HeadWeights) -> Figure:
    """Every layer (rows) and head (columns) as a small picture; the darkest is the weight 1."""
    rows, columns = len(shown.layers), len(shown.heads)
    side = min(2.2, 11 / columns)
    aspect = min(max(len(shown.queries) / len(shown.keys), 0.4), 2.5)
    with style():
        figure = new_figure(max(side * columns + 0.6, 3.6), max(side * aspect * rows, 1.2) + 0.6)
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, layer in enumerate(shown.layers):
            for column, head in enumerate(shown.heads):
                panel = axes[row, column]
                _draw(panel, shown.weights_NHLM[row, column])
                panel.set_xticks([])
                panel.set_yticks([])
                if row == 0:
                    panel.set_title(f"head {head}", fontsize=9, color=MUTED)
                if column == 0:
                    panel.set_ylabel(f"layer {layer}", fontsize=9)
        figure.suptitle(f"{shown.kind}: queries down, keys across", fontsize=10, color=MUTED)
    return figure


def head_figure(shown: HeadWeights, layer: int, head: int) -> Figure:
    """One head with its tokens on both axes; of a long text only every second or third is named."""
    weights_LM = shown.weights_NHLM[shown.layers.index(layer), shown.heads.index(head)]
    L, M = weights_LM.shape
    inch = min(0.2, 10 / max(L, M))
    with style():
        figure = new_figure(max(inch * M, 3) + 1.9, max(inch * L, 2.4) + 1.6)
        panel = figure.subplots()
        image = _draw(panel, weights_LM)
        for axis, tokens in ((panel.xaxis, shown.keys), (panel.yaxis, shown.queries)):
            every = -(-len(tokens) // _MAX_LABELS)
            axis.set_ticks(range(0, len(tokens), every), [_short(t) for t in tokens[::every]])
        panel.tick_params(axis="x", rotation=90, labelsize=7, length=0, pad=2)
        panel.tick_params(axis="y", labelsize=7, length=0, pad=2)
        for labels in (panel.get_xticklabels(), panel.get_yticklabels()):
            for label in labels:
                label.set_fontfamily("DejaVu Sans Mono")
                label.set_parse_math(False)
        panel.set_xlabel("key: what is looked at")
        panel.set_ylabel("query: who looks")
        panel.set_title(f"{shown.kind}, layer {layer}, head {head}", fontsize=10, color=MUTED)
        figure.colorbar(image, ax=panel, shrink=0.6, aspect=25, label="weight")
    return figure


def attention_page(title: str, kinds: Sequence[HeadWeights]) -> str:
    """A page that needs nothing else: choose a kind, layer and head; point at a weight to read it.

    Weights are stored in steps of 1/65535.
    """
    data = [
        {
            "kind": shown.kind,
            "queries": list(shown.queries),
            "keys": list(shown.keys),
            "layers": list(shown.layers),
            "heads": list(shown.heads),
            "weights": _packed(shown.weights_NHLM),
            "statistics": {
                f"{layer}.{head}": dict(values)
                for (layer, head), values in shown.statistics.items()
            },
        }
        for shown in kinds
    ]
    return page_of(title, BODY.replace("TITLE", escape(title)), data, STYLE, SCRIPT)


def page_bytes(kinds: Sequence[HeadWeights]) -> int:
    """About how large `attention_page` gets."""
    return sum(shown.weights_NHLM.size * 8 // 3 for shown in kinds)


def _draw(panel: Axes, weights_LM: np.ndarray):
    for spine in panel.spines.values():
        spine.set_visible(True)
    return panel.imshow(weights_LM, cmap=_MAP, vmin=0, vmax=1, aspect="auto", interpolation="none")


def _short(token: str) -> str:
    return token if len(token) <= _LABEL_LENGTH else token[: _LABEL_LENGTH - 1] + "…"


def _packed(weights: np.ndarray) -> str:
    steps = np.round(np.clip(weights, 0, 1) * 65535).astype("<u2")
    return base64.b64encode(steps.tobytes()).decode()
