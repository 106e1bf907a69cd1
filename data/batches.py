"""Batches of rows, and the cursor that is all the state reading has.

Row i is a pure function of (seed, i); a batch is a list of row numbers; `take_rows` draws the next
ones from a cursor. Whoever holds the cursor, on any number of machines, gets the same batches.

Shapes: B rows, L = seq_len.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from configs.errors import require
from data.objectives import Example


class Batch(NamedTuple):
    """What a train step consumes: the fields of `Example`, each with the rows in front.

    inputs, targets: int32 [B, L]. loss_weights: float32 [B, L], 0 where the target does not count.
    positions, segment_ids: int32 [B, L]; segment 0 is padding. prefix: int32 [B, L] or None.
    encoder_inputs, encoder_positions, encoder_segment_ids: int32 [B, E] or None.
    """

    inputs: np.ndarray
    targets: np.ndarray
    loss_weights: np.ndarray
    positions: np.ndarray
    segment_ids: np.ndarray
    prefix: np.ndarray | None = None
    encoder_inputs: np.ndarray | None = None
    encoder_positions: np.ndarray | None = None
    encoder_segment_ids: np.ndarray | None = None

    @property
    def seq_len(self) -> int:
        """The `data.seq_len` of these rows: the encoder's length where it has inputs of its own."""
        inputs = self.inputs if self.encoder_inputs is None else self.encoder_inputs
        return inputs.shape[1]


def stack_examples(examples: Sequence[Example]) -> Batch:
    """Examples with fields [L] -> a batch with fields [B, L]; fields that are None stay None."""
    columns: Iterator[tuple[Any, ...]] = zip(*examples, strict=True)
    return Batch(*(None if column[0] is None else np.stack(column) for column in columns))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Cursor:
    """Where reading stands: the next row, and ranges of rows to pass over.

    `skipped` holds (start, stop) pairs, stop excluded, sorted and apart from one another.
    """

    next_row: int = 0
    skipped: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        require(_is_count(self.next_row), "cursor.next_row", self.next_row, "a whole number from 0")
        end = -1
        for pair in self.skipped:
            fits = len(pair) == 2 and all(map(_is_count, pair)) and end < pair[0] < pair[1]
            require(fits, "cursor.skipped", self.skipped, "sorted, disjoint (start, stop) pairs")
            end = pair[1]

    def skip(self, start: int, stop: int) -> "Cursor":
        """A cursor that also passes over rows start to stop - 1."""
        require(0 <= start < stop, "cursor.skipped", (start, stop), "0 <= start < stop")
        merged: list[tuple[int, int]] = []
        for low, high in sorted((*self.skipped, (start, stop))):
            if merged and low <= merged[-1][1]:
                low, high = merged[-1][0], max(high, merged.pop()[1])
            merged.append((low, high))
        return Cursor(self.next_row, tuple(merged))

    def to_json(self) -> dict[str, Any]:
        """The cursor as JSON types."""
        return {"next_row": self.next_row, "skipped": [list(pair) for pair in self.skipped]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Cursor":
        """Reads what `to_json` wrote.

        Raises:
            InputError: unknown or missing keys, wrong types, ranges that overlap.
        """
        require(
            isinstance(record, Mapping) and set(record) == {"next_row", "skipped"},
            "cursor",
            record,
            "an object with next_row and skipped",
        )
        skipped = record["skipped"]
        is_pairs = isinstance(skipped, list) and all(isinstance(pair, list) for pair in skipped)
        require(is_pairs, "cursor.skipped", skipped, "a list of [start, stop] pairs")
        return cls(record["next_row"], tuple(tuple(pair) for pair in skipped))


def take_rows(cursor: Cursor, count: int) -> tuple[np.ndarray, Cursor]:
    """The next `count` row numbers, and the cursor after them.

    Example: with rows 2 and 3 skipped, taking 3 rows from row 1 gives [1, 4, 5] and a cursor at 6.

    Returns:
        Row numbers int64 [count], growing; the new cursor.
    """
    spans, after = _spans(cursor, count)
    return np.concatenate([np.arange(*span, dtype=np.int64) for span in spans]), after


def advance(cursor: Cursor, count: int) -> Cursor:
    """The cursor after `count` more rows; however many, it costs nothing."""
    return _spans(cursor, count)[1]


def _spans(cursor: Cursor, count: int) -> tuple[list[tuple[int, int]], Cursor]:
    """The next `count` rows as (start, stop) ranges between the skipped ones."""
    spans = []
    row, remaining = cursor.next_row, count
    for start, stop in (*cursor.skipped, (2**63 - 1, 2**63)):
        taken = min(max(start - row, 0), remaining)
        spans.append((row, row + taken))
        row, remaining = row + taken, remaining - taken
        if remaining == 0:
            break
        row = max(row, stop)
    return spans, Cursor(row, cursor.skipped)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
