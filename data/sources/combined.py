"""Several sources of different kinds as one."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.sources.text_source import Document, Problems, SourceShard, TextSource


@dataclass(frozen=True)
class PrefixedShard:
    """A shard whose ids get something in front, which keeps those of different sources apart."""

    shard: SourceShard
    prefix: str

    @property
    def name(self) -> str:
        """The shard's own name."""
        return self.shard.name

    def documents(self, problems: Problems) -> Iterator[Document]:
        """The shard's documents, e.g. "stdlib:abc.py" in place of "abc.py"."""
        for document in self.shard.documents(problems):
            yield Document(id=self.prefix + document.id, data=document.data)


class CombinedSource:
    """Sources one after another. A hash of the id decides what is held out, of all of them."""

    kind = "combined"
    pinned_held_out = None

    def __init__(self, parts: Sequence[tuple[str, TextSource]]):
        """Joins them.

        Args:
            parts: what ids begin with and the source, e.g. [("stdlib:", ...), ("files:", ...)];
                no two sources may then have an id in common.
        """
        self._parts = list(parts)

    def shards(self) -> Sequence[PrefixedShard]:
        """The shards of every source in turn."""
        return [
            PrefixedShard(shard, prefix)
            for prefix, source in self._parts
            for shard in source.shards()
        ]

    def size_bytes(self) -> int | None:
        """The sum; None where one is unknown."""
        sizes = [source.size_bytes() for _, source in self._parts]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def signature(self) -> str | None:
        """A hash of the sources' signatures; None where one has none."""
        digest = hashlib.blake2b(digest_size=16)
        for prefix, source in self._parts:
            signature = source.signature()
            if signature is None:
                return None
            digest.update(f"{prefix}{signature}\n".encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, str]:
        """What the corpus card says: every part's kind and where it is from."""
        described = [source.describe() for _, source in self._parts]
        return {
            "kind": self.kind,
            "parts": "; ".join(part.get("spec", part["kind"]) for part in described),
        }
