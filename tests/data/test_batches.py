from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from configs.errors import InputError
from configs.schema import CausalLMConfig
from data.batches import Batch, Cursor, RowSource, take_rows


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


@pytest.fixture(scope="module")
def rows(corpus):
    return RowSource(corpus.stream("train"), seq_len=48, seed=1, objective=CausalLMConfig())


def test_a_batch_is_its_rows_in_order(rows):
    batch = rows.batch(np.array([4, 0, 9]))
    assert isinstance(batch, Batch)
    assert [field.shape for field in batch] == [(3, 48)] * 5
    dtypes = [np.int32, np.int32, np.float32, np.int32, np.int32]
    assert [field.dtype for field in batch] == dtypes
    for i, number in enumerate([4, 0, 9]):
        for stacked, alone in zip(batch, rows.row(number), strict=True):
            np.testing.assert_array_equal(stacked[i], alone)


def test_weights_are_zero_exactly_where_the_target_opens_a_document(rows, corpus):
    batch = rows.batch(range(rows.rows_per_epoch))
    opens = batch.targets == corpus.tokenizer.bos_id
    np.testing.assert_array_equal(batch.loss_weights == 0, opens)
    assert opens.sum() >= corpus.splits["train"].documents - 1
    np.testing.assert_array_equal(batch.positions[batch.inputs == corpus.tokenizer.bos_id], 0)


def test_rows_read_by_many_threads_equal_rows_read_by_one(corpus):
    def fresh():
        return RowSource(corpus.stream("train"), seq_len=48, seed=1, objective=CausalLMConfig())

    numbers = [*range(200)] * 2
    alone = [fresh().row(number).inputs for number in numbers]
    shared = fresh()
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda number: shared.row(number).inputs, numbers))
    np.testing.assert_array_equal(alone, together)


def test_seeds_give_other_rows(corpus, rows):
    other = RowSource(corpus.stream("train"), seq_len=48, seed=2, objective=CausalLMConfig())
    assert not np.array_equal(rows.row(0).inputs, other.row(0).inputs)


def test_a_row_longer_than_the_corpus_names_seq_len(corpus):
    stream = corpus.stream("held_out")
    with pytest.raises(InputError, match="^data.seq_len: got"):
        RowSource(stream, seq_len=stream.num_tokens, seed=0, objective=CausalLMConfig())
