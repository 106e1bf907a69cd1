"""A small random model and a tokenizer that knows every byte."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import AttentionConfig, ModelConfig
from data.tokenizer import Tokenizer, train_tokenizer
from inference import beam, decoding, generate
from inference.generation import Generation
from model.build import build_model, forward
from tests.model.samples import QUICK_COMPILE, Rows, logits_of, random_params, tiny_model


class Sample(NamedTuple):
    config: ModelConfig
    params: Any
    tokenizer: Tokenizer

    def logits(self, tokens: list[int], prefix: int = 0) -> np.ndarray:
        """Logits [L, V] of the plain forward pass over the tokens and nothing else.

        The row is padded to a multiple of 64, so that few programs are compiled.

        Args:
          prefix: how many of the first tokens see one another both ways.
        """
        row = np.zeros((1, -(-len(tokens) // 64) * 64), np.int32)
        row[0, : len(tokens)] = tokens
        index = np.arange(row.shape[1], dtype=np.int32)[None]
        segment_ids = (index < len(tokens)).astype(np.int32)
        if prefix:
            both_ways = (index < prefix).astype(np.int32)
            given = {"positions": index, "segment_ids": segment_ids, "prefix": both_ways}
            model, fields = build_model(self.config), jax.tree.map(jnp.asarray, given)
            logits_BLV = forward(model, self.params, jnp.asarray(row), **fields)
            return np.asarray(logits_BLV)[0, : len(tokens)]
        rows = Rows(row, index, segment_ids)
        return logits_of(self.config, self.params, rows)[0, : len(tokens)]


def assert_alike(one: Generation, other: Generation) -> None:
    """The same tokens; log-probabilities as near as fp32 sums in another order are."""
    assert (one.prompt, one.tokens, one.text) == (other.prompt, other.tokens, other.text)
    assert one.finished == other.finished
    np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4)
    np.testing.assert_allclose(one.score, other.score, atol=1e-3)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    text = "def add(x, y):\n    return x + y\n\n\nclass Point:\n    pass\n" * 20
    return train_tokenizer([text], 300, seed=0)


@pytest.fixture(scope="session")
def symbols_tokenizer() -> Tokenizer:
    text = "def add(x, y):\n    return x + y\n\n\nclass Point:\n    pass\n" * 20
    symbols = ("<mask>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>")
    return train_tokenizer([text], 304, seed=0, symbols=symbols)


@pytest.fixture(scope="session")
def sample(tokenizer) -> Sample:
    attention = AttentionConfig(num_heads=2, num_kv_heads=1, head_dim=16)
    config = tiny_model(
        vocab_size=tokenizer.vocab_size, attention=attention, tie_embeddings=True, scan_layers=True
    )
    return Sample(config, random_params(config), tokenizer)


@pytest.fixture(scope="session", autouse=True)
def compiled_quickly():
    """Compiles the programs of generation without optimising them: that takes half the time."""
    programs = {
        decoding: {"read_prompts": {}, "choose_tokens": {"donate_argnames": "rows"}},
        beam: {"begin_beams": {}, "advance_beams": {"donate_argnames": "state"}},
    }
    static = {
        "read_prompts": ("program", "num_slots", "copies"),
        "choose_tokens": ("program",),
        "begin_beams": ("program", "num_beams", "num_slots", "room"),
        "advance_beams": ("program",),
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, named in programs.items():
            for name, options in named.items():
                quick = jax.jit(
                    getattr(module, name).__wrapped__,
                    static_argnames=static[name],
                    compiler_options=QUICK_COMPILE,
                    **options,
                )
                for user in (module, generate):
                    if hasattr(user, name):
                        patch.setattr(user, name, quick)
        yield
