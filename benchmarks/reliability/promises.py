"""What a script expects, what it saw, and whether the two agree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.serialize import write_json


class Promise(NamedTuple):
    """One thing that has to hold.

    what: the case. expected, seen: in words. kept: whether it held.
    """

    what: str
    expected: str
    seen: str
    kept: bool


def table(promises: Sequence[Promise]) -> str:
    """Markdown, a row a promise."""
    lines = ["| case | expected | seen | kept |", "|---|---|---|---|"]
    for promise in promises:
        cells = (cell.replace("|", "/").replace("\n", " ") for cell in promise[:3])
        lines.append(f"| {' | '.join(cells)} | {'yes' if promise.kept else '**no**'} |")
    return "\n".join(lines)


def conclude(
    promises: Sequence[Promise], record: Mapping[str, Any], out: Path | None = None
) -> int:
    """Prints the table and writes the record; the exit status, 1 if a promise was broken."""
    print(table(promises))
    broken = [promise.what for promise in promises if not promise.kept]
    print(f"{len(promises) - len(broken)} of {len(promises)} promises kept")
    if out:
        write_json(out, {**record, "promises": [promise._asdict() for promise in promises]})
    return 1 if broken or not promises else 0
