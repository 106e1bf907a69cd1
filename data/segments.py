"""The rows of a batch as their segments, which are the documents of a row and its padding."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data.objectives import Example
from data.tokenizer import PAD_ID


class Segment(NamedTuple):
    """Consecutive places of a row with one segment id; the arrays are the example's, [n].

    number: the segment id, 0 for padding. start: its first place in the row. prefix: bool [n],
    which places the whole segment may see; all False for objectives without.
    """

    number: int
    start: int
    inputs: np.ndarray
    targets: np.ndarray
    loss_weights: np.ndarray
    positions: np.ndarray
    prefix: np.ndarray


class EncoderSegment(NamedTuple):
    """`Segment` for the encoder's side of a row, which has no targets."""

    number: int
    start: int
    inputs: np.ndarray
    positions: np.ndarray


def segments(example: Example) -> list[Segment]:
    """The segments of a row in order; together they are every place of it.

    Example: segment ids [1, 1, 2, 2, 2, 0] make three, of 2, 3 and 1 places.
    """
    ids = example.segment_ids
    prefix = np.zeros(len(ids), bool) if example.prefix is None else example.prefix > 0
    return [
        Segment(
            int(ids[start]),
            start,
            example.inputs[start:stop],
            example.targets[start:stop],
            example.loss_weights[start:stop],
            example.positions[start:stop],
            prefix[start:stop],
        )
        for start, stop in _runs(ids)
    ]


def encoder_segments(example: Example) -> list[EncoderSegment]:
    """The segments of a row's encoder side in order; none without one."""
    ids, inputs, positions = (
        example.encoder_segment_ids,
        example.encoder_inputs,
        example.encoder_positions,
    )
    if ids is None or inputs is None or positions is None:
        return []
    return [
        EncoderSegment(int(ids[start]), start, inputs[start:stop], positions[start:stop])
        for start, stop in _runs(ids)
    ]


def describe(segment: Segment | EncoderSegment) -> str:
    """One line on a segment: where it is, its prefix, and how many targets carry loss."""
    size = len(segment.inputs)
    if is_padding(segment):
        return f"padding · {size:,} place{'s' if size > 1 else ''}"
    first, last = int(segment.positions[0]), int(segment.positions[-1])
    in_order = np.array_equal(segment.positions, np.arange(first, first + size))
    where = [
        f"segment {segment.number}" if segment.number else "padding that is not empty",
        f"places {segment.start} to {segment.start + size - 1}",
        f"positions {first} to {last}" if in_order else "positions out of order",
    ]
    if isinstance(segment, EncoderSegment):
        return " · ".join(where)
    weights = np.unique(segment.loss_weights[segment.loss_weights > 0])
    in_prefix = np.count_nonzero(segment.prefix)
    return " · ".join(
        [
            *where,
            *([f"prefix of {in_prefix:,}"] if in_prefix else []),
            f"{np.count_nonzero(segment.loss_weights > 0):,} of {size:,} targets carry loss",
            *([f"weights {weights[0]:g} to {weights[-1]:g}"] if np.any(weights != 1) else []),
        ]
    )


def is_padding(segment: Segment | EncoderSegment) -> bool:
    """Whether nothing is there: <pad> everywhere, and no loss."""
    is_empty = segment.number == 0 and bool(np.all(segment.inputs == PAD_ID))
    if isinstance(segment, EncoderSegment):
        return is_empty
    return is_empty and bool(np.all(segment.targets == PAD_ID) and not np.any(segment.loss_weights))


def is_shifted(segment: Segment) -> bool:
    """Whether each target is the input of the next place: the text is one stream."""
    return np.array_equal(segment.inputs[1:], segment.targets[:-1])


def _runs(ids: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where runs of equal ids start and stop."""
    cuts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(ids)]
    return zip(cuts, cuts[1:], strict=False)
