"""Which corpus serves row i of a mixture: a pure function of the weights and i.

Rows are cut into blocks of BLOCK_ROWS. Within a block, at every prefix, each corpus has served its
exact share to less than one row: Tijdeman's chairman assignment, whose weights may change from row
to row. A block starts afresh, so all blocks under the same weights have the same table, and any
row, however far, costs one look-up. The price of starting afresh: every block rounds alike, so the
rows of a corpus are off by up to one in BLOCK_ROWS in the long run too, and a corpus that is due
less than 1 / (2k - 2) of a row in a block is not read at all.

Shapes: k corpora, n rows.
"""

import heapq
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import cached_property, lru_cache
from itertools import pairwise
from operator import index
from typing import NamedTuple

import numpy as np

from configs.errors import require

BLOCK_ROWS = 4096

# Up to about four epochs, repeated text is worth almost what new text is worth (Muennighoff et al.
# 2023, "Scaling data-constrained language models", arXiv 2305.16264).
REPEATS_NEARLY_FREE = 4

# Cumulative weights of a block come out of float64 sums within 2e-9 of exact. Widening every job's
# window by more than that keeps each exact schedule allowed and tells true ties from noise; what
# it adds to the deviation is far below the margin of 1 / (2k - 2).
_ROUNDING = 1e-8

# The weights in force in a block, in order: (rows, normalised weights of the k corpora).
_Pattern = tuple[tuple[int, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Assignment:
    """Which corpus serves each row, for rows from 0 on without an end.

    Stage s of the mixture starts at row starts[s], anywhere in a block, and has weights[s]. Where
    a corpus's weight falls to 0 within a block it may still be served one row that it is owed;
    throughout a block of weight 0 it serves none.

    Immutable and safe to share among threads; a table is built, in some 10 ms, when first needed.

    Example: Assignment([[0.75, 0.25]]) serves
        row            [0, 1, 2, 3, 4, 5, 6, 7, ...]
        corpus         [0, 0, 1, 0, 0, 0, 1, 0, ...]
        row in corpus  [0, 1, 0, 2, 3, 4, 1, 5, ...]

    Attributes:
        weights: of each stage, k numbers from 0 on; kept divided by their sum.
        starts: first row of each stage; 0 first, growing.

    Raises:
        InputError: no corpora, stages of unequal length, a weight that is negative or not finite,
            a stage without a weight above 0, starts that do not begin with 0, do not grow, or are
            not one a stage.
    """

    weights: Sequence[Sequence[float]]
    starts: Sequence[int] = (0,)

    def __post_init__(self):
        stages = tuple(tuple(map(float, stage)) for stage in self.weights)
        starts = tuple(map(index, self.starts))
        field = "data.mixture.weights"
        require(any(stages), field, stages, "one corpus or more")
        num_corpora = len(stages[0])
        for stage in stages:
            same_length = len(stage) == num_corpora
            require(same_length, field, stage, f"{num_corpora} weights, as in the first stage")
            numbers = all(0 <= weight < math.inf for weight in stage)
            require(numbers, field, stage, "finite numbers from 0 on")
            require(0 < sum(stage) < math.inf, field, stage, "a finite sum above 0")
        fits = starts[:1] == (0,) and all(a < b for a, b in pairwise(starts))
        require(fits, "data.mixture.starts", starts, "row numbers that begin with 0 and grow")
        one_each = len(starts) == len(stages)
        require(one_each, "data.mixture.starts", starts, f"one for each of {len(stages)} stages")
        object.__setattr__(self, "weights", tuple(map(_normalised, stages)))
        object.__setattr__(self, "starts", starts)

    @property
    def num_corpora(self) -> int:
        """The number of corpora, k."""
        return len(self.weights[0])

    def locate(self, row: int) -> tuple[int, int]:
        """The corpus that serves row `row`, and which of that corpus's own rows it is.

        Args:
            row: 0 or more.

        Returns:
            Corpus index; how many of the rows before `row` the same corpus serves.
        """
        table, before, offset = self._place(row)
        corpus = int(table.corpus[offset])
        return corpus, int(before[corpus]) + int(table.counts[offset, corpus])

    def locate_many(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`locate` of each of `rows`, int64 [n], in any order.

        Returns:
            Corpus index int64 [n]; row in that corpus int64 [n].
        """
        rows = np.asarray(rows, np.int64)
        assert np.all(rows >= 0)
        blocks, offsets = np.divmod(rows, BLOCK_ROWS)
        runs = np.searchsorted(self._first_blocks, blocks, side="right") - 1
        corpus, number = np.empty_like(rows), np.empty_like(rows)
        for run in np.unique(runs):
            at = np.flatnonzero(runs == run)
            table, before = _block_table(self._pattern(run)), self._counts_before[run]
            served = table.corpus[offsets[at]].astype(np.int64)
            block_in_run = blocks[at] - self._first_blocks[run]
            corpus[at] = served
            number[at] = (
                before[served]
                + block_in_run * table.counts[-1].astype(np.int64)[served]
                + table.counts[offsets[at], served]
            )
        return corpus, number

    def counts(self, row: int) -> np.ndarray:
        """How many of rows 0 to row - 1 each corpus serves, int64 [k]."""
        table, before, offset = self._place(row)
        return before + table.counts[offset]

    def _place(self, row: int) -> tuple["_BlockTable", np.ndarray, int]:
        """The table of the row's block, the counts int64 [k] before the block, the row's offset."""
        assert row >= 0
        block, offset = divmod(int(row), BLOCK_ROWS)
        run = bisect_right(self._first_blocks, block) - 1
        table = _block_table(self._pattern(run))
        block_in_run = block - self._first_blocks[run]
        before = self._counts_before[run] + block_in_run * table.counts[-1].astype(np.int64)
        return table, before, offset

    @cached_property
    def _first_blocks(self) -> tuple[int, ...]:
        """First block of each run of blocks with one table; where a stage starts, a run starts.

        A block in which a stage starts midway is a run of its own.
        """
        cuts = {start // BLOCK_ROWS for start in self.starts}
        return tuple(sorted(cuts | {-(-start // BLOCK_ROWS) for start in self.starts}))

    @cached_property
    def _counts_before(self) -> np.ndarray:
        """Rows each corpus serves before each run, int64 [runs, k]."""
        counts = np.zeros((len(self._first_blocks), self.num_corpora), np.int64)
        for run, (first, end) in enumerate(pairwise(self._first_blocks)):
            in_block = _block_table(self._pattern(run)).counts[-1].astype(np.int64)
            counts[run + 1] = counts[run] + (end - first) * in_block
        counts.flags.writeable = False
        return counts

    def _pattern(self, run: int) -> _Pattern:
        """The weights in force in the first block of a run, hence in all of them."""
        row = self._first_blocks[run] * BLOCK_ROWS
        end = row + BLOCK_ROWS
        stage = bisect_right(self.starts, row) - 1
        pattern = []
        while row < end:
            last = stage + 1 == len(self.starts)
            stop = end if last else min(end, self.starts[stage + 1])
            pattern.append((stop - row, self.weights[stage]))
            row, stage = stop, stage + 1
        return tuple(pattern)


def proportional_weights(
    sizes: Sequence[int], *, temperature: float, cap: float | None
) -> tuple[float, ...]:
    """Weights p_i proportional to min(n_i, cap) ** (1 / temperature).

    Example: sizes (900, 100) give (0.9, 0.1) at temperature 1 and (0.75, 0.25) at temperature 2;
    with a cap of 300, temperature 1 gives (0.75, 0.25).

    Args:
        sizes: n_i, of each corpus, in tokens, rows or documents.
        temperature: above 0; 1 is proportional, infinity equal.
        cap: the artificial limit of a size, in the unit of `sizes`; None is no limit.

    Returns:
        The weights, which sum to 1.

    Raises:
        InputError: no sizes or one that is not above 0; temperature or cap not above 0.

    Source: Raffel et al. 2020, arXiv 1910.10683, section 3.5.2 (the limit, and temperature with
    it); Arivazhagan et al. 2019, arXiv 1907.05019 (temperature).
    """
    some = len(sizes) > 0 and all(0 < size < math.inf for size in sizes)
    require(some, "data.mixture.weights", sizes, "one corpus or more, each of a size above 0")
    require(temperature > 0, "data.mixture.temperature", temperature, "a number above 0")
    require(cap is None or cap > 0, "data.mixture.cap", cap, "a size above 0, or null")
    limit = math.inf if cap is None else cap
    capped = [Decimal(float(min(size, limit))) for size in sizes]
    # In decimal, since the last bit of a float's power differs from platform to platform. Ratios
    # to the largest cannot overflow; at temperatures near 0 they underflow, to 0.
    with localcontext(Context(prec=30, traps=[])):
        exponent = 1 / Decimal(float(temperature))
        powers = [(size / max(capped)) ** exponent for size in capped]
        return tuple(float(power / sum(powers)) for power in powers)


def epochs_ahead(
    assignment: Assignment, num_rows: int, rows_per_epoch: Sequence[int]
) -> tuple[float, ...]:
    """How many times each corpus will have been read after `num_rows` rows of the mixture.

    Compare with REPEATS_NEARLY_FREE.

    Args:
        assignment: of k corpora.
        num_rows: rows of the mixture from row 0 on.
        rows_per_epoch: of each of the k corpora.
    """
    counts = assignment.counts(num_rows).tolist()
    return tuple(count / rows for count, rows in zip(counts, rows_per_epoch, strict=True))


class _BlockTable(NamedTuple):
    """The assignment of one block.

    corpus: int32 [BLOCK_ROWS], which serves each row. counts: int16 [BLOCK_ROWS + 1, k], the rows
    each corpus serves among the block's first 0, 1, ..., BLOCK_ROWS.
    """

    corpus: np.ndarray
    counts: np.ndarray


@lru_cache(maxsize=128)
def _block_table(pattern: _Pattern) -> _BlockTable:
    """The table of a block whose weights are `pattern`.

    With C_c(n) the sum of corpus c's weights over the first n rows, job j = 1, 2, ... of corpus c
    is its j-th row. Done at prefix t, it keeps |count - C_c| <= D if and only if
        C_c(t) >= j - D            (done earlier, the count would be too high), and
        C_c(t - 1) <= j - 1 + D    (done later, the count would be too low),
    an interval of rows. There are schedules that fill every row and keep all intervals for
    D = 1 - 1 / (2k - 2), and taking of the released jobs the one due earliest finds one, as it
    does for unit jobs whenever there is one. Ties go to the lowest corpus.

    Source: Tijdeman 1980, "The chairman assignment problem", Discrete Mathematics 32, which
    proves the bound; the jobs and intervals are our way to compute an assignment.
    """
    exact = _cumulative_weights(pattern)
    num_corpora = exact.shape[1]
    margin = 1 - 1 / max(1, 2 * num_corpora - 2) + _ROUNDING
    jobs = []
    for corpus, cumulative in enumerate(exact.T):
        job = np.arange(1, int(cumulative[-1] + margin) + 1)
        released = np.searchsorted(cumulative, job - margin, side="left")
        # BLOCK_ROWS, past the last row, for a job that may wait for longer than the block lasts.
        due = np.searchsorted(cumulative, job - 1 + margin, side="right")
        jobs += zip(released.tolist(), due.tolist(), [corpus] * len(job), strict=True)
    jobs.sort(reverse=True)

    served = np.empty(BLOCK_ROWS, np.int32)
    waiting: list[tuple[int, int]] = []
    for row in range(BLOCK_ROWS):
        while jobs and jobs[-1][0] <= row:
            heapq.heappush(waiting, jobs.pop()[1:])
        due, served[row] = heapq.heappop(waiting)
        assert row <= due

    counts = np.zeros((BLOCK_ROWS + 1, num_corpora), np.int16)
    np.cumsum(served[:, None] == np.arange(num_corpora), axis=0, dtype=np.int16, out=counts[1:])
    served.flags.writeable = counts.flags.writeable = False  # The memo hands it to everybody.
    return _BlockTable(served, counts)


def _cumulative_weights(pattern: _Pattern) -> np.ndarray:
    """Each corpus's exact share of the first 1, 2, ..., BLOCK_ROWS rows, float64 [BLOCK_ROWS, k].

    Each stage is a product, not a sum row by row, so that few roundings pile up.
    """
    before = np.zeros(len(pattern[0][1]))
    parts = []
    for rows, weights in pattern:
        parts.append(before + np.arange(1, rows + 1)[:, None] * np.array(weights))
        before = parts[-1][-1]
    return np.concatenate(parts)


def _normalised(weights: tuple[float, ...]) -> tuple[float, ...]:
    """Weights divided by their sum, which fsum rounds once, whatever the order and the Python."""
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)
