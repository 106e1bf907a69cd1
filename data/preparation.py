"""What decides a corpus, and who is told how far its preparation is."""

from dataclasses import dataclass
from typing import Any, Protocol

from configs.errors import require
from data.control_symbols import require_symbols
from data.tokenizer import SAMPLE_BYTES, Tokenizer, require_vocab_size

# Raised when the same documents, vocabulary and seed would no longer give the same corpus.
RECIPE_VERSION = 2

_SAMPLE_BYTES_PER_PIECE = 1000


class Progress(Protocol):
    """Told how far a preparation is."""

    def __call__(
        self, stage: str, fraction: float, *, documents: int = 0, num_bytes: int = 0
    ) -> None:
        """Args:
        stage: "reading", "tokenizer", "encoding" or "writing"; the last two run side by side.
        fraction: of the stage that is done, 0 to 1.
        documents, num_bytes: done so far, where the stage counts them.
        """
        ...


def silent(stage: str, fraction: float, *, documents: int = 0, num_bytes: int = 0) -> None:
    """A `Progress` that says nothing."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What decides a corpus, and how it is made.

    Attributes:
        vocab_size: pieces of the tokenizer to train, or of the one given.
        tokenizer: one to use; None trains one.
        seed: shuffles documents and samples the tokenizer's text.
        symbols: names of the control symbols that the tokenizer is trained with, or that the one
            given must have.
        sample_bytes: of text to train the tokenizer on; 0: a kilobyte a piece, 4 MB at least.
        keep_duplicates: texts that occur more than once stay in.
        skip_problems: documents that cannot be read are counted and left out; else an error.
        workers: processes; 0: one a core this process may use. Speed only.
    """

    vocab_size: int
    tokenizer: Tokenizer | None = None
    symbols: tuple[str, ...] = ()
    seed: int = 0
    sample_bytes: int = 0
    keep_duplicates: bool = False
    skip_problems: bool = False
    workers: int = 0

    def __post_init__(self):
        require(0 <= self.seed < 2**32, "seed", self.seed, "a whole number from 0 to 2**32 - 1")
        if self.tokenizer is None:
            require_vocab_size(self.vocab_size, self.symbols)
        require(self.sample_bytes >= 0, "sample_bytes", self.sample_bytes, "0 or more bytes")
        require(self.workers >= 0, "workers", self.workers, "0 or more processes")
        if self.tokenizer is not None:
            require_symbols(self.tokenizer.symbols, self.symbols, "this preparation")

    @property
    def recipe(self) -> dict[str, Any]:
        """What besides the documents decides the corpus, as JSON types."""
        given = self.tokenizer
        symbols = self.symbols if given is None else tuple(given.symbols.ids)
        return {
            "version": RECIPE_VERSION,
            "vocab_size": self.vocab_size if given is None else given.vocab_size,
            "tokenizer_sha": None if given is None else given.sha,
            "sample_bytes": self.tokenizer_bytes if given is None else None,
            "seed": self.seed,
            "keep_duplicates": self.keep_duplicates,
            # Left out where there are none: corpora made before there were any stay the same.
            **({"symbols": list(symbols)} if symbols else {}),
        }

    @property
    def tokenizer_bytes(self) -> int:
        """Bytes of text to train the tokenizer on."""
        return self.sample_bytes or max(SAMPLE_BYTES, _SAMPLE_BYTES_PER_PIECE * self.vocab_size)
