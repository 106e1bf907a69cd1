"""Plan against actual and the headline, as plain rows and printed by rich."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from report.compare import comparison_rows
from report.headline import headline_tiles
from report.read import RunRecord

if TYPE_CHECKING:
    from rich.console import Console

_VERDICT_STYLES = {"within": "green", "outside": "bold red", "unfinished": "dim", "unjudged": "dim"}


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table as plain text: `headers`, then `rows` with as many cells each."""

    title: str
    headers: tuple[str, ...]
    rows: list[tuple[str, ...]]


def comparison_table(run: RunRecord) -> TextTable:
    """Plan against actual, a row a quantity, numbers formatted."""
    return TextTable(
        title="plan against actual",
        headers=("quantity", "plan", "actual", "difference", "verdict"),
        rows=[
            (
                row.quantity,
                row.planned_text,
                row.actual_text,
                row.difference_text,
                row.verdict_text,
            )
            for row in comparison_rows(run)
        ],
    )


def headline_table(run: RunRecord) -> TextTable:
    """The headline numbers, a row a tile of the page."""
    return TextTable(
        title=run.name,
        headers=("measured", "value", "note"),
        rows=[(tile.label, tile.value, tile.note) for tile in headline_tiles(run)],
    )


def print_comparison(run: RunRecord, console: "Console") -> None:
    """Prints the headline and plan against actual to a rich console."""
    from rich.table import Table
    from rich.text import Text

    # Text from files goes in as Text: as a str, rich would read [brackets] in it as markup.
    headline = headline_table(run)
    table = Table(title=Text(headline.title, style="bold"), title_justify="left")
    for header, justify in zip(headline.headers, ("left", "right", "left"), strict=True):
        table.add_column(header, justify=justify)
    for cells in headline.rows:
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)

    comparison = comparison_table(run)
    table = Table(title=Text(comparison.title, style="bold"), title_justify="left")
    for header in comparison.headers:
        table.add_column(header, justify="left" if header in ("quantity", "verdict") else "right")
    for row, cells in zip(comparison_rows(run), comparison.rows, strict=True):
        *values, verdict = cells
        style = _VERDICT_STYLES[row.verdict]
        table.add_row(*(Text(value) for value in values), Text(verdict, style=style))
    console.print(table)
