"""How the standard library's held-out files were drawn: `python -m data.sources.stdlib_held_out`.

Run on CPython 3.11.7 it prints the pinned list, stdlib_held_out.txt. Files are put into
near-duplicate groups (near_duplicates.py); the groups are visited in the order of a seeded shuffle,
and whole groups are held out until 5% of the files and of the bytes are reached. Nothing is picked
by hand: the seed is the first for which the names that exist on 3.11, 3.12 and 3.13 are 4% to 6%
of the files and of the bytes of each, with no near duplicate among the other files.
"""

from collections.abc import Iterable, Mapping

from data.sources.near_duplicates import (
    draw_held_out,
    near_duplicate_groups,
    near_duplicate_pairs,
)
from data.sources.stdlib import StdlibSource
from data.sources.text_source import documents_of

FRACTION = 0.05
SEED = 1


def draw(texts: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The held-out ids of `texts` (id -> text), sorted, given its near-duplicate pairs."""
    sizes = {name: len(text.encode()) for name, text in texts.items()}
    return draw_held_out(near_duplicate_groups(texts, pairs), sizes, fraction=FRACTION, seed=SEED)


if __name__ == "__main__":
    library = {document.id: document.text for document in documents_of(StdlibSource())}
    for name in draw(library, near_duplicate_pairs(library)):
        print(name)
