"""Rows of every objective: lengths of both sides, noise, the ledger, and what is missing."""

import numpy as np
import pytest

from configs.data_config import BestFitConfig, ConcatenateConfig, DataConfig, LengthBucketsConfig
from configs.errors import InputError
from configs.objective_config import (
    CausalLMConfig,
    DenoisingConfig,
    FillInTheMiddleConfig,
    InstructionTuningConfig,
    MaskedLMConfig,
    PrefixLMConfig,
    SequenceClassificationConfig,
    SequenceToSequenceConfig,
    SpanCorruptionConfig,
    TokenClassificationConfig,
    UL2Config,
)
from data.dataset import training_rows
from data.ledger import Ledger
from data.objectives import OBJECTIVES
from tests.data.conftest import objective_run

OBJECTIVE_CONFIGS = [
    CausalLMConfig(),
    PrefixLMConfig(),
    PrefixLMConfig(architecture="encoder_decoder"),
    FillInTheMiddleConfig(max_documents=2),
    MaskedLMConfig(),
    SpanCorruptionConfig(),
    DenoisingConfig(),
    UL2Config(),
    # A corpus without labels has nothing for them: rows of padding, which must be sound too.
    SequenceClassificationConfig(),
    TokenClassificationConfig(),
    SequenceToSequenceConfig(target_tokens=16),
    InstructionTuningConfig(),
]
PACKINGS = [ConcatenateConfig(), BestFitConfig(), LengthBucketsConfig(group_rows=2)]


def rows_of(objective, corpus, packing=PACKINGS[0], *, seq_len=64, seed=1):
    data = DataConfig(seq_len=seq_len, seed=seed, packing=packing)
    return training_rows(objective_run(objective, data, corpus), {"corpus": corpus})


@pytest.fixture(params=OBJECTIVE_CONFIGS, ids=lambda objective: objective.kind)
def objective(request):
    return request.param


def test_there_is_a_case_for_every_objective():
    assert {type(objective) for objective in OBJECTIVE_CONFIGS} == set(OBJECTIVES)


@pytest.mark.parametrize("packing", PACKINGS, ids=lambda packing: packing.kind)
def test_a_batch_has_both_sides_at_the_lengths_the_config_says(objective, packing, symbol_corpus):
    source = rows_of(objective, symbol_corpus, packing)
    numbers = range(12)
    served = source.batch(numbers)
    lengths = objective.lengths(source.batch_length(numbers))
    assert source.lengths(source.batch_length(numbers)) == lengths
    batch = served.batch
    for name, field in batch._asdict().items():
        if name.startswith("encoder"):
            expected = (12, lengths.encoder_length) if lengths.encoder_length else None
        elif name == "prefix":
            expected = (12, lengths.length) if lengths.has_prefix else None
        else:
            expected = (12, lengths.length)
        assert (None if field is None else field.shape) == expected
    assert not batch.loss_weights[batch.segment_ids == 0].any()
    assert not batch.inputs[batch.segment_ids == 0].any()
    for place, number in enumerate(numbers):
        example = source.row(number).example
        for stacked, alone in zip(batch, example, strict=True):
            if alone is not None:
                assert stacked is not None
                np.testing.assert_array_equal(stacked[place, : len(alone)], alone)
                assert not stacked[place, len(alone) :].any()


@pytest.mark.parametrize("packing", PACKINGS, ids=lambda packing: packing.kind)
def test_the_ledgers_sums_are_exact_over_an_epoch(objective, packing, symbol_corpus):
    source = rows_of(objective, symbol_corpus, packing)
    [facts] = source.facts
    ledger, first, batches = Ledger(facts=source.facts), 0, 0
    while first < facts.rows_per_epoch:
        size = min(8, facts.rows_per_epoch - first)
        served = source.batch(range(first, first + size))
        ledger = ledger.add(served.entries)
        batches += size * source.lengths(source.batch_length(range(first, first + size))).tokens
        first += size
    [entry] = ledger.entries.values()
    assert entry.places == entry.read + entry.repeated + entry.padded == batches
    assert facts.tokens == entry.read + entry.truncated + facts.dropped_per_epoch


def test_noise_follows_from_seed_and_row_number_alone(objective, symbol_corpus):
    first, again = (rows_of(objective, symbol_corpus) for _ in range(2))
    for number in (9, 3, 3):
        for one, other in zip(first.row(number).example, again.row(number).example, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_same_text_is_masked_anew_in_every_epoch(symbol_corpus):
    source = rows_of(MaskedLMConfig(), symbol_corpus, LengthBucketsConfig(group_rows=1))
    [facts] = source.facts
    seen: dict[bytes, list[np.ndarray]] = {}
    for number in range(2 * facts.rows_per_epoch):
        example = source.row(number).example
        if np.count_nonzero(example.loss_weights) > 3:
            seen.setdefault(example.targets.tobytes(), []).append(example.loss_weights)
    pairs = [masks for masks in seen.values() if len(masks) == 2]
    assert len(pairs) > 20
    assert all(not np.array_equal(first, second) for first, second in pairs)


def test_a_document_fits_the_smallest_bucket_that_takes_its_tokens(symbol_corpus):
    packing = LengthBucketsConfig(group_rows=1)
    source = rows_of(SpanCorruptionConfig(), symbol_corpus, packing, seq_len=256)
    for number in range(source.facts[0].rows_per_epoch):
        length = source.batch_length([number])
        row = source._packings[0].row(number)
        tokens = SpanCorruptionConfig().lengths(length).tokens
        assert len(row.tokens) == tokens
        shorter = SpanCorruptionConfig().lengths(length // 2).tokens if length > 32 else 0
        assert row.counts.read > shorter or row.counts.read == 0


def test_missing_symbols_are_named_with_the_remedy_before_anything_is_read(objective, corpus):
    needed = objective.symbols(64)
    if not needed:
        assert rows_of(objective, corpus).row(0).example.inputs.shape == (
            objective.lengths(64).length,
        )
        return
    with pytest.raises(InputError, match=r"^tokenizer: got one without <.*--symbols [^\n]+\)$"):
        rows_of(objective, corpus)


def test_longer_rows_may_need_more_sentinels_than_there_are(symbol_corpus):
    needed = len(SpanCorruptionConfig().symbols(1024))
    with pytest.raises(
        InputError, match=rf"<extra_id_40>.*--symbols mask fim ul2 sentinels:{needed}\)$"
    ):
        rows_of(SpanCorruptionConfig(), symbol_corpus, seq_len=1024)
