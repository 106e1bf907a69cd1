"""Bits per byte by hand, whatever the batch size or the mesh."""

from typing import Any

import jax
import numpy as np
import pytest

from configs.schema import MeshConfig
from data.batches import Batch
from data.corpus import Corpus
from tests.model.samples import QUICK_COMPILE, Rows, logits_of, random_params, tiny_model
from tests.train.samples import mesh_of, tiny_run
from train.evaluate import Evaluation, evaluate
from train.step import batch_sharding, make_eval_step


def evaluated(
    corpus: Corpus,
    params: Any,
    *,
    batch_size: int = 8,
    mesh: MeshConfig = MeshConfig(),  # noqa: B008 (frozen)
    max_tokens: int = 0,
) -> Evaluation:
    config = run_config(corpus, batch_size=batch_size, mesh=mesh)
    mesh_ = mesh_of(config)
    sharding = batch_sharding(config, mesh_)
    row = np.zeros((batch_size, config.data.seq_len), np.int32)
    batch = Batch(row, row, row.astype(np.float32), row, row)
    step = make_eval_step(config, mesh_).lower(params, batch).compile(QUICK_COMPILE)
    return evaluate(
        step,
        jax.device_put(params, step.input_shardings[0][0]),
        {"corpus": corpus},
        seq_len=config.data.seq_len,
        batch_size=batch_size,
        sharding=sharding,
        max_tokens=max_tokens,
    )


def run_config(corpus: Corpus, **changes: Any):
    model = tiny_model(vocab_size=corpus.tokenizer.vocab_size, num_layers=1)
    return tiny_run(model=model, **changes)


@pytest.fixture(scope="module")
def params(corpus):
    return random_params(run_config(corpus).model)


def counted(corpus: Corpus) -> tuple[int, int, int]:
    """Held-out tokens, UTF-8 bytes and documents, from the text itself."""
    texts = [corpus.tokenizer.decode(d.tokens) for d in corpus.documents("held_out")]
    tokens = sum(len(corpus.tokenizer.encode(text)) for text in texts)
    return tokens, sum(len(text.encode()) for text in texts), len(texts)


def test_a_uniform_model_costs_the_log_of_the_vocabulary_a_token(corpus, params):
    zeros = jax.tree.map(np.zeros_like, params)
    evaluation = evaluated(corpus, zeros)
    tokens, num_bytes, documents = counted(corpus)
    vocab_size = corpus.tokenizer.vocab_size
    assert (evaluation.tokens, evaluation.bytes, evaluation.documents) == (
        tokens,
        num_bytes,
        documents,
    )
    # Equal numbers all round the same way as fp32 adds them up: 128 of them lose up to 8e-6.
    assert evaluation.nats_per_token == pytest.approx(np.log(vocab_size), rel=8e-6)
    expected = tokens * np.log2(vocab_size) / num_bytes
    assert evaluation.bits_per_byte == pytest.approx(expected, rel=8e-6)


def test_every_token_of_every_document_is_scored_once_on_its_own(corpus, params):
    # By hand: each window a row of its own, through the same model.
    config, nats = run_config(corpus), 0.0
    seq_len = config.data.seq_len
    for document in corpus.documents("held_out"):
        sequence = np.concatenate([[corpus.tokenizer.bos_id], document.tokens]).astype(np.int32)
        for begin in range(0, len(document.tokens), seq_len):
            targets = sequence[begin + 1 : begin + 1 + seq_len]
            inputs = np.zeros((1, seq_len), np.int32)
            inputs[0, : len(targets)] = sequence[begin : begin + len(targets)]
            positions = np.arange(seq_len, dtype=np.int32)[None]
            logits = logits_of(config.model, params, Rows(inputs, positions, positions * 0 + 1))
            logits = logits[0, : len(targets)].astype(np.float64)
            normaliser = np.log(np.exp(logits).sum(-1))
            nats += (normaliser - logits[np.arange(len(targets)), targets]).sum()
    evaluation = evaluated(corpus, params)
    assert evaluation.nats_per_token == pytest.approx(nats / evaluation.tokens, rel=1e-6)
    bits = nats / np.log(2) / evaluation.bytes
    assert evaluation.bits_per_byte == pytest.approx(bits, rel=1e-6)


@pytest.mark.parametrize(
    ("batch_size", "mesh"),
    [(3, MeshConfig()), (16, MeshConfig(data=4, tensor=2))],
    ids=["batches of three", "on eight devices"],
)
def test_the_result_does_not_depend_on_batch_size_or_mesh(corpus, params, batch_size, mesh):
    plain = evaluated(corpus, params)
    other = evaluated(corpus, params, batch_size=batch_size, mesh=mesh)
    assert other.nats_per_token == pytest.approx(plain.nats_per_token, rel=1e-6)
    assert other.bits_per_byte == pytest.approx(plain.bits_per_byte, rel=1e-6)
    assert other[2:5] == plain[2:5]


def test_a_cap_scores_the_first_whole_documents(corpus, params):
    first = next(iter(corpus.documents("held_out")))
    evaluation = evaluated(corpus, params, max_tokens=len(first.tokens))
    assert evaluation.documents == 1
    assert evaluation.tokens == len(first.tokens)
    assert evaluation.bytes == first.num_bytes


def test_several_corpora_are_scored_together_and_each_on_its_own(corpus, params):
    config = run_config(corpus)
    mesh = mesh_of(config)
    row = np.zeros((8, config.data.seq_len), np.int32)
    batch = Batch(row, row, row.astype(np.float32), row, row)
    step = make_eval_step(config, mesh).lower(params, batch).compile(QUICK_COMPILE)
    placed = jax.device_put(params, step.input_shardings[0][0])
    both = evaluate(
        step,
        placed,
        {"a": corpus, "b": corpus},
        seq_len=config.data.seq_len,
        batch_size=8,
        sharding=batch_sharding(config, mesh),
    )
    alone = evaluated(corpus, params)
    assert alone.corpora == {}
    assert both.tokens == 2 * alone.tokens and both.bytes == 2 * alone.bytes
    assert both.bits_per_byte == pytest.approx(alone.bits_per_byte, rel=1e-12)
    for name in ("a", "b"):
        assert both.corpora[name]["bits_per_byte"] == pytest.approx(alone.bits_per_byte, rel=1e-12)
        assert both.corpora[name]["tokens"] == alone.tokens
