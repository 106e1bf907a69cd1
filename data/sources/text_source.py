"""What a source of text is: documents by id, and which of them are held out."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Document(NamedTuple):
    """One document: an id that does not depend on the machine, and its text."""

    id: str
    text: str


class TextSource(Protocol):
    """Where text comes from. `documents` gives the same ids in the same order every time."""

    name: str

    def documents(self) -> Iterator[Document]:
        """Every document, training and held out, none of them empty."""
        ...

    def is_held_out(self, document_id: str) -> bool:
        """Whether the document is kept for evaluation; a pure function of the source and the id."""
        ...

    def describe(self) -> dict[str, str]:
        """What the corpus card says: kind, where from, and how the held-out ones are chosen."""
        ...
