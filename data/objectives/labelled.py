"""Labelled documents of a row, `<s> text </s> answer </s>`, and examples of one side made of them.

The answer is a text, or labels: label i is written as token id `FIRST_LABEL_ID` + i, which is a
number there and no piece of text, so a tokenizer needs nothing for it. A document that the packing
cut has lost its text's begin or its answer; it is left out of the example.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from data.objectives.documents import positions_of
from data.objectives.example import Example
from data.packing import Row
from data.tokenizer import BOS_ID, EOS_ID, PAD_ID

FIRST_LABEL_ID = EOS_ID + 1


class Labelled(NamedTuple):
    """Text and answer of one document, int32 [n] and [m], without specials."""

    text: np.ndarray
    answer: np.ndarray


def labelled_of(row: Row) -> list[Labelled]:
    """The whole labelled documents of a row, in order.

    Before (2 is <s>, 3 is </s>; the first document lacks its begin, the last its end):
        tokens        [21, 3, 5, 3, 2, 22, 23, 3, 6, 3, 2, 24, 3]
        segment_ids   [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3]
    After:
        text          [22, 23]
        answer        [6]
    """
    is_token = row.segment_ids > 0
    ends = np.flatnonzero((row.tokens == EOS_ID) & is_token)
    begins = np.flatnonzero((row.tokens == BOS_ID) & is_token).tolist()
    found = []
    for begin, following in pairwise([*begins, len(row.tokens)]):
        after = np.searchsorted(ends, begin)
        if after + 2 > len(ends):
            break
        middle, end = ends[after], ends[after + 1]
        if end < following and row.segment_ids[end] == row.segment_ids[begin]:
            text, answer = row.tokens[begin + 1 : middle], row.tokens[middle + 1 : end]
            found.append(Labelled(text, answer))
    return found


def one_sided(
    pieces: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    length: int,
) -> Example:
    """An example whose segments are `pieces`, one after another, then padding.

    Before:
        pieces        [[2, 22, 23, 3], [2, 24, 3]]
        targets       [[2, 0, 0, 0], [1, 0, 0]]
        weights       [[1, 0, 0, 0], [1, 0, 0]]
    After, length 8:
        inputs        [2, 22, 23, 3, 2, 24, 3, 0]
        targets       [2, 0, 0, 0, 1, 0, 0, 0]
        loss_weights  [1, 0, 0, 0, 1, 0, 0, 0]
        positions     [0, 1, 2, 3, 0, 1, 2, 0]
        segment_ids   [1, 1, 1, 1, 2, 2, 2, 0]

    Args:
        pieces, targets, weights: of the same lengths; those from the first piece on that finds no
            room are left out.
        length: of the example.
    """
    sizes = np.array([len(piece) for piece in pieces], np.int64)
    kept = int(np.searchsorted(np.cumsum(sizes), length, "right"))
    segment_ids = np.repeat(np.arange(1, kept + 1), sizes[:kept])
    segment_ids = _filled(segment_ids, length, np.int32)
    return Example(
        inputs=_filled(_joined(pieces[:kept]), length, np.int32, PAD_ID),
        targets=_filled(_joined(targets[:kept]), length, np.int32, PAD_ID),
        loss_weights=_filled(_joined(weights[:kept]), length, np.float32),
        positions=positions_of(segment_ids),
        segment_ids=segment_ids,
    )


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *parts])


def _filled(values: np.ndarray, length: int, dtype: type, padding: int = 0) -> np.ndarray:
    filled = np.full(length, padding, dtype)
    filled[: len(values)] = values
    return filled
