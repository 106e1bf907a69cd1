import subprocess
import sys

import numpy as np
import pytest

from configs.errors import InputError
from data.packing import pack_row, permuted, read_row, row_span, rows_per_epoch


def test_segments_and_positions_restart_at_each_document():
    row = pack_row(np.array([7, 8, 3, 2, 9, 3], np.int32), np.array([0, 0, 0, 1, 0, 0], bool))
    assert row.segment_ids.tolist() == [1, 1, 1, 2, 2, 2]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 2]
    assert [field.dtype for field in row] == [np.int32] * 3


def test_a_document_that_starts_the_row_is_segment_one():
    row = pack_row(np.array([2, 3, 2, 3], np.int32), np.array([1, 0, 1, 0], bool))
    assert row.segment_ids.tolist() == [1, 1, 2, 2]
    assert row.positions.tolist() == [0, 1, 0, 1]


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


@pytest.mark.parametrize(("num_tokens", "seq_len"), [(1000, 10), (1003, 10), (97, 96), (64, 7)])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_each_token_is_a_target_once_an_epoch_but_for_the_leftover(
    array_stream, num_tokens, seq_len, epoch
):
    stream = array_stream([num_tokens])
    count = rows_per_epoch(num_tokens, seq_len)
    rows = range(epoch * count, (epoch + 1) * count)
    targets = np.concatenate([read_row(stream, 3, i, seq_len=seq_len).tokens[1:] for i in rows])
    times = np.bincount(targets, minlength=num_tokens)
    assert times.max() == 1
    assert (times == 0).sum() == num_tokens % seq_len


def test_epochs_differ_in_offset_and_order():
    num_tokens, seq_len = 10_007, 16
    count = rows_per_epoch(num_tokens, seq_len)
    starts = [
        [
            row_span(0, e * count + i, num_tokens=num_tokens, seq_len=seq_len).start
            for i in range(count)
        ]
        for e in range(3)
    ]
    offsets = [np.array(s) % seq_len for s in starts]
    assert len({tuple(o[:8]) for o in offsets}) == 3
    ranks = [np.argsort(s) for s in starts]
    for a, b in [(0, 1), (1, 2), (0, 2)]:
        assert (ranks[a] == ranks[b]).mean() < 0.05


def test_a_row_depends_on_seed_and_number_alone_across_processes_and_orders():
    script = (
        "import sys; from data.packing import row_span\n"
        "rows = range(0, 5000, 7) if sys.argv[1] == 'up' else reversed(range(0, 5000, 7))\n"
        "print(sorted((r, *row_span(5, r, num_tokens=12345, seq_len=33)) for r in rows))"
    )
    here = sorted((r, *row_span(5, r, num_tokens=12345, seq_len=33)) for r in range(0, 5000, 7))
    for order in ("up", "down"):
        run = subprocess.run(
            [sys.executable, "-c", script, order], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == str(here)


def test_rows_are_pinned():
    """A change here changes which text every resumed run reads next."""
    spans = [tuple(row_span(0, row, num_tokens=1000, seq_len=32)) for row in (0, 1, 30, 31, 10**6)]
    assert spans == [(0, 318), (0, 414), (0, 190), (1, 292), (32258, 998)]


@pytest.mark.parametrize("num_tokens", [1, 8])
def test_a_stream_shorter_than_a_row_names_seq_len(num_tokens):
    with pytest.raises(InputError, match="^data.seq_len: got 8, expected fewer than"):
        row_span(0, 0, num_tokens=num_tokens, seq_len=8)
    assert rows_per_epoch(9, 8) == 1
