"""Scores are those of the plain forward pass."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.errors import InputError
from inference.scoring import Score, score
from tests.inference.conftest import Sample
from tests.model.samples import tiny_model

TEXT = "def add(x, y):\n    return x + y  # é漢🎉\n"


def log_likelihood(sample: Sample, tokens: list[int], start: int) -> float:
    """Of tokens after the token `start`, in double precision."""
    inputs = [start, *tokens[:-1]]
    logits = sample.logits(inputs).astype(np.float64)
    normaliser = np.log(np.exp(logits).sum(-1))
    return float((logits[np.arange(len(tokens)), tokens] - normaliser).sum())


def test_one_window_is_the_forward_pass(sample):
    tokens = sample.tokenizer.encode(TEXT)
    result = score(sample.config, sample.params, sample.tokenizer, TEXT, seq_len=64)
    expected = log_likelihood(sample, tokens, sample.tokenizer.bos_id)
    assert result.log_likelihood == pytest.approx(expected, rel=1e-5)
    assert result.tokens == len(tokens)
    assert result.bytes == len(TEXT.encode()) > len(TEXT)


def test_a_long_text_is_scored_window_by_window(sample):
    text, seq_len = TEXT * 20, 33
    tokens = sample.tokenizer.encode(text)
    result = score(sample.config, sample.params, sample.tokenizer, text, seq_len=seq_len)
    expected, start = 0.0, sample.tokenizer.bos_id
    for begin in range(0, len(tokens), seq_len):
        window = tokens[begin : begin + seq_len]
        expected += log_likelihood(sample, window, start)
        start = window[-1]  # the next window sees the last token of this one, and no more
    assert len(tokens) > 8 * seq_len and len(tokens) % seq_len  # several batches, the last partial
    assert result.tokens == len(tokens)
    assert result.log_likelihood == pytest.approx(expected, rel=1e-5)


def test_perplexity_and_bits_per_byte_follow_from_the_log_likelihood():
    result = Score(log_likelihood=-12.0 * math.log(2), tokens=4, bytes=6)
    assert result.perplexity == pytest.approx(2**3)
    assert result.bits_per_byte == pytest.approx(2)


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large(sample):
    zeros = jax.tree.map(jnp.zeros_like, sample.params)
    result = score(sample.config, zeros, sample.tokenizer, TEXT, seq_len=64)
    assert result.perplexity == pytest.approx(sample.config.vocab_size, rel=1e-4)
    bits = result.tokens * math.log2(sample.config.vocab_size) / len(TEXT.encode())
    assert result.bits_per_byte == pytest.approx(bits, rel=1e-5)


def test_no_text_is_refused(sample):
    with pytest.raises(InputError, match="^text: "):
        score(sample.config, sample.params, sample.tokenizer, "", seq_len=16)


@pytest.mark.parametrize("architecture", ["encoder_only", "encoder_decoder"])
def test_models_that_do_not_predict_token_after_token_are_refused(sample, architecture):
    config = tiny_model(architecture=architecture)
    message = f"^model.architecture: got '{architecture}', expected decoder_only"
    with pytest.raises(InputError, match=message):
        score(config, sample.params, sample.tokenizer, "x", seq_len=16)
