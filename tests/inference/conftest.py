"""A small random model and a tokenizer that knows every byte."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import AttentionConfig, ModelConfig
from data.tokenizer import Tokenizer, train_tokenizer
from inference import generate
from inference.sampling import Sampling
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
def compiled_once():
    """Compiles a program, quickly, for several calls of `generate`; the seed is no part of it."""
    caches = {"_compiled": 4, "_compiled_start": 7}  # the argument that is given away
    with pytest.MonkeyPatch.context() as patch:
        for name, donated in caches.items():
            patch.setattr(generate, name, _compiling_once(getattr(generate, name), donated))
        yield


def _compiling_once(make: Callable[..., Any], donated: int) -> Callable[..., Any]:
    @cache
    def compiled(config: ModelConfig, sampling: Sampling, **options: bool) -> Any:
        step = make(config, sampling, **options)
        return jax.jit(step, donate_argnums=donated, compiler_options=QUICK_COMPILE)

    return lambda config, sampling, **options: compiled(
        config, replace(sampling, seed=0), **options
    )
