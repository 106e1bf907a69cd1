"""A corpus: text made into token streams on disk, with its tokenizer and a card.

OUT/corpus.json       the card, written last: a folder without one is not a corpus
OUT/corpus.md         the card for a person
OUT/tokenizer.model   SentencePiece
OUT/token_chunks/     TFDS dataset of token chunks, splits train and held_out

A split's stream is its documents, each as <s> tokens </s>, one after another, in an order shuffled
when the corpus is prepared (prepare.py). Reading is circular: after the last token comes the first.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.errors import InputError
from data.corpus_card import SPLITS, SplitCard, check_files, read_card, require_card
from data.token_chunks import CHUNK_TOKENS, token_dtype
from data.token_stream import TokenStream
from data.tokenizer import Tokenizer

TOKENIZER_NAME = "tokenizer.model"


class EncodedDocument(NamedTuple):
    """A document's token ids int32 [n], without <s> and </s>, and its length in UTF-8 bytes."""

    tokens: np.ndarray
    num_bytes: int


class Corpus:
    """An opened corpus.

    Attributes:
        path: its folder.
        card: the contents of corpus.json.
        tokenizer: what its tokens mean.
        splits: split -> counts.
    """

    def __init__(self, path: Path, card: Mapping[str, Any], tokenizer: Tokenizer):
        self.path, self.card, self.tokenizer = path, card, tokenizer
        self.splits = {split: SplitCard(**card["splits"][split]) for split in SPLITS}
        dtype = token_dtype(tokenizer.vocab_size)
        self._streams = {
            split: TokenStream(
                _record_paths(path, card, split),
                num_tokens=counts.tokens,
                num_documents=counts.documents,
                dtype=dtype,
            )
            for split, counts in self.splits.items()
        }

    @property
    def sha(self) -> str:
        """Hash of documents, tokenizer, seed and format: equal means the same streams."""
        return self.card["sha"]

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of training text per token of its stream, <s> and </s> included."""
        return self.splits["train"].bytes / self.splits["train"].tokens

    def stream(self, split: str = "train") -> TokenStream:
        """The tokens of "train" or "held_out"."""
        return self._streams[split]

    def documents(self, split: str) -> Iterator[EncodedDocument]:
        """The documents of a split in the order of its stream."""
        stream = self._streams[split]
        parts: list[np.ndarray] = []
        for begin in range(0, stream.num_tokens, CHUNK_TOKENS):
            tokens, starts = stream.read(begin, min(CHUNK_TOKENS, stream.num_tokens - begin))
            continued, *opened = np.split(tokens, np.flatnonzero(starts))
            parts.append(continued)
            for part in opened:
                if any(map(len, parts)):
                    yield self._document(np.concatenate(parts))
                parts = [part]
        yield self._document(np.concatenate(parts))

    def text(self, split: str) -> bytes:
        """All documents of a split as UTF-8, one after another, in the order of its stream."""
        return b"".join(
            self.tokenizer.decode(document.tokens).encode() for document in self.documents(split)
        )

    def _document(self, tokens: np.ndarray) -> EncodedDocument:
        inner = tokens[1:-1]
        return EncodedDocument(inner, int(self.tokenizer.piece_bytes[inner].sum()))


def verify_corpus(
    path: str | os.PathLike, progress: Callable[[float], None] = lambda fraction: None
) -> Corpus:
    """Opens a corpus after reading all of it: every byte of its files, every chunk's CRC.

    Args:
        progress: called with the fraction of chunks that were read, 0 to 1.

    Raises:
        InputError: whatever `open_corpus` raises, or damage anywhere; names the file.
    """
    corpus = open_corpus(path)
    check_files(corpus.path, corpus.card, full=True)
    total = sum(split.chunks for split in corpus.splits.values())
    done = 0
    for split in SPLITS:
        for _ in corpus.stream(split).check():
            done += 1
            progress(done / total)
    return corpus


def open_corpus(path: str | os.PathLike) -> Corpus:
    """Opens a folder that `isoflop prepare` wrote, and checks it before anything is read.

    Missing and truncated files, another tokenizer and damaged file ends are found here; a damaged
    chunk of a large corpus when it is read, or by `verify_corpus`.

    Raises:
        InputError: no corpus there, a card that is not ours, a damaged tokenizer, files that are
            missing or differ from the card, or a corpus without text. One line, naming the file.
    """
    folder = Path(path)
    card = read_card(folder)
    tokenizer = Tokenizer.load(folder / TOKENIZER_NAME)
    require_card(
        tokenizer.sha == card["tokenizer_sha"],
        "tokenizer_sha",
        tokenizer.sha,
        card["tokenizer_sha"],
    )
    require_card(
        tokenizer.vocab_size == card["vocab_size"],
        "vocab_size",
        card["vocab_size"],
        f"the tokenizer's {tokenizer.vocab_size}",
    )
    check_files(folder, card)
    return Corpus(folder, card, tokenizer)


def intact_corpus(folder: Path) -> Corpus | None:
    """The corpus in a folder, or None if there is none or it is damaged."""
    try:
        return open_corpus(folder)
    except InputError:
        return None


def _record_paths(folder: Path, card: Mapping[str, Any], split: str) -> list[Path]:
    return [folder / name for name in sorted(card["files"]) if f"-{split}.array_record" in name]
