"""How a text repeats itself: of tokens, or of anything else that is equal or not.

Sequences are token ids of one continuation each, without what they continue.
"""

from collections.abc import Hashable, Sequence

import numpy as np

MAX_PERIOD = 48
_MIN_ROUNDS = 3


def repeated_share(tokens: Sequence[Hashable], n: int) -> float | None:
    """The share of a text's n-grams that it holds already: 1 − distinct / all.

    `seq-rep-n` of Welleck et al. 2019 (arXiv 1908.04319, equation 9).

    Example: [7, 8, 7, 8, 7], n = 2: of the 4 pairs 2 are distinct, so 0.5.

    Returns:
      0 to 1; None for a text shorter than n, which has no n-gram.
    """
    grams = _grams(tokens, n)
    return 1 - len(set(grams)) / len(grams) if grams else None


def distinct_share(texts: Sequence[Sequence[Hashable]], n: int) -> float | None:
    """Distinct n-grams over all n-grams of texts together (distinct-n, Li et al. 2016, arXiv
    1510.03055, who divide by the number of words).

    It falls with the amount of text, so compare it between equal amounts.
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def in_loops(tokens: Sequence[int], *, max_period: int = MAX_PERIOD) -> np.ndarray:
    """Which tokens are part of a loop: a passage that comes three times or more in a row.

    Example: [5, 1, 2, 1, 2, 1, 2, 9] -> [F, T, T, T, T, T, T, F], a loop of period 2

    Args:
      max_period: length of the longest passage looked for, in tokens.

    Returns:
      bool [tokens].
    """
    ids = np.asarray(tokens, np.int64)
    is_looped = np.zeros(len(ids), bool)
    for period in range(1, min(max_period, len(ids) // _MIN_ROUNDS) + 1):
        # Runs of tokens that equal the one a period before; a run of r closes a loop of r + period.
        equal = np.concatenate([[False], ids[period:] == ids[:-period], [False]])
        changes = np.flatnonzero(equal[1:] != equal[:-1])
        for begin, end in changes.reshape(-1, 2):
            if end - begin >= (_MIN_ROUNDS - 1) * period:
                is_looped[begin : end + period] = True
    return is_looped


def quarters(length: int) -> list[slice]:
    """Four slices that cut a sequence into parts as equal as may be."""
    edges = [length * part // 4 for part in range(5)]
    return [slice(*pair) for pair in zip(edges[:-1], edges[1:], strict=True)]


def _grams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
