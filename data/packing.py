"""Rows cut from the token stream: row i is a pure function of (seed, i).

The stream is circular. An epoch cuts it into R = num_tokens // seq_len slots of seq_len tokens,
from an offset drawn from (seed, epoch), and visits the slots in an order drawn from (seed, epoch).
A row is its slot and one more token, so R * seq_len tokens are each a target exactly once per
epoch and num_tokens % seq_len tokens are dropped, others in every epoch. Nothing is stored: a
Feistel network gives the i-th element of the permutation directly.
"""

from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from configs.errors import require

_NUM_ROUNDS = 6
_MASK_64 = 2**64 - 1


class TokenSource(Protocol):
    """A circular token stream with random access."""

    @property
    def num_tokens(self) -> int:
        """Tokens in one turn of the stream."""
        ...

    def read(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int32 [length] from `start` on, and whether each starts a document, bool."""
        ...


class RowSpan(NamedTuple):
    """Where a row comes from: its epoch, and the offset in the stream of its first token."""

    epoch: int
    start: int


class Row(NamedTuple):
    """`seq_len + 1` consecutive tokens of the stream, each int32 [seq_len + 1].

    Example, where token 2 is <s> and 3 is </s>:
        tokens       [7, 8, 3, 2, 9, 3]
        segment_ids  [1, 1, 1, 2, 2, 2]
        positions    [0, 1, 2, 0, 1, 2]
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray


def rows_per_epoch(num_tokens: int, seq_len: int) -> int:
    """Rows in one epoch.

    Raises:
        InputError: the stream is shorter than one row of seq_len + 1 tokens.
    """
    require(
        1 <= seq_len < num_tokens,
        "data.seq_len",
        seq_len,
        f"fewer than the corpus's {num_tokens} tokens (shorten it, or prepare more text)",
    )
    return num_tokens // seq_len


def row_span(seed: int, row: int, *, num_tokens: int, seq_len: int) -> RowSpan:
    """The epoch and stream offset of row number `row`, from 0 on without an end.

    Args:
        seed: of the data, 0 to 2**32 - 1.
        row: row number over the whole run; row // rows_per_epoch is the epoch.
        num_tokens: tokens in the stream.
        seq_len: tokens a row predicts.

    Returns:
        The span; the row's tokens are `start` to `start + seq_len`, both included, modulo
        num_tokens.
    """
    epoch, index = divmod(row, rows_per_epoch(num_tokens, seq_len))
    offset, *keys = _epoch_keys(seed, epoch)
    slot = permuted(index, num_tokens // seq_len, tuple(keys))
    return RowSpan(epoch, (offset % num_tokens + slot * seq_len) % num_tokens)


def read_row(stream: TokenSource, seed: int, row: int, *, seq_len: int) -> Row:
    """Reads row number `row` of the stream."""
    span = row_span(seed, row, num_tokens=stream.num_tokens, seq_len=seq_len)
    return pack_row(*stream.read(span.start, seq_len + 1))


def pack_row(tokens: np.ndarray, starts: np.ndarray) -> Row:
    """Numbers the documents of a slice of the stream, and the tokens within each.

    Args:
        tokens: int32 [length].
        starts: bool [length], true where a document starts.

    Returns:
        The row: segment ids count from 1 and grow at each start; positions are 0 at each start
        and at the row's own first token.
    """
    index = np.arange(len(tokens), dtype=np.int32)
    opens = starts.copy()
    opens[0] = True
    segment_ids = np.cumsum(opens, dtype=np.int32)
    positions = index - np.maximum.accumulate(np.where(opens, index, 0))
    return Row(tokens.astype(np.int32, copy=False), segment_ids, positions.astype(np.int32))


def permuted(index: int, size: int, keys: tuple[int, ...]) -> int:
    """The image of `index` under a keyed permutation of range(size), without a table.

    A balanced Feistel network permutes the smallest range of 2**(2k) numbers that holds `size`;
    walking on until a number below `size` comes up (under 4 steps on average) makes it a
    permutation of range(size) (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").

    Args:
        index: 0 to size - 1.
        size: of the permuted range.
        keys: one 64-bit number a round.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    value = index
    while True:
        left, right = value >> half_bits, value & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        value = left << half_bits | right
        if value < size:
            return value


@lru_cache(maxsize=8)
def _epoch_keys(seed: int, epoch: int) -> tuple[int, ...]:
    """The offset's random number and the rounds' keys; SeedSequence is stable across versions."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1 + _NUM_ROUNDS, np.uint64)
    return tuple(map(int, state))


def _mix(x: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on every bit."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK_64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK_64
    return x ^ x >> 31
