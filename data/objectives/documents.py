"""The documents of a row: their content, without <s> and </s>, and which segment each one is.

A `Texts` holds them flat, one after another, so that whole rows are handled by array operations.
Letters: C content tokens of a row, G texts.
"""

from typing import NamedTuple

import numpy as np

from data.objectives.example import Context
from data.objectives.symbols import Symbols
from data.packing import Row


class Texts(NamedTuple):
    """Contents of a row's documents.

    tokens: int32 [C], no specials. segment_ids: int32 [C], growing, the row's own numbers.
    segments: int32 [G], the numbers that occur. sizes: int64 [G], tokens of each; all above 0.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    segments: np.ndarray
    sizes: np.ndarray


class Side(NamedTuple):
    """Tokens of one side of an example before it is padded, and the segment of each; int32 [n]."""

    tokens: np.ndarray
    segment_ids: np.ndarray


def texts_of(row: Row, symbols: Symbols) -> Texts:
    """What the row's segments hold beside specials; segments with nothing else are left out.

    A row of joined documents is one segment, hence one text: the </s> and <s> within are dropped.

    Before (2 is <s>, 3 is </s>):
        tokens        [7, 8, 3, 2, 3, 2, 9, 0]
        segment_ids   [1, 1, 1, 2, 2, 3, 3, 0]
    After:
        tokens        [7, 8, 9]
        segment_ids   [1, 1, 3]
        segments      [1, 3]
        sizes         [2, 1]
    """
    kept = ~symbols.is_special[row.tokens] & (row.segment_ids > 0)
    return _texts(row.tokens[kept], row.segment_ids[kept])


def join_last(texts: Texts, at_most: int) -> Texts:
    """Makes one text of the last ones where there are more than `at_most`.

    Before, at_most 2:
        tokens        [7, 8, 9, 6]
        segment_ids   [1, 1, 3, 4]
    After:
        tokens        [7, 8, 9, 6]
        segment_ids   [1, 1, 3, 3]
        segments      [1, 3]
        sizes         [2, 2]
    """
    at_most = max(at_most, 1)
    if len(texts.segments) <= at_most:
        return texts
    last = texts.segments[at_most - 1]
    return _texts(texts.tokens, np.minimum(texts.segment_ids, last))


def _texts(tokens: np.ndarray, segment_ids: np.ndarray) -> Texts:
    first = np.flatnonzero(first_places(segment_ids))
    sizes = np.diff(first, append=len(tokens))
    return Texts(tokens, segment_ids, segment_ids[first], sizes)


def first_places(segment_ids: np.ndarray) -> np.ndarray:
    """Where a segment begins, bool [n]."""
    first = np.ones(len(segment_ids), bool)
    np.not_equal(segment_ids[1:], segment_ids[:-1], out=first[1:])
    return first


def positions_of(segment_ids: np.ndarray) -> np.ndarray:
    """Places since the segment's first, int32 [n]; 0 for padding.

    Before:
        segment_ids   [1, 1, 1, 4, 4, 0, 0]
    After:
        positions     [0, 1, 2, 0, 1, 0, 0]
    """
    is_first = first_places(segment_ids)
    first = np.flatnonzero(is_first)
    positions = np.arange(len(segment_ids)) - first[np.cumsum(is_first) - 1]
    positions[segment_ids == 0] = 0
    return positions.astype(np.int32)


def inserted(side: Side, places: np.ndarray, tokens: np.ndarray, segments: np.ndarray) -> Side:
    """The side with more tokens, each before what is at its place now.

    Before:
        side tokens           [20, 21, 22]
        side segments         [1, 1, 4]
        places                [0, 3]
        tokens                [90, 91]
        segments              [1, 4]
    After:
        side tokens           [90, 20, 21, 22, 91]
        side segments         [1, 1, 1, 4, 4]

    Args:
        places: [k], from 0 to n, growing. tokens, segments: [k].
    """
    is_old = np.ones(len(side.tokens) + len(places), bool)
    new = places + np.arange(len(places))
    is_old[new] = False
    fields = []
    for old_values, new_values in zip(side, (tokens, segments), strict=True):
        values = np.empty(len(is_old), np.int32)
        values[is_old] = old_values
        values[new] = new_values
        fields.append(values)
    return Side(*fields)


def by_segment(tokens: np.ndarray, segment_ids: np.ndarray) -> dict[int, np.ndarray]:
    """The tokens of each segment but padding, by its number, in order."""
    numbers = np.unique(segment_ids[segment_ids > 0])
    return {int(number): tokens[segment_ids == number] for number in numbers}


def content_of(tokens: np.ndarray, segment_ids: np.ndarray, context: Context) -> list[np.ndarray]:
    """The content of each segment that has any, as `texts_of` gives it."""
    is_special = context.symbols.is_special
    contents = (part[~is_special[part]] for part in by_segment(tokens, segment_ids).values())
    return [content for content in contents if len(content)]
