"""A small untrained model and a tokenizer that knows every byte."""

from typing import Any, NamedTuple

import jax
import pytest

from configs.schema import AttentionConfig, ModelConfig, SwiGLUConfig
from data.tokenizer import Tokenizer, train_tokenizer
from model.build import build_model, init_params


class Sample(NamedTuple):
    config: ModelConfig
    params: Any
    tokenizer: Tokenizer


@pytest.fixture(scope="session")
def sample() -> Sample:
    text = "def add(x, y):\n    return x + y\n\n\nclass Point:\n    pass\n" * 20
    tokenizer = train_tokenizer([text], 300, seed=0)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        emb_dim=32,
        num_layers=2,
        attention=AttentionConfig(num_heads=2, num_kv_heads=1, head_dim=16),
        mlp=SwiGLUConfig(mlp_dim=48),
    )
    return Sample(config, init_params(build_model(config), jax.random.key(0)), tokenizer)
