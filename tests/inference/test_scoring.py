"""Scores are those of the plain forward pass."""

import math

import jax
import jax.numpy as jnp
import pytest

from configs.errors import InputError
from inference.scoring import score
from model.build import build_model, forward

TEXT = "def add(x, y):\n    return x + y\n"


def log_likelihood(sample, tokens: list[int]) -> float:
    row = jnp.array([[sample.tokenizer.bos_id, *tokens]])
    positions, segments = jnp.arange(row.shape[1])[None], jnp.ones_like(row)
    model = build_model(sample.config)
    logits = forward(model, sample.params, row, positions=positions, segment_ids=segments)
    log_p = jax.nn.log_softmax(logits[0, :-1])
    return float(sum(log_p[i, token] for i, token in enumerate(tokens)))


def test_one_window_is_the_forward_pass(sample):
    tokens = sample.tokenizer.encode(TEXT)
    result = score(*sample, TEXT, seq_len=64)
    expected = log_likelihood(sample, tokens)
    assert result.log_likelihood == pytest.approx(expected, rel=1e-5)
    assert result.tokens == len(tokens) and result.bytes == len(TEXT.encode())
    assert result.perplexity == pytest.approx(math.exp(-expected / len(tokens)), rel=1e-5)
    bits = -expected / math.log(2) / len(TEXT.encode())
    assert result.bits_per_byte == pytest.approx(bits, rel=1e-5)


def test_long_texts_are_scored_in_windows_that_miss_no_token(sample):
    result = score(*sample, TEXT * 30, seq_len=16)
    assert result.tokens == len(sample.tokenizer.encode(TEXT * 30))
    # An untrained model is about uniform, in windows as without.
    assert result.perplexity == pytest.approx(sample.config.vocab_size, rel=1.0)


def test_uniform_model_scores_log_vocabulary(sample):
    zeros = jax.tree.map(jnp.zeros_like, sample.params)
    result = score(sample.config, zeros, sample.tokenizer, TEXT, seq_len=16)
    assert result.perplexity == pytest.approx(sample.config.vocab_size, rel=1e-5)


def test_no_text_is_refused(sample):
    with pytest.raises(InputError, match="^text: "):
        score(*sample, "", seq_len=16)
