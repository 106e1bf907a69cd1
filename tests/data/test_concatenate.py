import subprocess
import sys

import numpy as np
import pytest

from configs.data_config import ConcatenateConfig, Documents
from configs.errors import InputError
from data.concatenate import Concatenate
from data.packing import RowShape, slice_row


def rows_of(stream, seq_len, *, seed=0, documents: Documents = "separate"):
    config = ConcatenateConfig(documents=documents)
    return Concatenate(config, stream, RowShape(seq_len + 1, 1), seq_len=seq_len, seed=seed)


def sliced(tokens, starts, documents: Documents = "separate"):
    shape = RowShape(len(tokens), 1)
    tokens, starts = np.array(tokens, np.int32), np.array(starts, bool)
    return slice_row(tokens, starts, shape=shape, documents=documents, epoch=0)


def test_segments_and_positions_restart_at_each_document():
    row = sliced([7, 8, 3, 2, 9, 3], [0, 0, 0, 1, 0, 0])
    assert row.segment_ids.tolist() == [1, 1, 1, 2, 2, 2]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 2]
    assert [field.dtype for field in row[:3]] == [np.int32] * 3
    assert row.counts._asdict() == {
        "read": 5, "repeated": 1, "padded": 0, "truncated": 0, "cuts": 1
    }  # fmt: skip


def test_a_document_that_starts_the_row_is_segment_one_and_no_cut():
    row = sliced([2, 3, 2, 3], [1, 0, 1, 0])
    assert row.segment_ids.tolist() == [1, 1, 2, 2]
    assert row.positions.tolist() == [0, 1, 0, 1]
    assert row.counts.cuts == 0


def test_joined_documents_are_one_segment():
    row = sliced([7, 3, 2, 9], [0, 0, 1, 0], documents="joined")
    assert row.segment_ids.tolist() == [1, 1, 1, 1]
    assert row.positions.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("num_tokens", "seq_len"), [(1000, 10), (1003, 10), (97, 96), (64, 7)])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_each_token_is_a_target_once_an_epoch_but_for_the_leftover(
    array_stream, num_tokens, seq_len, epoch
):
    rows = rows_of(array_stream([num_tokens]), seq_len, seed=3)
    count = rows.rows_per_epoch
    numbers = range(epoch * count, (epoch + 1) * count)
    assert all(rows.row(i).epoch == epoch for i in numbers)
    targets = np.concatenate([rows.row(i).tokens[1:] for i in numbers])
    times = np.bincount(targets, minlength=num_tokens)
    assert times.max() == 1
    assert (times == 0).sum() == num_tokens % seq_len == rows.dropped_per_epoch


def test_epochs_differ_in_offset_and_order(array_stream):
    seq_len = 16
    rows = rows_of(array_stream([10_007]), seq_len)
    count = rows.rows_per_epoch
    starts = [[rows.span(e * count + i).start for i in range(count)] for e in range(3)]
    offsets = [np.array(s) % seq_len for s in starts]
    assert len({tuple(o[:8]) for o in offsets}) == 3
    ranks = [np.argsort(s) for s in starts]
    for a, b in [(0, 1), (1, 2), (0, 2)]:
        assert (ranks[a] == ranks[b]).mean() < 0.05


_SPANS = """
import sys
from types import SimpleNamespace
from configs.data_config import ConcatenateConfig
from data.concatenate import Concatenate
from data.packing import RowShape
stream = SimpleNamespace(num_tokens=12345)
rows = Concatenate(ConcatenateConfig(), stream, RowShape(34, 1), seq_len=33, seed=5)
numbers = range(0, 5000, 7) if sys.argv[1] == 'up' else reversed(range(0, 5000, 7))
print(sorted((r, *rows.span(r)) for r in numbers))
"""


def test_a_row_depends_on_seed_and_number_alone_across_processes_and_orders():
    printed = {
        subprocess.run(
            [sys.executable, "-c", _SPANS, order], capture_output=True, text=True, check=True
        ).stdout
        for order in ("up", "down")
    }
    assert len(printed) == 1


def test_rows_are_pinned(array_stream):
    """A change here changes which text every resumed run reads next."""
    rows = rows_of(array_stream([1000]), 32)
    spans = [tuple(rows.span(row)) for row in (0, 1, 30, 31, 10**6)]
    assert spans == [(0, 318), (0, 414), (0, 190), (1, 292), (32258, 998)]


@pytest.mark.parametrize("num_tokens", [1, 8])
def test_a_stream_shorter_than_a_row_names_seq_len(array_stream, num_tokens):
    with pytest.raises(InputError, match="^data.seq_len: got 8, expected fewer than"):
        rows_of(array_stream([num_tokens]), 8)
    assert rows_of(array_stream([9]), 8).rows_per_epoch == 1
