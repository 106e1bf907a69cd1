"""What all pictures share: colours, a figure, and how one gets to disk."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#2463c4", "#b8560b", "#2e7d4f", "#8a3fa0", "#63666c", "#b02a23")
MUTED, RULE = "#63666c", "#e3e3df"

_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; it belongs to no window, so any number may be open."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
    return figure


@contextmanager
def style() -> Iterator[None]:
    """A context in which axes, ticks and legends are made as all our pictures have them."""
    with matplotlib.rc_context(_STYLE), _missing_glyphs_are_boxes():
        yield


def save_png(figure: Figure, path: Path, *, dpi: int = 150) -> Path:
    """Writes a figure, replacing an older file at once; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _missing_glyphs_are_boxes():
        figure.savefig(temporary, format="png", dpi=dpi)
    os.replace(temporary, path)
    return path


def write_html(page: str, path: Path) -> Path:
    """Writes a page, replacing an older file at once; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(page.encode("utf-8", errors="replace"))
    os.replace(temporary, path)
    return path


@contextmanager
def _missing_glyphs_are_boxes() -> Iterator[None]:
    """Labels may hold characters the font lacks, which is no reason to warn or fail."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
