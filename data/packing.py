"""Rows packed from a token stream: row i is a pure function of (stream, seed, i).

What the policies share: what a row is, and what became of the tokens it was made from. The
policies themselves: `concatenate`, `best_fit`, `length_buckets`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from configs.data_config import Documents
from configs.objective_config import ExampleLengths
from data.token_stream import TokenSource
from data.tokenizer import PAD_ID


class RowShape(NamedTuple):
    """Tokens an objective wants in a row, and how many of them the next row of a cut text repeats.

    Causal language modelling reads seq_len + 1 tokens and overlaps by one: then the last input of
    a row has its target, and every token of a cut text is a target once. Span corruption reads
    more tokens than its encoder has places, and repeats none.
    """

    tokens: int
    overlap: int

    @classmethod
    def of(cls, lengths: ExampleLengths) -> "RowShape":
        """The shape of the rows that become examples of these lengths."""
        return cls(lengths.tokens, lengths.overlap)

    @property
    def stride(self) -> int:
        """Tokens from one row of a cut text to the next."""
        return self.tokens - self.overlap


class RowCounts(NamedTuple):
    """Where a row's tokens came from; every place of a row is counted in one of the first three.

    read: tokens that no other row of the epoch counts. repeated: tokens that another row holds
    too, as the overlap of a cut. padded: places without a token. truncated: tokens of the row's
    documents that no row holds. cuts: segments that begin inside their document.
    """

    read: int
    repeated: int
    padded: int
    truncated: int
    cuts: int


class Row(NamedTuple):
    """One row of tokens, each field int32 [tokens]; segments count from 1, 0 is padding.

    Example, where 2 is <s>, 3 is </s> and 0 is padding:
        tokens       [7, 8, 3, 2, 9, 3, 0]
        segment_ids  [1, 1, 1, 2, 2, 2, 0]
        positions    [0, 1, 2, 0, 1, 2, 0]
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    counts: RowCounts
    epoch: int


class Packing(Protocol):
    """Rows of one stream under one policy. Random access, safe to share among threads.

    Attributes:
        stream: where the tokens come from.
        rows_per_epoch: rows that together hold the stream once.
        dropped_per_epoch: tokens that no row of an epoch holds, nor counts as truncated.
    """

    stream: TokenSource
    rows_per_epoch: int
    dropped_per_epoch: int

    def length(self, number: int) -> int:
        """The row length a row is made for: data.seq_len, or that of the row's bucket. What
        lengths its example has is for the objective to say."""
        ...

    def row(self, number: int) -> Row:
        """Row number `number`, 0 or more, without an end; number // rows_per_epoch is its epoch."""
        ...


class Piece(NamedTuple):
    """A run of tokens of one document: where it starts in the stream, how long it is, and how many
    of its first tokens are an overlap that repeats the piece before it (0 where none does)."""

    start: int
    length: int
    repeated: int
    is_cut: bool


def slice_row(
    tokens: np.ndarray, starts: np.ndarray, *, shape: RowShape, documents: Documents, epoch: int
) -> Row:
    """A full row from a slice of the stream.

    Args:
        tokens: int32 [tokens].
        starts: bool [tokens], true where a document starts.
        documents: "separate" numbers the documents as segments; "joined" makes one segment.
    """
    index = np.arange(len(tokens), dtype=np.int32)
    counts = RowCounts(shape.stride, shape.overlap, 0, 0, int(not starts[0]))
    if documents == "joined":
        return Row(tokens, np.ones_like(index), index, counts, epoch)
    opens = starts.copy()
    opens[0] = True
    segment_ids = np.cumsum(opens, dtype=np.int32)
    first = np.flatnonzero(opens).astype(np.int32)
    return Row(tokens, segment_ids, index - first[segment_ids - 1], counts, epoch)


def pieces_row(
    stream: TokenSource,
    pieces: Sequence[Piece],
    *,
    size: int,
    documents: Documents,
    epoch: int,
    truncated: int = 0,
) -> Row:
    """A row of `size` places that holds pieces one after another, then padding."""
    tokens = np.full(size, PAD_ID, np.int32)
    segment_ids, positions = np.zeros(size, np.int32), np.zeros(size, np.int32)
    filled = 0
    for segment, piece in enumerate(pieces, start=1):
        end = filled + piece.length
        tokens[filled:end] = stream.read(piece.start, piece.length)[0]
        segment_ids[filled:end] = segment
        positions[filled:end] = np.arange(piece.length)
        filled = end
    if documents == "joined":
        segment_ids[:filled] = 1
        positions[:filled] = np.arange(filled)
    repeated = sum(piece.repeated for piece in pieces)
    counts = RowCounts(
        read=filled - repeated,
        repeated=repeated,
        padded=size - filled,
        truncated=truncated,
        cuts=sum(piece.is_cut for piece in pieces),
    )
    return Row(tokens, segment_ids, positions, counts, epoch)
