"""The ledger adds up: place by place, and over whole epochs to tokens counted independently."""

import numpy as np
import pytest

from configs.data_config import (
    BestFitConfig,
    ConcatenateConfig,
    DataConfig,
    LengthBucketsConfig,
)
from configs.errors import InputError
from configs.objective_config import CausalLMConfig
from data.dataset import make_packing
from data.ledger import Ledger, RowEntry, merged
from data.mixture import Assignment
from data.rows import RowSource

PACKINGS = [
    ConcatenateConfig(),
    ConcatenateConfig(documents="joined"),
    BestFitConfig(),
    LengthBucketsConfig(group_rows=4),
]


def source_of(streams, packing, *, assignment=None, seq_len=64):
    data = DataConfig(seq_len=seq_len, packing=packing)
    packings = {n: make_packing(data, s, CausalLMConfig()) for n, s in streams.items()}
    return RowSource(packings, seed=0, objective=CausalLMConfig(), assignment=assignment)


def read(source, numbers, batch_size=7):
    ledger, batches = Ledger(facts=source.facts), []
    for first in range(0, len(numbers), batch_size):
        served = source.batch(numbers[first : first + batch_size])
        batches.append(served.batch)
        ledger = ledger.add(served.entries)
    return ledger, batches


@pytest.mark.parametrize("packing", PACKINGS, ids=lambda p: f"{p.kind}")
def test_tokens_are_conserved_over_whole_epochs(corpus, packing):
    stream = corpus.stream("train")
    source = source_of({"a": stream}, packing)
    ledger, batches = read(source, range(2 * source.facts[0].rows_per_epoch))
    # Counted from the text itself, not by the packing.
    tokens = sum(len(document.tokens) + 2 for document in corpus.documents("train"))
    assert set(ledger.entries) == {(0, 0), (0, 1)} and ledger.epochs(0) == 2
    for entry in ledger.entries.values():
        assert entry.read + entry.truncated + ledger.dropped(entry) == tokens
        assert entry.places == entry.read + entry.repeated + entry.padded
    weights = sum(int((batch.loss_weights > 0).sum()) for batch in batches)
    places = sum(batch.inputs.size + len(batch.inputs) for batch in batches)
    assert (ledger.tokens_trained_on, ledger.places) == (weights, places)
    assert ledger.tokens_truncated == 0 or packing.kind == "length_buckets"
    assert ledger.tokens_padded == 0 or packing.kind != "concatenate"


def test_every_token_but_document_openings_is_trained_on_once_an_epoch(corpus):
    stream, documents = corpus.stream("train"), corpus.splits["train"].documents
    source = source_of({"a": stream}, BestFitConfig())
    ledger, _ = read(source, range(source.facts[0].rows_per_epoch))
    assert ledger.tokens_trained_on == stream.num_tokens - documents


def test_corpora_of_a_mixture_are_accounted_for_apart(corpus):
    streams = {"a": corpus.stream("train"), "b": corpus.stream("held_out")}
    assignment = Assignment([[0.5, 0.5]])
    source = source_of(streams, BestFitConfig(), assignment=assignment)
    rows = source.facts[1].rows_per_epoch
    ledger, _ = read(source, range(6 * rows))
    assert ledger.rows == 6 * rows
    finished = [entry for (part, _), entry in ledger.entries.items() if part == 1]
    assert len(finished) == 3 and ledger.epochs(1) == 3
    for entry in finished:
        assert entry.read == streams["b"].num_tokens


def test_an_unfinished_epoch_has_dropped_nothing_yet(array_stream):
    source = source_of({"a": array_stream([1000])}, ConcatenateConfig())
    ledger, _ = read(source, range(14))
    assert ledger.tokens_dropped == 0
    ledger, _ = read(source, range(15))
    assert ledger.tokens_dropped == 1000 - 15 * 64


def test_ledgers_of_several_readers_add_up_to_one(corpus):
    source = source_of({"a": corpus.stream("train")}, BestFitConfig())
    whole, _ = read(source, range(60))
    parts = [read(source, range(i, 60, 3))[0] for i in range(3)]
    assert merged(parts) == whole


def test_ledger_round_trips_through_json_with_the_fields_of_the_run_directory(corpus):
    source = source_of({"a": corpus.stream("train")}, BestFitConfig())
    ledger, _ = read(source, range(40))
    record = ledger.to_json()
    assert Ledger.from_json(record) == ledger
    named = {"tokens_read", "tokens_trained_on", "tokens_padded", "tokens_truncated"}
    assert named | {"tokens_dropped", "tokens_repeated", "cuts", "rows", "epochs"} <= set(record)
    [part] = record["corpora"]
    assert part["name"] == "a" and part["tokens"] == corpus.splits["train"].tokens
    assert [epoch["epoch"] for epoch in part["by_epoch"]] == [0]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": -1},
        {"rows": 1.5},
        {"extra": 1},
        {"tokens_read": 7},
        {"corpora": []},
        {"corpora": None},
    ],
)
def test_a_wrong_ledger_record_is_refused(corpus, change):
    source = source_of({"a": corpus.stream("train")}, ConcatenateConfig())
    record = read(source, range(8))[0].to_json()
    with pytest.raises(InputError, match="^ledger"):
        Ledger.from_json(record | change)


def test_entries_add_field_by_field():
    one, two = RowEntry(0, 3, *range(1, 9)), RowEntry(0, 3, *range(10, 90, 10))
    assert one + two == RowEntry(0, 3, *(np.arange(1, 9) * 11).tolist())
