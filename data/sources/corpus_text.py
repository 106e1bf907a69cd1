"""The documents of a prepared corpus as text, to be prepared again with another tokenizer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.corpus import Corpus, open_corpus
from data.corpus_card import SPLITS
from data.sources.text_source import Document, Problems


@dataclass(frozen=True)
class CorpusShard:
    """One split of a corpus."""

    folder: Path
    split: str

    @property
    def name(self) -> str:
        """The corpus's folder and the split."""
        return f"{self.folder} ({self.split})"

    def documents(self, problems: Problems) -> Iterator[Document]:
        """Its documents in the order of the stream, as split/number."""
        corpus = open_corpus(self.folder)
        for number, document in enumerate(corpus.documents(self.split)):
            text = corpus.tokenizer.decode(document.tokens)
            if text.strip():
                yield Document(f"{self.split}/{number}", text.encode())
            else:
                problems.blank()


class CorpusSource:
    """Every document of a corpus; what it holds out stays held out."""

    kind = "corpus"

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def _corpus(self) -> Corpus:
        return open_corpus(self.folder)

    @property
    def pinned_held_out(self) -> frozenset[str]:
        count = self._corpus.splits["held_out"].documents
        return frozenset(f"held_out/{number}" for number in range(count))

    def shards(self) -> Sequence[CorpusShard]:
        """One a split."""
        return [CorpusShard(self.folder, split) for split in SPLITS]

    def size_bytes(self) -> int:
        """Of all documents' text."""
        return sum(split.bytes for split in self._corpus.splits.values())

    def signature(self) -> str:
        """The corpus's hash."""
        return self._corpus.sha

    def describe(self) -> dict[str, str]:
        """What the corpus card says: where the other corpus's text was from."""
        return {str(k): str(v) for k, v in self._corpus.card["source"].items()}
