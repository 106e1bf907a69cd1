"""Bits per byte by hand, whatever the batch size or the mesh."""

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from configs.objective_config import MaskedLMConfig, SpanCorruptionConfig
from configs.schema import MeshConfig, RunConfig
from data.corpus import Corpus
from data.held_out import held_out_examples
from tests.model.samples import QUICK_COMPILE, Rows, logits_of, random_params, tiny_model
from tests.train.samples import CAUSAL, mesh_of, tiny_run
from train.evaluate import Evaluation, describe, evaluate
from train.programs import abstract_batch
from train.state import abstract_state
from train.step import batch_sharding, make_eval_step


def evaluated_all(
    corpora: dict[str, Corpus], params: Any, config: RunConfig, max_tokens: int = 0
) -> Evaluation:
    step = compiled(config)
    return evaluate(
        step,
        jax.device_put(params, step.input_shardings[0][0]),
        config,
        corpora,
        sharding=batch_sharding(config, mesh_of(config)),
        max_tokens=max_tokens,
    )


@cache
def compiled(config: RunConfig) -> Any:
    mesh = mesh_of(config)
    params, batch = abstract_state(config, mesh).params, abstract_batch(config, mesh)
    return make_eval_step(config, mesh).lower(params, batch).compile(QUICK_COMPILE)


def evaluated(corpus: Corpus, params: Any, max_tokens: int = 0, **changes: Any) -> Evaluation:
    return evaluated_all({"corpus": corpus}, params, run_config(corpus, **changes), max_tokens)


def run_config(corpus: Corpus, *, objective: Any = CAUSAL, **changes: Any) -> RunConfig:
    (architecture,) = objective.architectures
    model = tiny_model(
        architecture=architecture,
        vocab_size=corpus.tokenizer.vocab_size,
        num_layers=1,
        num_encoder_layers=int(architecture == "encoder_decoder"),
    )
    return tiny_run(model=model, objective=objective, **changes)


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
    assert evaluation.metrics == {"token_accuracy": 0.0}  # the likeliest of equals is <pad>


def test_every_token_of_every_document_is_scored_once_on_its_own(corpus, params):
    # By hand: each window a row of its own, through the same model.
    config, nats, correct = run_config(corpus), 0.0, 0
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
            correct += (logits.argmax(-1) == targets).sum()
    evaluation = evaluated(corpus, params)
    assert evaluation.nats_per_token == pytest.approx(nats / evaluation.tokens, rel=1e-6)
    bits = nats / np.log(2) / evaluation.bytes
    assert evaluation.bits_per_byte == pytest.approx(bits, rel=1e-6)
    assert evaluation.metrics == {"token_accuracy": correct / evaluation.tokens}


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        (MaskedLMConfig(mask_rate=0.3), {"masked_token_accuracy"}),
        (SpanCorruptionConfig(density=0.3), {"token_accuracy", "span_accuracy"}),
    ],
    ids=["masked", "spans"],
)
def test_other_objectives_are_scored_on_their_own_targets(corpus_with_symbols, objective, names):
    config = run_config(corpus_with_symbols, objective=objective)
    params = random_params(config.model)
    evaluation = evaluated(corpus_with_symbols, params, 400, objective=objective)
    batch = held_out_examples(config, corpus_with_symbols, max_tokens=400).batch
    rows = Rows(batch.inputs, batch.positions, batch.segment_ids, batch.prefix, *batch[6:])
    logits = logits_of(config.model, params, rows).astype(np.float64)
    nats = (
        np.log(np.exp(logits).sum(-1))
        - np.take_along_axis(logits, batch.targets[..., None], -1)[..., 0]
    )
    counts = batch.loss_weights > 0
    assert evaluation.tokens == counts.sum() > 50
    assert evaluation.nats_per_token == pytest.approx(nats[counts].mean(), rel=1e-6)
    assert evaluation.bits_per_byte is None
    assert set(evaluation.metrics) == names
    accuracy = (logits.argmax(-1) == batch.targets)[counts].mean()
    assert next(iter(evaluation.metrics.values())) == pytest.approx(accuracy, rel=1e-12)
    assert describe(evaluation).startswith(f"{evaluation.nats_per_token:.4f} nats per token, ")
    assert "bits" not in describe(evaluation)


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
    both = evaluated_all({"a": corpus, "b": corpus}, params, run_config(corpus))
    alone = evaluated(corpus, params)
    assert alone.corpora == {}
    assert both.tokens == 2 * alone.tokens and both.bytes == 2 * alone.bytes
    assert both.bits_per_byte == pytest.approx(alone.bits_per_byte, rel=1e-12)
    for name in ("a", "b"):
        assert both.corpora[name]["bits_per_byte"] == pytest.approx(alone.bits_per_byte, rel=1e-12)
        assert both.corpora[name]["tokens"] == alone.tokens
        assert both.corpora[name]["metrics"] == pytest.approx(alone.metrics)
    assert both.metrics == pytest.approx(alone.metrics)
    assert list(both.corpora) == ["a", "b"]
