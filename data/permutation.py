"""Shuffles without tables: the i-th element of a keyed permutation, computed directly."""

from functools import lru_cache

import numpy as np

_NUM_ROUNDS = 6
_MASK_64 = 2**64 - 1


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


@lru_cache(maxsize=64)
def epoch_keys(seed: int, epoch: int) -> tuple[int, ...]:
    """A random 64-bit number and the keys of `permuted`'s rounds, for one epoch of one seed.

    NumPy promises that SeedSequence gives the same numbers in every version.
    """
    state = np.random.SeedSequence([seed, epoch]).generate_state(1 + _NUM_ROUNDS, np.uint64)
    return tuple(map(int, state))


def permuted_in_blocks(
    index: int, *, num_windows: int, window_rows: int, block_windows: int, keys: tuple[int, ...]
) -> tuple[int, int]:
    """Shuffles num_windows × window_rows rows so that neighbours come from few windows.

    Windows are shuffled; then the rows of every `block_windows` consecutive ones are shuffled
    together. Whoever reads rows in order needs only so many windows at a time.

    Example: with 3 windows of 2 rows and blocks of 2, rows 0 to 3 are the rows of two windows in
    some order, rows 4 and 5 those of the third.

    Returns:
        Window, and row within it.
    """
    block, inner = divmod(index, block_windows * window_rows)
    first = block * block_windows
    size = min(block_windows, num_windows - first) * window_rows
    mixed_keys = tuple(_mix(key + block + 1 & _MASK_64) for key in keys)
    slot, row = divmod(permuted(inner, size, mixed_keys), window_rows)
    return permuted(first + slot, num_windows, keys), row


def _mix(x: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on every bit."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK_64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK_64
    return x ^ x >> 31
