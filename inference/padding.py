"""Prompts of different lengths as rows of one, in few shapes, so that few programs are compiled."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_SMALLEST = 32
_FIRST_SLOTS = 128


class Padded(NamedTuple):
    """Rows of tokens of different lengths, int32 [B, L] each, padded on the left with segment 0.

    [[5, 6], [7]] of length 4: tokens [[0, 0, 5, 6], [0, 0, 0, 7]], positions [[0, 0, 0, 1],
    [0, 0, 0, 0]], segments [[0, 0, 1, 1], [0, 0, 0, 1]].
    """

    tokens_BL: np.ndarray
    positions_BL: np.ndarray
    segments_BL: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], length: int) -> "Padded":
        padded = cls(*np.zeros((3, len(rows), length), np.int32))
        for i, row in enumerate(rows):
            padded.tokens_BL[i, length - len(row) :] = row
            padded.positions_BL[i, length - len(row) :] = np.arange(len(row))
            padded.segments_BL[i, length - len(row) :] = 1
        return padded


def round_up(number: int, *, parts: int = 4, smallest: int = 1) -> int:
    """The next of the sizes that cut every power of two into `parts`: 1 … 8, 10, 12, 14, 16, 20 …

    At most one part in `parts` more than `number`, unless that is below `smallest`.
    """
    step = max((1 << max(number - 1, 0).bit_length() - 1) // parts, 1) if number > 1 else 1
    return max(-(-number // step) * step, smallest)


def prompt_places(length: int) -> int:
    """Places for prompts of up to `length` tokens: 32, 64, … 256, 320, 384, …"""
    return -(-round_up(length) // _SMALLEST) * _SMALLEST if length <= 256 else round_up(length)


def cache_slots(length: int) -> int:
    """Slots of a cache that holds `length` tokens: 128, 192, 256, 384, 512, 768, …"""
    return round_up(length, parts=2, smallest=_FIRST_SLOTS)
