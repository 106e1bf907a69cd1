"""A map of vectors: points coloured by kind, as a picture and as a page to search and zoom in."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from report.pictures.canvas import MUTED, new_figure, style
from report.pictures.embedding_map_script import BODY, SCRIPT, STYLE
from report.pictures.page import page_of

# Light and dark pages show the same colours: each is told from both backgrounds.
KIND_COLORS = (
    *("#2f6fd0", "#c2410c", "#3a9a5f", "#9a4fb3", "#8a8f98", "#c9972b", "#1aa3a3", "#d0457a"),
)
_MAX_LABELS = 110


@dataclass(frozen=True, kw_only=True)
class EmbeddingMap:
    """N points in a plane.

    points_N2: coordinates. labels: what each point is. kinds: one of `kind_names` each, by number.
    axes: what either axis is called. neighbours_NK, cosines_NK: the nearest of each point in the
    full space, by index, and how near. marked: indices to point out.
    """

    points_N2: np.ndarray
    labels: Sequence[str]
    kinds: Sequence[int]
    kind_names: Sequence[str]
    axes: tuple[str, str]
    neighbours_NK: np.ndarray
    cosines_NK: np.ndarray
    marked: Sequence[int] = ()


def map_figure(title: str, shown: EmbeddingMap) -> Figure:
    """All points; names for the marked, then for as many as fit, in the order of the points."""
    with style():
        figure = new_figure(9.5, 7.2)
        panel = figure.subplots()
        kinds = np.asarray(shown.kinds)
        for kind, name in enumerate(shown.kind_names):
            of_kind = kinds == kind
            if of_kind.any():
                panel.scatter(
                    *shown.points_N2[of_kind].T,
                    s=9,
                    color=KIND_COLORS[kind],
                    alpha=0.55,
                    linewidths=0,
                    label=f"{name} ({of_kind.sum()})",
                )
        if shown.marked:
            marked = shown.points_N2[list(shown.marked)]
            panel.scatter(*marked.T, s=60, facecolors="none", edgecolors="black", linewidths=1.1)
        panel.set_xlabel(shown.axes[0])
        panel.set_ylabel(shown.axes[1])
        panel.set_title(title, fontsize=10.5, color=MUTED)
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5, markerscale=1.8)
        panel.margins(0.04)
        _name_points(figure, panel, shown)
    return figure


def map_page(title: str, shown: EmbeddingMap) -> str:
    """A page that needs nothing else: point at a token, click for its neighbours, search, zoom."""
    data = {
        "points": np.round(shown.points_N2.astype(float), 4).tolist(),
        "labels": list(shown.labels),
        "kinds": [int(kind) for kind in shown.kinds],
        "names": list(shown.kind_names),
        "colors": list(KIND_COLORS),
        "axes": list(shown.axes),
        "neighbours": shown.neighbours_NK.tolist(),
        "cosines": np.round(shown.cosines_NK.astype(float), 3).tolist(),
        "marked": [int(index) for index in shown.marked],
    }
    return page_of(title, BODY.replace("TITLE", escape(title)), data, STYLE, SCRIPT)


def _name_points(figure: Figure, panel: Axes, shown: EmbeddingMap) -> None:
    """Writes labels beside points wherever that covers no other label."""
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    pixels = panel.transData.transform(shown.points_N2)
    order = [*shown.marked, *(i for i in range(len(pixels)) if i not in set(shown.marked))]
    taken: list[tuple[float, float, float, float]] = []
    for index in order:
        x, y = pixels[index]
        width, height = (4.6 * len(shown.labels[index]) + 3) * scale, 9 * scale
        box = (x, y - height / 2, x + width, y + height / 2)
        if any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        is_marked = index in shown.marked
        panel.annotate(
            shown.labels[index],
            shown.points_N2[index],
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5 if is_marked else 7,
            fontweight="bold" if is_marked else "normal",
            color="black" if is_marked else "#3d4046",
            parse_math=False,
            annotation_clip=True,
        )
        if len(taken) >= _MAX_LABELS:
            return


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
