"""Boxes, arrows and layers of a transformer, as SVG."""

import html
from dataclasses import dataclass, field
from pathlib import Path

IMAGES = Path(__file__).parent / "images"

INK, FAINT, LINE = "#1f2933", "#616e7c", "#9aa5b1"
FILLS = {
    "text": "#ffffff",
    "data": "#e4e7eb",
    "attention": "#c7ddf5",
    "memory": "#fbd9b5",
    "mlp": "#cdebd3",
    "norm": "#f3eccb",
    "head": "#e6d5f0",
}


@dataclass
class Drawing:
    """SVG under construction; y grows downwards."""

    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, w: float, h: float, label: str, kind: str) -> None:
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{FILLS[kind]}" '
            f'stroke="{LINE}"/>'
        )
        lines = label.split("\n")
        for number, line in enumerate(lines):
            at = y + h / 2 + 4.5 + 16 * (number - (len(lines) - 1) / 2)
            self.label(x + w / 2, at, line, anchor="middle")

    def label(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        size: int = 13,
        color: str = INK,
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{color}"'
            f"{weight}>{html.escape(text)}</text>"
        )

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        path = " ".join(f"{'M' if i == 0 else 'L'}{x} {y}" for i, (x, y) in enumerate(points))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{FAINT}" stroke-width="1.4"{dash} '
            'marker-end="url(#head)"/>'
        )

    def plus(self, x: float, y: float) -> None:
        """Where a residual is added."""
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="10" fill="#fff" stroke="{FAINT}"/>')
        self.label(x, y + 5, "+", anchor="middle", size=15)

    def frame(self, x: float, y: float, w: float, h: float, note: str) -> None:
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="10" fill="none" '
            f'stroke="{FAINT}" stroke-dasharray="2 3"/>'
        )
        self.label(x + w - 8, y + 18, note, anchor="end", size=14, bold=True, color=FAINT)

    def save(self, name: str, title: str) -> None:
        marker = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{FAINT}"/></marker>'
        )
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" '
            'font-family="Helvetica, Arial, sans-serif" role="img">'
            f"<title>{html.escape(title)}</title><defs>{marker}</defs>"
            f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(self.parts)}</svg>\n'
        )
        (IMAGES / name).write_text(svg, encoding="utf-8")


Step = tuple[str, str]  # label, kind

W, GAP = 250, 16


def column(drawing: Drawing, x: float, y: float, steps: list[Step]) -> list[float]:
    """Boxes one under another with arrows between; the top of each."""
    tops = []
    for number, (label, kind) in enumerate(steps):
        h = 20 + 16 * len(label.split("\n"))
        if number:
            drawing.arrow((x + W / 2, y - GAP), (x + W / 2, y))
        drawing.box(x, y, W, h, label, kind)
        tops.append(y)
        y += h + GAP
    tops.append(y - GAP)
    return tops


def layer(drawing: Drawing, x: float, y: float, sublayers: list[Step], note: str) -> float:
    """One repeated layer: each sublayer with its norm before it and the residual around both."""
    top = y
    y += 30
    drawing.arrow((x + W / 2, top - GAP), (x + W / 2, y))
    for number, (label, kind) in enumerate(sublayers):
        begin = y - GAP / 2
        if number:
            drawing.arrow((x + W / 2, y - GAP), (x + W / 2, y))
        tops = column(drawing, x, y, [("norm", "norm"), (label, kind)])
        plus = tops[-1] + 20
        drawing.arrow((x + W / 2, tops[-1]), (x + W / 2, plus - 10))
        drawing.plus(x + W / 2, plus)
        side = x - 18
        drawing.arrow((x + W / 2, begin), (side, begin), (side, plus), (x + W / 2 - 10, plus))
        y = plus + 10 + GAP
    drawing.frame(x - 34, top, W + 60, y - top, note)
    return y
