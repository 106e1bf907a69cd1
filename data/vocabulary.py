"""How well a vocabulary fits a text: tokens, pieces used, words broken.

A word is what stands between whitespace (`str.split`), its punctuation included: `self.data,` is
one word. A text that puts no spaces between words has few and long ones; its tokens per word mean
little, its bytes per token do. Lists of words leave out those of fewer than two letters.

Totals are of the text itself, without <s> and </s>. Words are looked at one by one, each distinct
one encoded once behind a space, as in running text; after a line's end it may be cut otherwise.
"""

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from configs.errors import require
from data.sources.text_source import Document, Problems, TextSource
from data.tokenizer import NUM_BYTE_PIECES, Tokenizer

PART_BYTES = 16_384
MIN_SPLIT_DOCUMENTS = 20

WordCuts = Mapping[str, np.ndarray]


class Part(NamedTuple):
    """A stretch of a document of at most `PART_BYTES`, cut at a line's end where there is one."""

    document_id: str
    number: int
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode("utf-8")


class Sample(NamedTuple):
    """Parts drawn from documents, in their order; and how many documents and bytes were read."""

    parts: list[Part]
    num_documents: int
    num_bytes: int


class Halves(NamedTuple):
    """Two halves of a sample; `unit` is what was kept whole."""

    train: list[Part]
    measured: list[Part]
    unit: Literal["documents", "parts"]


@dataclass(frozen=True, kw_only=True)
class TokenizerUse:
    """What a tokenizer made of a text.

    num_specials: pieces no text can produce, control symbols among them. byte_tokens: tokens that
    are byte pieces (`<0xNN>`), which spell characters the vocabulary lacks; byte_characters: those
    characters. pieces_used: distinct pieces that occur.
    single_piece_words: words, counted as often as they occur, that are one piece with their space.
    spelled_bytes: UTF-8 bytes the tokens stand for; other than `num_bytes` where the tokenizer
    changes text instead of spelling it.
    """

    vocab_size: int
    num_specials: int
    num_bytes: int
    num_characters: int
    num_words: int
    num_tokens: int
    byte_tokens: int
    byte_characters: int
    pieces_used: int
    single_piece_words: int
    spelled_bytes: int

    @property
    def bytes_per_token(self) -> float:
        return self.num_bytes / self.num_tokens

    @property
    def tokens_per_word(self) -> float:
        return self.num_tokens / self.num_words

    @property
    def byte_token_share(self) -> float:
        return self.byte_tokens / self.num_tokens

    @property
    def byte_character_share(self) -> float:
        return self.byte_characters / self.num_characters

    @property
    def vocabulary_used(self) -> float:
        """Share of the pieces a text can produce that occur."""
        return self.pieces_used / (self.vocab_size - self.num_specials)

    @property
    def single_piece_share(self) -> float:
        return self.single_piece_words / self.num_words

    @property
    def fixed_width_bits_per_byte(self) -> float:
        """Size of the text when each token takes log2(vocabulary) bits, per byte.

        By this BloombergGPT's vocabulary size was chosen (arXiv 2303.17564, section 2.3). It weighs
        shorter texts against longer code words; it is no model's loss.
        """
        return math.log2(self.vocab_size) / self.bytes_per_token


@dataclass(frozen=True, kw_only=True)
class BrokenWord:
    """A word of a text and the pieces it takes, its leading space (U+2581) among them."""

    word: str
    count: int
    pieces: tuple[str, ...]

    @property
    def extra_tokens(self) -> int:
        """Tokens the text would save if the word were one piece."""
        return self.count * (len(self.pieces) - 1)

    @property
    def pieces_per_character(self) -> float:
        """1 when spelled letter by letter, more when in bytes; the leading space is a character."""
        return len(self.pieces) / (len(self.word) + 1)


def draw_documents(source: TextSource, *, max_bytes: int, seed: int = 0) -> Iterator[Document]:
    """Documents of a source, its shards in an order drawn by a hash, until `max_bytes` were read.

    A shorter source is read whole. The last document may go beyond `max_bytes`.

    Raises:
        InputError: a document cannot be read.
    """
    shards, num_bytes = source.shards(), 0
    for index in sorted(range(len(shards)), key=lambda i: _rank("shard", seed, i)):
        for document in shards[index].documents(Problems()):
            yield document
            num_bytes += len(document.data)
            if num_bytes >= max_bytes:
                return


def sample_parts(documents: Iterable[Document], *, max_bytes: int, seed: int = 0) -> Sample:
    """Draws parts of documents by a hash of (seed, document, part number).

    Every part is as likely as any other, whatever the order of the documents; a text of at most
    `max_bytes` is taken whole. Memory stays within `max_bytes`.

    Args:
        documents: the text, read once to its end.
        max_bytes: UTF-8 bytes to draw at most, `PART_BYTES` or more.
        seed: decides which parts are drawn.
    """
    require(max_bytes >= PART_BYTES, "max_bytes", max_bytes, f"{PART_BYTES} or more bytes")
    kept: list[tuple[int, int, Part]] = []  # a heap: the part with the largest hash is on top
    kept_bytes, total_bytes, num_documents, index = 0, 0, 0, 0
    ceiling = math.inf  # what was dropped once stays out, so that order does not matter
    for document in documents:
        num_documents += 1
        total_bytes += len(document.data)
        for part in _parts(document):
            rank, index = _rank("sample", seed, part.document_id, part.number), index + 1
            if rank >= ceiling:
                continue
            heapq.heappush(kept, (-rank, index, part))
            kept_bytes += len(part.data)
            while kept_bytes > max_bytes:
                dropped_rank, _, dropped = heapq.heappop(kept)
                kept_bytes -= len(dropped.data)
                ceiling = -dropped_rank
    parts = [part for _, _, part in sorted(kept, key=lambda entry: entry[1])]
    return Sample(parts, num_documents, total_bytes)


def split_in_halves(parts: Sequence[Part], *, seed: int = 0) -> Halves:
    """Splits a sample into two halves of about equal bytes, by a hash.

    Documents stay whole where there are `MIN_SPLIT_DOCUMENTS` or more and none is so long that a
    half gets less than a quarter of the bytes; otherwise parts do, and both halves may hold parts
    of the same document.

    Raises:
        InputError: a single part cannot be split.
    """
    require(
        len(parts) >= 2,
        "text",
        f"{sum(len(part.data) for part in parts)} bytes",
        f"more than {PART_BYTES}, to train a tokenizer on one half and measure on the other",
    )
    names = {part.document_id for part in parts}
    if len(names) >= MIN_SPLIT_DOCUMENTS:
        ranks = {name: _rank("half", seed, name) for name in names}
        train, measured = _halves(parts, [ranks[part.document_id] for part in parts])
        sizes = [sum(len(part.data) for part in half) for half in (train, measured)]
        if min(sizes) >= sum(sizes) / 4:
            return Halves(train, measured, "documents")
    ranks = [_rank("half", seed, part.document_id, part.number) for part in parts]
    return Halves(*_halves(parts, ranks), "parts")


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs.

    Example: ["to be or", "not to be"] -> {"to": 2, "be": 2, "or": 1, "not": 1}
    """
    words: Counter[str] = Counter()
    for text in texts:
        words.update(text.split())
    return words


def cut_words(tokenizer: Tokenizer, words: Iterable[str]) -> WordCuts:
    """Each word's token ids, int32, encoded behind a space."""
    return {word: tokenizer.encode_array(f" {word}") for word in words}


def tokenizer_use(
    tokenizer: Tokenizer, texts: Iterable[str], words: Mapping[str, int], cuts: WordCuts
) -> TokenizerUse:
    """Measures a tokenizer on texts.

    Args:
        tokenizer: the tokenizer.
        texts: stretches of text, each encoded on its own.
        words: their `count_words`.
        cuts: the tokenizer's `cut_words` of these words.

    Raises:
        InputError: texts without a word.
    """
    require(bool(words), "text", "no words", "text that is not whitespace alone")
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    num_bytes, num_characters = 0, 0
    for text in texts:
        num_bytes += len(text.encode())
        num_characters += len(text)
        counts += np.bincount(tokenizer.encode_array(text), minlength=tokenizer.vocab_size)
    by_byte = counts[_byte_ids(tokenizer)]
    return TokenizerUse(
        vocab_size=tokenizer.vocab_size,
        num_specials=int(tokenizer.symbols.is_special.sum()),
        num_bytes=num_bytes,
        num_characters=num_characters,
        num_words=sum(words.values()),
        num_tokens=int(counts.sum()),
        byte_tokens=int(by_byte.sum()),
        # A character in bytes has one that is no continuation (0x80 to 0xBF).
        byte_characters=int(by_byte[:0x80].sum() + by_byte[0xC0:].sum()),
        pieces_used=int((counts > 0).sum()),
        single_piece_words=sum(count for word, count in words.items() if len(cuts[word]) == 1),
        spelled_bytes=int(counts @ tokenizer.piece_bytes),
    )


def costliest_words(
    tokenizer: Tokenizer, words: Mapping[str, int], cuts: WordCuts, *, top: int
) -> list[BrokenWord]:
    """The words that lengthen the text most: by count × (pieces − 1), ties by spelling."""
    candidates = (w for w in words if _is_broken(w, cuts))
    ranked = heapq.nsmallest(top, candidates, key=lambda w: (-words[w] * (len(cuts[w]) - 1), w))
    return [_broken(tokenizer, w, words[w], cuts[w]) for w in ranked]


def finest_cut_words(
    tokenizer: Tokenizer, words: Mapping[str, int], cuts: WordCuts, *, top: int, min_count: int
) -> list[BrokenWord]:
    """The words cut finest: by pieces per character, then by pieces, then by count.

    Args:
        min_count: words that occur less often are left out.
    """
    candidates = (w for w, count in words.items() if count >= min_count and _is_broken(w, cuts))
    ranked = heapq.nsmallest(
        top,
        candidates,
        key=lambda w: (-len(cuts[w]) / (len(w) + 1), -len(cuts[w]), -words[w], w),
    )
    return [_broken(tokenizer, w, words[w], cuts[w]) for w in ranked]


def _is_broken(word: str, cuts: WordCuts) -> bool:
    return len(cuts[word]) > 1 and sum(map(str.isalpha, word)) >= 2


def _broken(tokenizer: Tokenizer, word: str, count: int, ids: np.ndarray) -> BrokenWord:
    return BrokenWord(word=word, count=count, pieces=tuple(tokenizer.pieces[i] for i in ids))


def _byte_ids(tokenizer: Tokenizer) -> np.ndarray:
    """The id of each byte's piece, int [256]."""
    ids = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    return np.array([ids[f"<0x{byte:02X}>"] for byte in range(NUM_BYTE_PIECES)])


def _parts(document: Document) -> Iterator[Part]:
    data, start, number = document.data, 0, 0
    while start < len(data):
        stop = start + PART_BYTES
        if stop < len(data):
            stop = _cut(data, start, stop)
        yield Part(document.id, number, data[start:stop])
        start, number = stop, number + 1


def _cut(data: bytes, start: int, stop: int) -> int:
    """Where to cut at or before `stop`: after a line, else before a space, else a character."""
    if line_end := data.rfind(b"\n", start, stop) + 1:
        return line_end
    if (space := data.rfind(b" ", start + 1, stop)) > 0:
        return space
    while data[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop


def _halves(parts: Sequence[Part], ranks: Sequence[int]) -> tuple[list[Part], list[Part]]:
    """Parts of the lowest ranks up to half the bytes, and the rest, each in the order given.

    Parts of one rank stay together; no half is empty where there are two ranks.
    """
    sizes: Counter[int] = Counter()
    for part, rank in zip(parts, ranks, strict=True):
        sizes[rank] += len(part.data)
    order = sorted(sizes)
    half, taken, first = sizes.total() / 2, 0, set()
    for rank in order[:-1]:
        if first and taken + sizes[rank] / 2 > half:
            break
        first.add(rank)
        taken += sizes[rank]
    pairs = list(zip(parts, ranks, strict=True))
    return [p for p, rank in pairs if rank in first], [p for p, rank in pairs if rank not in first]


def _rank(*key: object) -> int:
    text = "\0".join(map(str, key)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
