"""Cached decoding gives what the full forward pass gives, place by place."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import ModelConfig
from configs.position_config import RopeConfig
from model.build import build_model, extend, start
from model.cache import empty_cache
from model.encoder_decoder import EncoderDecoder
from model.encoder_only import EncoderOnly
from tests.model.samples import (
    POSITIONS,
    QUICK_COMPILE,
    VARIANTS,
    Rows,
    attention,
    logits_of,
    packed_rows,
    random_params,
    tiny_model,
    with_encoder,
)

LENGTH, PROMPT = 16, 12
ENCODER_LENGTHS = [5, 9]


def ragged_rows(config: ModelConfig) -> Rows:
    """Two rows of 16; the second is two tokens shorter: padded on the left, where nobody looks."""
    tokens, positions, segment_ids, *_ = packed_rows([LENGTH], num_rows=2)
    positions[1], segment_ids[1] = np.maximum(positions[1] - 2, 0), positions[1] >= 2
    rows = Rows(tokens, positions, segment_ids)
    if config.architecture != "encoder_decoder":
        return rows
    M = max(ENCODER_LENGTHS)
    encoder_tokens = packed_rows([M], num_rows=2).tokens
    index, lengths = np.arange(M, dtype=np.int32)[None], np.array(ENCODER_LENGTHS)[:, None]
    index = np.maximum(index - (M - lengths), 0).astype(np.int32)
    is_token = np.arange(M)[None] >= M - lengths
    return with_encoder(rows, encoder_tokens, index, is_token.astype(np.int32))


def cached_logits(config: ModelConfig, params: Any, rows: Rows) -> tuple[np.ndarray, int]:
    """Logits of the prompt at once and then token by token; and the slots written."""
    model = build_model(config)
    assert not isinstance(model, EncoderOnly)
    slots = 0 if rows.encoder_tokens is None else rows.encoder_tokens.shape[1]
    cache, logits = empty_cache(config, 2, LENGTH + 3, memory_slots=slots), []

    def part(begin: int, end: int) -> dict[str, jax.Array]:
        return {
            "tokens_BL": jnp.asarray(rows.tokens[:, begin:end]),
            "positions": jnp.asarray(rows.positions[:, begin:end]),
            "segment_ids": jnp.asarray(rows.segment_ids[:, begin:end]),
        }

    run = jax.jit(partial(extend, model), compiler_options=QUICK_COMPILE)
    first, prompt = run, part(0, PROMPT)
    if isinstance(model, EncoderDecoder):
        first = jax.jit(partial(start, model), compiler_options=QUICK_COMPILE)
        prompt |= {name: x for name, x in rows.fields.items() if name.startswith("encoder_")}
    out, cache = first(params, cache=cache, **prompt)
    logits.append(out)
    for place in range(PROMPT, LENGTH):
        out, cache = run(params, cache=cache, **part(place, place + 1))
        logits.append(out)
    assert (cache.segments_BS[:, LENGTH:] == 0).all()
    return np.concatenate(logits, axis=1), int(cache.length)


WINDOWED = attention(window=3, layer_pattern=("window", "full"))
MODELS = {
    **{f"{name} positions": tiny_model(position=p, num_layers=1) for name, p in POSITIONS.items()},
    "windows, scanned": tiny_model(
        attention=WINDOWED, position=RopeConfig(local_theta=100.0), scan_layers=True
    ),
    "t5": replace(VARIANTS["t5"], num_layers=1),
    "bart": replace(VARIANTS["bart"], num_layers=1),
}


SLOW = ("sinusoidal positions", "none positions", "bart")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODELS],
)
def test_cached_decoding_equals_the_full_forward_pass(name):
    config = MODELS[name]
    params, rows = random_params(config), ragged_rows(config)
    cached, length = cached_logits(config, params, rows)
    assert length == LENGTH
    full, is_token = logits_of(config, params, rows), rows.segment_ids > 0
    np.testing.assert_allclose(cached[is_token], full[is_token], atol=1e-5)


def test_a_cache_is_kept_in_the_compute_dtype_with_room_for_the_memory():
    config = tiny_model(architecture="encoder_decoder", compute_dtype="bfloat16")
    cache = empty_cache(config, 3, 7, memory_slots=5)
    assert cache.layers.memory is not None and cache.memory_segments_BM is not None
    shapes = {leaf.shape for leaf in cache.layers.own} | {
        leaf.shape for leaf in cache.layers.memory
    }
    assert shapes == {(2, 3, 7, 2, 8), (2, 3, 5, 2, 8)}
    assert {leaf.dtype for leaf in jax.tree.leaves(cache.layers)} == {jnp.dtype("bfloat16")}
    assert empty_cache(config, 3, 7).layers.memory is None
