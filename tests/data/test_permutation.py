import numpy as np
import pytest

from data.permutation import epoch_keys, permuted, permuted_in_blocks


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 100, 1023, 1024, 1025, 5000])
def test_permutation_is_a_bijection(size):
    keys = (11, 2**63 + 5, 3, 4, 5, 6)
    assert sorted(permuted(i, size, keys) for i in range(size)) == list(range(size))


def test_permutation_scatters_neighbours():
    size = 4096
    images = np.array([permuted(i, size, (9, 8, 7, 6, 5, 4)) for i in range(size)])
    # A random permutation has mean distance size / 3 and about one fixed point.
    assert abs(np.abs(np.diff(images)).mean() / size - 1 / 3) < 0.02
    assert (images == np.arange(size)).sum() < 8
    assert abs(np.corrcoef(images, np.arange(size))[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("windows", "rows", "block"), [(1, 1, 1), (1, 9, 4), (3, 2, 2), (7, 5, 3), (40, 64, 16)]
)
def test_every_row_of_every_window_comes_once_and_neighbours_share_few_windows(
    windows, rows, block
):
    keys = epoch_keys(3, 0)[1:]
    places = [
        permuted_in_blocks(i, num_windows=windows, window_rows=rows, block_windows=block, keys=keys)
        for i in range(windows * rows)
    ]
    assert sorted(places) == [(w, r) for w in range(windows) for r in range(rows)]
    for first in range(0, len(places), block * rows):
        part = places[first : first + block * rows]
        assert len({window for window, _ in part}) <= block


def test_blocks_are_shuffled_differently():
    keys = epoch_keys(3, 0)[1:]

    def rows_of(block):
        return [
            permuted_in_blocks(
                block * 64 + i, num_windows=16, window_rows=32, block_windows=2, keys=keys
            )[1]
            for i in range(64)
        ]

    assert rows_of(0) != rows_of(1)
