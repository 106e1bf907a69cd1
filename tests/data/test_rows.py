"""Rows of a corpus and of mixtures, as training consumes them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from configs.data_config import BestFitConfig, ConcatenateConfig, DataConfig
from configs.errors import InputError
from configs.objective_config import CausalLMConfig
from data.batches import Batch
from data.dataset import make_packing
from data.mixture import Assignment
from data.rows import RowSource

PACKINGS = [ConcatenateConfig(), BestFitConfig()]


def rows_of(stream, *, seq_len=48, seed=1, packing=PACKINGS[0]):
    data = DataConfig(seq_len=seq_len, seed=seed, packing=packing)
    made = make_packing(data, stream, CausalLMConfig())
    return RowSource({"corpus": made}, seed=seed, objective=CausalLMConfig())


@pytest.fixture(scope="module", params=PACKINGS, ids=lambda packing: packing.kind)
def rows(request, corpus):
    return rows_of(corpus.stream("train"), packing=request.param)


def test_a_batch_is_its_rows_in_order(rows):
    batch = rows.batch(np.array([4, 0, 9])).batch
    assert isinstance(batch, Batch)
    assert batch[5:] == (None,) * 4
    assert [field.shape for field in batch[:5]] == [(3, 48)] * 5
    dtypes = [np.int32, np.int32, np.float32, np.int32, np.int32]
    assert [field.dtype for field in batch[:5]] == dtypes
    for i, number in enumerate([4, 0, 9]):
        for stacked, alone in zip(batch[:5], rows.row(number).example[:5], strict=True):
            np.testing.assert_array_equal(stacked[i], alone)


def test_weights_are_zero_where_the_target_opens_a_document_or_is_padding(rows, corpus):
    batch = rows.batch(range(rows.facts[0].rows_per_epoch)).batch
    opens = batch.targets == corpus.tokenizer.bos_id
    padding = batch.targets == corpus.tokenizer.pad_id
    np.testing.assert_array_equal(batch.loss_weights[opens | padding], 0)
    # A piece that a cut document goes on with is no target of the piece before it.
    crosses = batch.segment_ids[:, 1:] != batch.segment_ids[:, :-1]
    np.testing.assert_array_equal(batch.loss_weights[:, :-1][crosses], 0)
    assert (batch.loss_weights == 0).sum() == (opens | padding).sum() + _cut_targets(batch, opens)
    np.testing.assert_array_equal(batch.positions[batch.inputs == corpus.tokenizer.bos_id], 0)


def _cut_targets(batch, opens):
    """Targets that open a piece of a cut document: they carry no loss, nor start a document."""
    crosses = np.zeros_like(opens)
    crosses[:, :-1] = batch.segment_ids[:, 1:] != batch.segment_ids[:, :-1]
    return int((crosses & ~opens & (batch.targets != 0)).sum())


def test_joined_documents_carry_loss_across_their_borders(corpus):
    joined = rows_of(corpus.stream("train"), packing=ConcatenateConfig(documents="joined"))
    batch = joined.batch(range(50)).batch
    assert (batch.targets == corpus.tokenizer.bos_id).sum() > 3
    assert (batch.loss_weights == 1).all() and (batch.segment_ids == 1).all()


def test_rows_read_by_many_threads_equal_rows_read_by_one(corpus, rows):
    numbers = [*range(200)] * 2
    alone = [rows.row(number).example.inputs for number in numbers]
    packing = type(rows._packings[0])
    shared = rows_of(
        corpus.stream("train"),
        packing=next(p for p in PACKINGS if p.kind.replace("_", "") in packing.__name__.lower()),
    )
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda n: shared.row(n).example.inputs, numbers))
    np.testing.assert_array_equal(alone, together)


def test_seeds_give_other_rows(corpus, rows):
    other = rows_of(corpus.stream("train"), seed=2)
    assert not np.array_equal(rows.row(0).example.inputs, other.row(0).example.inputs)


def test_a_row_longer_than_the_corpus_names_seq_len(corpus):
    stream = corpus.stream("held_out")
    with pytest.raises(InputError, match="^data.seq_len: got"):
        rows_of(stream, seq_len=stream.num_tokens)


@pytest.fixture(scope="module")
def mixture(corpus):
    data = DataConfig(seq_len=32, seed=5)
    packings = {
        split: make_packing(data, corpus.stream(split), CausalLMConfig())
        for split in ("train", "held_out")
    }
    assignment = Assignment([[0.75, 0.25], [0.25, 0.75]], [0, 200])
    return RowSource(packings, seed=5, objective=CausalLMConfig(), assignment=assignment)


def test_each_corpus_of_a_mixture_serves_its_own_rows_in_their_order(mixture, corpus):
    served = [mixture.row(number) for number in range(400)]
    counts = [0, 0]
    for number, row in enumerate(served):
        part = row.entry.corpus
        expected = rows_of(corpus.stream(mixture.names[part]), seq_len=32, seed=5).row(counts[part])
        np.testing.assert_array_equal(row.example.inputs, expected.example.inputs)
        assert mixture.locate(number) == (part, counts[part])
        assert mixture.place(number) == (part, row.entry.epoch)
        counts[part] += 1
    assert counts == [150 + 50, 50 + 150]


def test_a_corpus_that_runs_out_starts_its_next_epoch_alone(mixture):
    epochs = [mixture.place(number) for number in range(2000)]
    assert {epoch for part, epoch in epochs if part == 1} > {0, 1}
    assert {epoch for part, epoch in epochs if part == 0} == {0}
