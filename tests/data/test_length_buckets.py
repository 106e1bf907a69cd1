import numpy as np
import pytest

from configs.data_config import DataConfig, LengthBucketsConfig
from configs.errors import InputError
from configs.objective_config import CausalLMConfig
from data.dataset import make_packing
from data.rows import RowSource


def rows_of(stream, *, seq_len=64, group_rows=4, seed=0, lengths=()):
    packing = LengthBucketsConfig(lengths=lengths, group_rows=group_rows)
    config = DataConfig(seq_len=seq_len, seed=seed, packing=packing)
    return make_packing(config, stream, CausalLMConfig())


@pytest.fixture(scope="module")
def lengths():
    return (2 + np.random.default_rng(0).geometric(1 / 30, 1500)).tolist()


def test_every_document_is_one_row_of_every_epoch(array_stream, lengths):
    rows = rows_of(array_stream(lengths))
    starts = np.cumsum([0, *lengths[:-1]])
    orders = []
    for epoch in (0, 1):
        served, truncated = [], 0
        for number in range(epoch * rows.rows_per_epoch, (epoch + 1) * rows.rows_per_epoch):
            row = rows.row(number)
            held = row.tokens[row.segment_ids > 0]
            assert len(row.tokens) == rows.length(number) + 1
            assert row.counts.padded + len(held) == len(row.tokens)
            assert set(row.segment_ids.tolist()) <= {0, 1}
            if len(held):
                np.testing.assert_array_equal(np.diff(held), 1)
                served.append(int(held[0]))
                length = lengths[int(np.searchsorted(starts, held[0]))]
                assert len(held) == min(length, 65)
                assert row.counts.truncated == length - len(held)
                truncated += row.counts.truncated
        assert sorted(served) == starts.tolist()
        assert truncated == sum(max(0, length - 65) for length in lengths)
        orders.append(served)
    assert orders[0] != orders[1]


def test_rows_of_a_group_share_the_smallest_bucket_that_holds_them(array_stream, lengths):
    rows = rows_of(array_stream(lengths), group_rows=8)
    seen = set()
    for first in range(0, rows.rows_per_epoch, 8):
        group = [rows.row(first + i) for i in range(8)]
        sizes = {rows.length(first + i) for i in range(8)}
        assert len(sizes) == 1
        longest = max(int((row.segment_ids > 0).sum()) for row in group)
        [size] = sizes
        assert longest <= size + 1 and (size == 8 or longest > size // 2 + 1)
        seen |= sizes
    assert seen == {8, 16, 32, 64}


def test_padding_is_small_beside_one_length_for_all(array_stream, lengths):
    stream = array_stream(lengths)
    filled = sum(min(length, 65) for length in lengths)
    bucketed = rows_of(stream)
    places = sum(bucketed.length(i) + 1 for i in range(bucketed.rows_per_epoch))
    assert filled / places > 0.7
    assert filled / (len(lengths) * 65) < 0.5


def test_a_batch_of_several_groups_is_padded_to_its_longest(array_stream, lengths):
    packing = rows_of(array_stream(lengths))
    source = RowSource({"a": packing}, seed=0, objective=CausalLMConfig())
    numbers = range(40)
    served = source.batch(numbers)
    assert served.batch.inputs.shape == (40, max(packing.length(i) for i in numbers))
    assert source.batch_length(numbers) == served.batch.inputs.shape[1]
    assert sum(entry.places for entry in served.entries) == 40 * (served.batch.inputs.shape[1] + 1)
    for entry in served.entries:
        assert entry.places == entry.read + entry.repeated + entry.padded
    weights = served.batch.loss_weights
    assert np.count_nonzero(weights) == sum(entry.trained_on for entry in served.entries)
    assert not weights[served.batch.segment_ids == 0].any()


def test_lengths_must_end_with_the_row_length():
    with pytest.raises(InputError, match="^data.packing.lengths: got .* expected data.seq_len"):
        DataConfig(seq_len=64, packing=LengthBucketsConfig(lengths=(8, 32)))
