"""Which rows come next is all that a cursor knows."""

import numpy as np
import pytest

from configs.errors import InputError
from data.batches import Cursor, advance, take_rows


def test_take_rows_is_pure_and_continues_where_it_stopped():
    cursor = Cursor(5)
    rows, after = take_rows(cursor, 4)
    assert rows.tolist() == [5, 6, 7, 8] and after == Cursor(9) and cursor == Cursor(5)
    assert take_rows(after, 0)[0].tolist() == []


@pytest.mark.parametrize("batch_sizes", [[12], [1] * 12, [5, 7], [3, 3, 3, 3]])
def test_skipped_ranges_are_passed_over_however_rows_are_batched(batch_sizes):
    cursor = Cursor(1, ((2, 4), (6, 7), (7_000, 8_000)))
    taken = []
    for size in batch_sizes:
        rows, cursor = take_rows(cursor, size)
        assert rows.dtype == np.int64 and len(rows) == size
        taken += rows.tolist()
    assert taken == [1, 4, 5, *range(7, 16)]
    assert cursor.next_row == 16


def test_skip_merges_ranges():
    cursor = Cursor(0).skip(10, 12).skip(4, 6).skip(5, 8).skip(12, 13)
    assert cursor.skipped == ((4, 8), (10, 13))


def test_cursor_round_trips_through_json():
    cursor = Cursor(7, ((2, 4), (9, 12)))
    assert Cursor.from_json(cursor.to_json()) == cursor


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"next_row": 1},
        {"next_row": 1, "skipped": [], "more": 1},
        {"next_row": -1, "skipped": []},
        {"next_row": 1.0, "skipped": []},
        {"next_row": True, "skipped": []},
        {"next_row": 1, "skipped": [[3, 2]]},
        {"next_row": 1, "skipped": [[1, 4], [3, 6]]},
        {"next_row": 1, "skipped": [[1]]},
        {"next_row": 1, "skipped": "no"},
        [],
    ],
)
def test_a_wrong_cursor_record_is_refused(record):
    with pytest.raises(InputError, match="^cursor"):
        Cursor.from_json(record)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7_100])
def test_advancing_is_taking_without_the_rows(count):
    cursor = Cursor(1, ((2, 4), (6, 7), (7_000, 8_000)))
    assert advance(cursor, count) == take_rows(cursor, count)[1]
