import numpy as np
import pytest

from configs.errors import InputError
from configs.schema import CausalLMConfig
from data.batches import Cursor, RowSource, take_rows
from data.ledger import Ledger


def _read(source, num_batches, batch_size):
    ledger = Ledger(
        rows_per_epoch=source.rows_per_epoch, dropped_per_epoch=source.dropped_per_epoch
    )
    cursor, batches = Cursor(), []
    for _ in range(num_batches):
        numbers, cursor = take_rows(cursor, batch_size)
        batches.append(source.batch(numbers))
        ledger = ledger.add(batches[-1])
    return ledger, batches


def test_tokens_are_conserved_over_whole_epochs(corpus):
    stream = corpus.stream("train")
    source = RowSource(stream, seq_len=64, seed=0, objective=CausalLMConfig())
    ledger, batches = _read(source, 2 * source.rows_per_epoch, 1)
    assert ledger.epochs == 2
    assert ledger.tokens_dropped == 2 * (stream.num_tokens % 64) > 0
    assert ledger.tokens_read + ledger.tokens_dropped == 2 * stream.num_tokens
    unweighted = sum(int((batch.loss_weights == 0).sum()) for batch in batches)
    assert ledger.tokens_trained_on == ledger.tokens_read - unweighted
    assert ledger.tokens_padded == ledger.tokens_truncated == 0


def test_padding_is_counted_apart(array_stream):
    source = RowSource(array_stream([40]), seq_len=8, seed=0, objective=CausalLMConfig())
    batch = source.batch([0, 1])
    padded = batch._replace(
        segment_ids=batch.segment_ids * (np.arange(8) < 5),
        loss_weights=batch.loss_weights * (np.arange(8) < 5),
    )
    ledger = Ledger(rows_per_epoch=5, dropped_per_epoch=0).add(padded)
    assert (ledger.tokens_read, ledger.tokens_padded, ledger.rows) == (10, 6, 2)
    assert ledger.epochs == 0.4


def test_ledger_round_trips_through_json_with_the_fields_of_the_run_directory(array_stream):
    source = RowSource(array_stream([30, 33]), seq_len=8, seed=0, objective=CausalLMConfig())
    ledger, _ = _read(source, 5, 2)
    record = ledger.to_json()
    assert Ledger.from_json(record) == ledger
    named = {"tokens_read", "tokens_trained_on", "tokens_padded", "tokens_truncated"}
    assert named | {"tokens_dropped", "rows", "epochs"} <= set(record)


@pytest.mark.parametrize("change", [{"rows": -1}, {"rows": 1.5}, {"extra": 1}])
def test_a_wrong_ledger_record_is_refused(change):
    record = Ledger(rows_per_epoch=5, dropped_per_epoch=1).to_json() | change
    with pytest.raises(InputError, match="^ledger"):
        Ledger.from_json(record)
