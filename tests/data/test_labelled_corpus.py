"""Labelled records as a corpus: what documents hold, what is cut, what rows and evaluation get."""

import json
from dataclasses import replace

import numpy as np
import pytest

from configs.data_config import BestFitConfig, DataConfig, LengthBucketsConfig
from configs.errors import InputError
from configs.labelled_config import (
    InstructionTuningConfig,
    SequenceClassificationConfig,
    SequenceToSequenceConfig,
    TokenClassificationConfig,
)
from data.corpus import verify_corpus
from data.dataset import training_rows
from data.held_out import held_out_examples
from data.labelled import labels_of
from data.labelled_corpus import (
    CUT_SHORT,
    HELD_OUT_NAME,
    LabelledRecords,
    encode_record,
    read_labels,
    token_limits,
    write_labelled_corpus,
)
from data.objectives.labelled import FIRST_LABEL_ID
from data.prepare import OtherCorpusError
from tests.data.conftest import objective_run

SEQ_LEN = 32
OBJECTIVES = {
    "classification": SequenceClassificationConfig(),
    "token_classification": TokenClassificationConfig(),
    "sequence_to_sequence": SequenceToSequenceConfig(target_tokens=12),
    "instruction": InstructionTuningConfig(),
}


def record_of(kind, number):
    text = f"the value {number} of row {number % 7}"
    if kind == "classification":
        return {"text": text, "label": f"label{number % 3}"}
    if kind == "token_classification":
        end = 10 + len(str(number))
        return {"text": text, "spans": [{"start": 10, "end": end, "label": "NUMBER"}]}
    return {"input": text, "target": f" {number % 7}"}


def records_of(kind, train=40, held_out=9):
    numbers = range(train + held_out)
    records = [record_of(kind, number) for number in numbers]
    labels = labels_of(records, kind)
    return LabelledRecords(kind, labels, records[:train], records[train:], {"from": "test"})


@pytest.fixture(params=OBJECTIVES)
def kind(request):
    return request.param


@pytest.fixture
def written(kind, corpus, tmp_path):
    limits = token_limits(OBJECTIVES[kind], SEQ_LEN)
    records = records_of(kind)
    return records, write_labelled_corpus(tmp_path / "out", records, corpus.tokenizer, limits)


def test_the_corpus_is_whole_and_says_what_it_is(kind, written):
    records, corpus = written
    assert verify_corpus(corpus.path).sha == corpus.sha
    assert [corpus.splits[split].documents for split in ("train", "held_out")] == [40, 9]
    assert read_labels(corpus.path) == (kind, records.labels)
    lines = (corpus.path / HELD_OUT_NAME).read_text().splitlines()
    assert [json.loads(line) for line in lines] == records.held_out
    assert corpus.card["source"][CUT_SHORT] == "0 of 40 train, 0 of 9 held_out"


def test_every_document_is_a_record(kind, written):
    records, corpus = written
    limits = token_limits(OBJECTIVES[kind], SEQ_LEN)
    expected = sorted(
        encode_record(record, kind, records.labels, corpus.tokenizer, limits)[0][1:-1].tolist()
        for record in records.train
    )
    assert sorted(d.tokens.tolist() for d in corpus.documents("train")) == expected
    text = records.train[0].get("text") or records.train[0]["input"]
    first, _ = encode_record(records.train[0], kind, records.labels, corpus.tokenizer, limits)
    size = len(corpus.tokenizer.encode(text))
    assert corpus.tokenizer.decode(first[1 : 1 + size]) == text
    assert first[0] == corpus.tokenizer.bos_id
    assert first[1 + size] == first[-1] == corpus.tokenizer.eos_id


@pytest.mark.parametrize(
    "packing",
    [BestFitConfig(), LengthBucketsConfig(lengths=(SEQ_LEN,), group_rows=4)],
    ids=lambda packing: packing.kind,
)
def test_rows_train_on_the_records(kind, written, packing):
    records, corpus = written
    data = DataConfig(seq_len=SEQ_LEN, packing=packing)
    config = objective_run(OBJECTIVES[kind], data, corpus)
    source = training_rows(config, {"corpus": corpus})
    batch = source.batch(range(source.facts[0].rows_per_epoch)).batch
    documents = sum(len(set(row) - {0}) for row in batch.segment_ids.tolist())
    if packing.kind == "length_buckets":
        assert documents == len(records.train)
    assert documents > 0.6 * len(records.train)
    held_out = held_out_examples(config, corpus)
    assert held_out.num_documents == len(records.held_out) == len(held_out.batch.inputs)
    assert held_out.num_targets > 0
    if kind == "classification":
        places = held_out.batch.loss_weights > 0
        found = sorted(records.labels[i] for i in held_out.batch.targets[places])
        assert found == sorted(record["label"] for record in records.held_out)


def test_the_same_records_are_not_written_again_and_others_are_refused(kind, written):
    records, corpus = written
    limits = token_limits(OBJECTIVES[kind], SEQ_LEN)
    before = (corpus.path / "corpus.json").stat().st_mtime_ns
    write_labelled_corpus(corpus.path, records, corpus.tokenizer, limits)
    assert (corpus.path / "corpus.json").stat().st_mtime_ns == before
    with pytest.raises(OtherCorpusError):
        write_labelled_corpus(corpus.path, records_of(kind, 30), corpus.tokenizer, limits)


def test_long_records_are_cut_to_the_row_and_counted(kind, corpus, tmp_path):
    records = records_of(kind)
    name = "text" if "text" in records.train[0] else "input"
    long = records.train[0] | {name: records.train[0][name] + " and more of the data" * 20}
    records = replace_train(records, [long, *records.train[1:]])
    limits = token_limits(OBJECTIVES[kind], SEQ_LEN)
    written = write_labelled_corpus(tmp_path / "out", records, corpus.tokenizer, limits)
    assert written.card["source"][CUT_SHORT] == "1 of 40 train, 0 of 9 held_out"
    assert written.splits["train"].longest <= OBJECTIVES[kind].lengths(SEQ_LEN).tokens
    document, is_cut = encode_record(long, kind, records.labels, corpus.tokenizer, limits)
    assert is_cut and len(document) == written.splits["train"].longest
    if kind == "instruction":  # a prompt keeps its end
        prompt = corpus.tokenizer.decode(document[1 : document.tolist().index(3)])
        assert long["input"].endswith(prompt)


def replace_train(records, train):
    return records._replace(train=train)


def test_a_labels_number_is_its_token_less_the_first(corpus):
    record = {"text": "return None", "label": "b"}
    limits = token_limits(SequenceClassificationConfig(), SEQ_LEN)
    labels = ("a", "b", "c")
    document, _ = encode_record(record, "classification", labels, corpus.tokenizer, limits)
    assert document[-2] == FIRST_LABEL_ID + 1


def test_more_classes_than_ids_and_no_records_are_refused(corpus, tmp_path):
    limits = token_limits(SequenceClassificationConfig(), SEQ_LEN)
    records = records_of("classification")
    too_many = records._replace(labels=tuple(map(str, range(corpus.tokenizer.vocab_size))))
    with pytest.raises(InputError, match="600 classes"):
        write_labelled_corpus(tmp_path / "a", too_many, corpus.tokenizer, limits)
    with pytest.raises(InputError, match=r"data \(held_out\)"):
        empty = records._replace(held_out=[])
        write_labelled_corpus(tmp_path / "b", empty, corpus.tokenizer, limits)


def test_the_order_follows_from_the_seed(corpus, tmp_path):
    limits = token_limits(SequenceClassificationConfig(), SEQ_LEN)
    records = records_of("classification")
    orders = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(number)
        written = write_labelled_corpus(out, records, corpus.tokenizer, limits, seed=seed)
        orders.append([d.tokens.tolist() for d in written.documents("train")])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_batches_of_labels_stay_below_the_number_of_classes(corpus, tmp_path):
    records = records_of("token_classification")
    objective = OBJECTIVES["token_classification"]
    limits = token_limits(objective, SEQ_LEN)
    written = write_labelled_corpus(tmp_path / "out", records, corpus.tokenizer, limits)
    data = replace(DataConfig(seq_len=SEQ_LEN), packing=BestFitConfig())
    source = training_rows(objective_run(objective, data, written), {"corpus": written})
    batch = source.batch(range(source.facts[0].rows_per_epoch)).batch
    assert np.unique(batch.targets).tolist() == [0, 1, 2]
