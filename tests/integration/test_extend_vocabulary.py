"""A model for a longer vocabulary gives the old tokens their old logits."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from configs.errors import InputError
from configs.model_config import MaskedLMHeadConfig, ModelConfig
from data.extend_tokenizer import extend_tokenizer
from data.tokenizer import Tokenizer, train_tokenizer
from model.build import abstract_params
from tests.model.samples import Rows, logits_of, random_params, tiny_model
from workflows.extend_vocabulary import extend_params

GENERAL = "def add(x, y):\n    return x + y\n\n\nclass Point:\n    pass\n" * 20
DOMAIN = [f"while price < {n}:\n    orders.append(price * {n})\n" for n in range(40)]
NEW = 24


@pytest.fixture(scope="module")
def old() -> Tokenizer:
    return train_tokenizer([GENERAL], 300, seed=0)


@pytest.fixture(scope="module")
def new(old) -> Tokenizer:
    return extend_tokenizer(old, DOMAIN, new_pieces=NEW)


CONFIGS = {
    "tied": tiny_model(vocab_size=300, num_layers=1, tie_embeddings=True),
    "untied": tiny_model(
        vocab_size=300, num_layers=1, head=MaskedLMHeadConfig(), architecture="encoder_only"
    ),
    "rows to spare": tiny_model(vocab_size=310, num_layers=1, tie_embeddings=True),
}


def logits(config: ModelConfig, params: dict, tokens: list[int]) -> np.ndarray:
    row = np.array([tokens], np.int32)
    rows = Rows(row, np.arange(len(tokens), dtype=np.int32)[None], np.ones_like(row))
    return logits_of(config, params, rows)[0]


@pytest.mark.parametrize("kind", CONFIGS)
def test_old_tokens_keep_their_logits_and_new_ones_get_their_parts_mean(kind, old, new):
    config = CONFIGS[kind]
    params = random_params(config)
    larger, extended = extend_params(config, params, old=old, new=new)
    assert larger == replace(config, vocab_size=new.vocab_size)
    shapes = jax.tree.map(lambda leaf: leaf.shape, abstract_params(larger))
    assert jax.tree.map(np.shape, extended) == shapes
    tokens = old.encode(DOMAIN[0])
    before, after = logits(config, params, tokens), logits(larger, extended, tokens)
    # Sums over more tokens are cut into other blocks.
    np.testing.assert_allclose(after[:, : old.vocab_size], before[:, : old.vocab_size], atol=1e-5)
    for piece in range(old.vocab_size, new.vocab_size):
        parts = old.encode(new.pieces[piece].replace("\u2581", " "))
        assert len(parts) > 1 or len(new.pieces[piece]) == 1  # a character was a byte
        np.testing.assert_allclose(after[:, piece], before[:, parts].mean(-1), atol=1e-5)


def test_the_models_own_parameters_are_left_as_they_were(old, new):
    config = CONFIGS["tied"]
    params = random_params(config)
    copy = jax.tree.map(np.array, params)
    extend_params(config, params, old=old, new=new)
    jax.tree.map(np.testing.assert_array_equal, params, copy)


def test_another_tokenizer_is_refused(old, new):
    other = train_tokenizer([GENERAL.upper()], 320, seed=0)
    config = CONFIGS["tied"]
    with pytest.raises(InputError, match="^tokenizer: got '320 pieces of others'"):
        extend_params(config, random_params(config), old=old, new=other)
    with pytest.raises(InputError, match="^tokenizer: got '324 pieces', expected 300 at most"):
        extend_params(config, random_params(config), old=new, new=new)
