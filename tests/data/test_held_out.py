import lzma
import math

import numpy as np
import pytest

from configs.data_config import DataConfig
from configs.errors import InputError
from configs.objective_config import (
    CausalLMConfig,
    DenoisingConfig,
    FillInTheMiddleConfig,
    MaskedLMConfig,
    ObjectiveConfig,
    PrefixLMConfig,
    SpanCorruptionConfig,
    UL2Config,
)
from data.held_out import compression_baselines, document_rows, document_windows, held_out_examples
from data.objectives import OBJECTIVES, Context, Example
from data.packing import RowShape
from tests.data.conftest import objective_run

OTHERS = [
    PrefixLMConfig(),
    PrefixLMConfig(architecture="encoder_decoder"),
    FillInTheMiddleConfig(max_documents=1),
    MaskedLMConfig(),
    SpanCorruptionConfig(),
    DenoisingConfig(),
    UL2Config(),
]


CAUSAL: ObjectiveConfig = CausalLMConfig()


def held_out(corpus, objective: ObjectiveConfig = CAUSAL, *, seq_len=32, seed=0, max_tokens=0):
    run = objective_run(objective, DataConfig(seq_len=seq_len, seed=seed), corpus)
    return held_out_examples(run, corpus, max_tokens=max_tokens)


def test_windows_of_a_document_literally():
    first, second = document_windows(np.array([7, 8, 9], np.int32), 2)
    assert [f.tolist() for f in first[:5]] == [[2, 7], [7, 8], [1, 1], [0, 1], [1, 1]]
    assert [f.tolist() for f in second[:5]] == [[8, 0], [9, 0], [1, 0], [0, 0], [1, 0]]


def test_a_document_that_fills_its_windows_gets_no_empty_one():
    assert len(list(document_windows(np.arange(10, 18, dtype=np.int32), 4))) == 2


@pytest.mark.parametrize("seq_len", [2, 5, 64, 100_000])
def test_every_held_out_token_is_scored_once_and_bytes_add_up(corpus, seq_len):
    found = held_out(corpus, seq_len=seq_len)
    documents = list(corpus.documents("held_out"))
    scored = found.batch.targets[found.batch.loss_weights > 0]
    np.testing.assert_array_equal(scored, np.concatenate([d.tokens for d in documents]))
    assert corpus.tokenizer.eos_id not in scored and corpus.tokenizer.bos_id not in scored
    assert found.num_targets == len(scored) == found.batch.loss_weights.sum()
    assert found.num_bytes == corpus.splits["held_out"].bytes == len(corpus.text("held_out"))
    assert found.num_documents == corpus.splits["held_out"].documents
    assert all(field.shape == (len(found.batch.inputs), seq_len) for field in found.batch[:5])
    assert found.batch[5:] == (None,) * 4


def test_each_document_is_read_after_bos_and_sees_no_other(corpus):
    windows = held_out(corpus, seq_len=16).batch
    opens = windows.inputs == corpus.tokenizer.bos_id
    assert not opens[:, 1:].any()
    assert opens[:, 0].sum() == corpus.splits["held_out"].documents
    assert set(np.unique(windows.segment_ids)) == {0, 1}
    assert (windows.inputs[windows.segment_ids == 0] == corpus.tokenizer.pad_id).all()


def test_a_token_cap_takes_the_first_whole_documents(corpus):
    documents = list(corpus.documents("held_out"))
    cap = len(documents[0].tokens) + len(documents[1].tokens)
    for max_tokens, count in [(1, 1), (cap - 1, 1), (cap, 2), (10**9, len(documents))]:
        found = held_out(corpus, max_tokens=max_tokens)
        assert found.num_documents == count
        assert found.num_bytes == sum(d.num_bytes for d in documents[:count])
        assert found.num_targets == sum(len(d.tokens) for d in documents[:count])


def test_a_negative_cap_names_the_field(corpus):
    with pytest.raises(InputError, match="^training.eval_tokens"):
        held_out(corpus, max_tokens=-1)


def test_rows_of_a_document_literally():
    first, second = document_rows(np.array([7, 8, 9], np.int32), RowShape(4, 0))
    assert [f.tolist() for f in first[:3]] == [[2, 7, 8, 9], [1, 1, 1, 1], [0, 1, 2, 3]]
    assert [f.tolist() for f in second[:3]] == [[3, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    rows = list(document_rows(np.array([7, 8, 9], np.int32), RowShape(3, 1)))
    assert [row.tokens.tolist() for row in rows] == [[2, 7, 8], [8, 9, 3]]
    assert [row.counts[:3] for row in rows] == [(3, 0, 0), (2, 1, 0)]


@pytest.mark.parametrize("objective", OTHERS, ids=lambda objective: objective.kind)
def test_other_objectives_hold_out_every_document_once(symbol_corpus, objective):
    found = held_out(symbol_corpus, objective)
    context = Context(symbol_corpus.tokenizer.symbols, objective.lengths(32))
    batch = found.batch
    assert found.num_targets == np.count_nonzero(batch.loss_weights)
    assert found.num_documents == symbol_corpus.splits["held_out"].documents
    assert found.num_bytes == symbol_corpus.splits["held_out"].bytes
    reconstruct = OBJECTIVES[type(objective)].reconstruct
    content = []
    for place in range(len(batch.inputs)):
        example = Example(**{name: field[place] for name, field in _present(batch)})
        content += reconstruct(objective, example, context)
    documents = [document.tokens for document in symbol_corpus.documents("held_out")]
    if context.lengths.overlap == 0:
        np.testing.assert_array_equal(np.concatenate(content), np.concatenate(documents))
    else:  # rows repeat a token at each cut
        cuts = sum(math.ceil((len(d) + 1) / (context.lengths.tokens - 1)) - 1 for d in documents)
        assert 0 <= sum(map(len, content)) - sum(map(len, documents)) <= cuts


def _present(batch):
    return [(name, field) for name, field in batch._asdict().items() if field is not None]


@pytest.mark.parametrize("objective", OTHERS, ids=lambda objective: objective.kind)
def test_every_evaluation_meets_the_same_noise_and_another_seed_other_noise(
    symbol_corpus, objective
):
    first, again, other = (held_out(symbol_corpus, objective, seed=s).batch for s in (1, 1, 2))
    for (_, one), (_, same) in zip(_present(first), _present(again), strict=True):
        np.testing.assert_array_equal(one, same)
    differs = [
        one.shape != another.shape or not np.array_equal(one, another)
        for (_, one), (_, another) in zip(_present(first), _present(other), strict=True)
    ]
    assert any(differs)


def test_a_cap_leaves_the_noise_of_the_first_documents_as_it_is(symbol_corpus):
    all_of_them = held_out(symbol_corpus, MaskedLMConfig()).batch
    capped = held_out(symbol_corpus, MaskedLMConfig(), max_tokens=60).batch
    size = len(capped.inputs)
    assert 0 < size < len(all_of_them.inputs)
    np.testing.assert_array_equal(capped.inputs, all_of_them.inputs[:size])


def test_a_tokenizer_without_the_symbols_is_named(corpus):
    with pytest.raises(
        InputError, match=r"^tokenizer: got one without <mask>, .*--symbols mask\)$"
    ):
        held_out(corpus, MaskedLMConfig())


def test_baselines_are_xz_9e_alone_and_after_the_training_text():
    rng = np.random.default_rng(0)
    held_out = rng.integers(97, 123, 4000, dtype=np.uint8).tobytes()
    baselines = compression_baselines(held_out + b"and more", held_out)
    size = len(lzma.compress(held_out, preset=9 | lzma.PRESET_EXTREME))
    assert baselines.xz_bits_per_byte == 8 * size / 4000
    assert baselines.xz_primed_bits_per_byte < 0.1 * baselines.xz_bits_per_byte
    with pytest.raises(InputError, match="^data.corpus"):
        compression_baselines(b"text", b"")
