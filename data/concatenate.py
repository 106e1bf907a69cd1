"""Concatenate and split: rows are consecutive slices of the stream, always full.

The stream is circular. An epoch cuts it into R = num_tokens // stride slots of `stride` tokens,
from an offset drawn from (seed, epoch), and visits the slots in an order drawn from (seed, epoch).
A row is its slot and the overlap after it, so R * stride tokens are each read exactly once per
epoch and num_tokens % stride tokens are dropped, others in every epoch. Nothing is stored.
"""

from typing import NamedTuple

from configs.data_config import ConcatenateConfig
from configs.errors import require
from data.packing import Row, RowShape, slice_row
from data.permutation import epoch_keys, permuted
from data.token_stream import TokenSource


class RowSpan(NamedTuple):
    """Where a row comes from: its epoch, and the offset in the stream of its first token."""

    epoch: int
    start: int


class Concatenate:
    """A `Packing` (packing.py)."""

    def __init__(
        self,
        config: ConcatenateConfig,
        stream: TokenSource,
        shape: RowShape,
        *,
        seq_len: int,
        seed: int,
    ):
        """Raises InputError if the stream is shorter than a row."""
        self.stream, self._config, self._shape = stream, config, shape
        self._seq_len, self._seed = seq_len, seed
        num_tokens = stream.num_tokens
        require(
            1 <= shape.stride and shape.tokens <= num_tokens,
            "data.seq_len",
            shape.stride,
            f"fewer than the corpus's {num_tokens} tokens (shorten it, or prepare more text)",
        )
        self.rows_per_epoch, self.dropped_per_epoch = divmod(num_tokens, shape.stride)

    def span(self, number: int) -> RowSpan:
        """The epoch and stream offset of a row."""
        epoch, index = divmod(number, self.rows_per_epoch)
        offset, *keys = epoch_keys(self._seed, epoch)
        slot = permuted(index, self.rows_per_epoch, tuple(keys))
        num_tokens = self.stream.num_tokens
        return RowSpan(epoch, (offset + slot * self._shape.stride) % num_tokens)

    def length(self, number: int) -> int:
        return self._seq_len

    def row(self, number: int) -> Row:
        span = self.span(number)
        tokens, starts = self.stream.read(span.start, self._shape.tokens)
        return slice_row(
            tokens,
            starts,
            shape=self._shape,
            documents=self._config.documents,
            epoch=span.epoch,
        )
