"""Length buckets: one document a row, rows of similar length together, padded to a bucket's length.

Windows of consecutive documents, from one drawn from (seed, epoch) on, are sorted by length and
cut into groups of rows; a group is padded to the smallest bucket that holds its longest document.
Groups are shuffled as `permuted_in_blocks` says. A document beyond the longest bucket is cut off,
and what it loses counted. Rows that complete a window's last group hold nothing.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from configs.data_config import LengthBucketsConfig
from configs.errors import require
from data.packing import Piece, Row, RowShape, pieces_row
from data.permutation import epoch_keys, permuted_in_blocks
from data.token_stream import TokenSource

_WINDOW_GROUPS = 64
_BLOCK_WINDOWS = 8


class _Window(NamedTuple):
    """Documents of a window, shortest first: where each starts, and its length; int64 [n]."""

    starts: np.ndarray
    lengths: np.ndarray


class _Place(NamedTuple):
    """Where a row's document stands: epoch, window, place in it by length, and the bucket."""

    epoch: int
    window: _Window
    place: int
    bucket: int


class LengthBuckets:
    """A `Packing` (packing.py)."""

    dropped_per_epoch = 0

    def __init__(
        self,
        config: LengthBucketsConfig,
        stream: TokenSource,
        shapes: Mapping[int, RowShape],
        *,
        seed: int,
    ):
        """Args:
            shapes: row length of a bucket -> how many tokens its rows take, shortest first.

        Raises:
            InputError: no documents.
        """
        self.stream, self._seed = stream, seed
        self._row_lengths = tuple(shapes)
        # Tokens of a row, not places of its example: where each token is predicted from those
        # before it, a row takes one more.
        self._sizes = np.array([shape.tokens for shape in shapes.values()])
        self._group_rows = config.group_rows
        require(stream.num_documents > 0, "data.corpus", "no documents", "one or more")
        window_documents = _WINDOW_GROUPS * config.group_rows
        self._num_windows = -(-stream.num_documents // window_documents)
        largest = -(-stream.num_documents // self._num_windows)
        self._window_groups = -(-largest // config.group_rows)
        self.rows_per_epoch = self._num_windows * self._window_groups * config.group_rows
        self._windows = lru_cache(maxsize=4 * _BLOCK_WINDOWS)(self._window)

    def length(self, number: int) -> int:
        return self._row_lengths[self._locate(number).bucket]

    def row(self, number: int) -> Row:
        epoch, window, place, bucket = self._locate(number)
        size, pieces, truncated = int(self._sizes[bucket]), [], 0
        if place < len(window.lengths):
            length = min(int(window.lengths[place]), size)
            pieces = [Piece(int(window.starts[place]), length, 0, False)]
            truncated = int(window.lengths[place]) - length
        return pieces_row(
            self.stream, pieces, size=size, documents="separate", epoch=epoch, truncated=truncated
        )

    def _locate(self, number: int) -> "_Place":
        epoch, index = divmod(number, self.rows_per_epoch)
        group, member = divmod(index, self._group_rows)
        window_number, group = permuted_in_blocks(
            group,
            num_windows=self._num_windows,
            window_rows=self._window_groups,
            block_windows=_BLOCK_WINDOWS,
            keys=epoch_keys(self._seed, epoch)[1:],
        )
        window = self._windows(epoch, window_number)
        first = group * self._group_rows
        lengths = window.lengths[first : first + self._group_rows]
        longest = int(lengths[-1]) if len(lengths) else 0
        bucket = min(int(np.searchsorted(self._sizes, longest)), len(self._sizes) - 1)
        return _Place(epoch, window, first + member, bucket)

    def _window(self, epoch: int, window: int) -> _Window:
        count = self.stream.num_documents
        offset = epoch_keys(self._seed, epoch)[0] % count
        first = offset + count * window // self._num_windows
        size = offset + count * (window + 1) // self._num_windows - first
        turn, number = divmod(first, count)
        start = self.stream.document_start(number) + turn * self.stream.num_tokens
        starts = self._starts(start, size + 1)
        lengths = np.diff(starts)
        order = np.argsort(lengths, kind="stable")
        return _Window(starts[:-1][order], lengths[order])

    def _starts(self, start: int, count: int) -> np.ndarray:
        """The starts of `count` documents from the one at `start` on."""
        step = max(1, self.stream.num_tokens * count // self.stream.num_documents)
        found = np.zeros(0, np.int64)
        while len(found) < count:
            found = np.concatenate([found, self.stream.document_starts(start, start + step)])
            start += step
        return found[:count]
