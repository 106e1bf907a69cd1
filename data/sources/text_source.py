"""What a source of text is: shards of documents by id, and which of them are held out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from configs.errors import InputError


class Document(NamedTuple):
    """One document: an id that does not depend on the machine, and its text as valid UTF-8.

    Bytes, because a text of hundreds of megabytes may take four times as much as a `str`.
    """

    id: str
    data: bytes

    @property
    def text(self) -> str:
        """The text as a string."""
        return self.data.decode("utf-8")


class Problems:
    """What happens to a document that cannot be read: an error, or a count of those passed over.

    Attributes:
        skipped: reason -> documents passed over for it.
    """

    def __init__(self, *, skip: bool = False):
        self.skip = skip
        self.skipped: Counter[str] = Counter()

    def report(self, reason: str, message: str) -> None:
        """Counts one document under `reason`, a few words such as "invalid UTF-8".

        Raises:
            InputError: with `message`, unless problems are to be passed over.
        """
        if not self.skip:
            raise InputError(message)
        self.skipped[reason] += 1

    def blank(self) -> None:
        """Counts one document without text, which is left out whatever the policy."""
        self.skipped["blank"] += 1


class SourceShard(Protocol):
    """A part of a source that is read on its own; can be pickled, so any process may read it."""

    @property
    def name(self) -> str:
        """What a progress bar and an error call it, such as a path."""
        ...

    def documents(self, problems: Problems) -> Iterator[Document]:
        """Its documents, blank ones left out, the same every time.

        Raises:
            InputError: it cannot be read, whatever `problems` says of single documents.
        """
        ...


class TextSource(Protocol):
    """Where text comes from."""

    @property
    def pinned_held_out(self) -> frozenset[str] | None:
        """Ids of the held-out documents where the source names them.

        None where a hash of the id decides.
        """
        ...

    def shards(self) -> Sequence[SourceShard]:
        """The parts of the source, in an order that does not change.

        Raises:
            InputError: there is nothing to read.
        """
        ...

    def size_bytes(self) -> int | None:
        """About how many bytes of text there are; None where that is unknown before reading."""
        ...

    def signature(self) -> str | None:
        """A string that changes when the text may have changed (sizes, times of change).

        None where that cannot be told; then a preparation that was interrupted reads anew.
        """
        ...

    def describe(self) -> dict[str, str]:
        """What the corpus card says: kind, where from, and how the held-out ones are chosen."""
        ...


def documents_of(source: TextSource, problems: Problems | None = None) -> Iterator[Document]:
    """Every document of a source, shard by shard."""
    problems = problems or Problems()
    for shard in source.shards():
        yield from shard.documents(problems)
