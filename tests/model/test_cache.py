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
from model.block import BlockCache
from model.build import build_model, extend, init_params, start, unstack_layers
from model.cache import empty_cache, grow_cache
from model.decoder_only import DecoderOnly
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


def cached_logits(
    config: ModelConfig, params: Any, rows: Rows, *, stacked: bool = True
) -> tuple[np.ndarray, int]:
    """Logits of the prompt at once and then token by token; and the slots written.

    Not stacked, the cache has room for the prompt only, and grows once it is full.
    """
    model = build_model(config, stacked=stacked)
    assert not isinstance(model, EncoderOnly)
    slots = 0 if rows.encoder_tokens is None else rows.encoder_tokens.shape[1]
    room = LENGTH + 3 if stacked else PROMPT
    cache = empty_cache(config, 2, room, memory_slots=slots, stacked=stacked)
    logits = []

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
    cache = grow_cache(cache, LENGTH + 3)
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


@pytest.mark.parametrize(
    "config",
    [
        replace(VARIANTS["t5"], num_layers=2),
        tiny_model(
            attention=attention(window=3, layer_pattern=("window", "full")),
            position=RopeConfig(local_theta=100.0),
            skip_first_norm=True,
            num_layers=3,
        ),
    ],
    ids=["t5", "windows"],
)
def test_layers_laid_out_decode_as_stacked_ones_with_a_cache_that_grows(config):
    params, rows = random_params(config), ragged_rows(config)
    stacked, _ = cached_logits(config, params, rows)
    laid_out, length = cached_logits(config, unstack_layers(params), rows, stacked=False)
    assert length == LENGTH
    is_token = rows.segment_ids > 0
    np.testing.assert_allclose(laid_out[is_token], stacked[is_token], atol=1e-5)


def test_layers_laid_out_are_the_stacked_ones_layer_by_layer():
    config = tiny_model(architecture="encoder_decoder", num_layers=3)
    params = random_params(config)
    unstacked = unstack_layers(params)
    model = build_model(config, stacked=False)
    shapes = jax.eval_shape(partial(init_params, model), jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), unstacked) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )
    for layer in range(3):
        assert_equal(
            unstacked["decoder"][f"layers_{layer}"],
            jax.tree.map(lambda x, layer=layer: x[layer], params["decoder"]["layers"]),
        )


def test_only_the_logits_that_are_asked_for_are_given(baseline):
    model, rows = build_model(baseline.config), baseline.rows
    assert isinstance(model, DecoderOnly)
    fields = {"positions": rows.positions, "segment_ids": rows.segment_ids}
    B, L = rows.tokens.shape
    tokens, fields = jnp.asarray(rows.tokens), jax.tree.map(jnp.asarray, fields)
    cache = empty_cache(baseline.config, B, L)
    every, _ = extend(model, baseline.params, tokens, cache, **fields)
    last, _ = extend(model, baseline.params, tokens, cache, **fields, num_logits=2)
    assert last.shape[:2] == (B, 2)
    np.testing.assert_allclose(last, every[:, -2:], atol=1e-6)


def assert_equal(left: Any, right: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_a_cache_is_kept_in_the_compute_dtype_with_room_for_the_memory():
    config = tiny_model(architecture="encoder_decoder", compute_dtype="bfloat16")
    cache = empty_cache(config, 3, 7, memory_slots=5)
    assert isinstance(cache.layers, BlockCache) and cache.layers.memory is not None
    assert cache.memory_segments_BM is not None
    shapes = {leaf.shape for leaf in cache.layers.own} | {
        leaf.shape for leaf in cache.layers.memory
    }
    assert shapes == {(2, 3, 2, 7, 8), (2, 3, 2, 5, 8)}
    assert {leaf.dtype for leaf in jax.tree.leaves(cache.layers)} == {jnp.dtype("bfloat16")}
    without_memory = empty_cache(config, 3, 7).layers
    assert isinstance(without_memory, BlockCache) and without_memory.memory is None


@pytest.mark.parametrize("stacked", [True, False])
def test_a_grown_cache_holds_what_it_held_and_is_empty_beyond(stacked):
    config = tiny_model(architecture="encoder_decoder")
    cache = empty_cache(config, 3, 7, memory_slots=5, stacked=stacked)
    cache = jax.tree.map(lambda x: x + 1, cache)
    grown = grow_cache(cache, 9)
    fresh = empty_cache(config, 3, 9, memory_slots=5, stacked=stacked)
    for old, new, empty in zip(*map(jax.tree.leaves, (cache, grown, fresh)), strict=True):
        assert new.shape == empty.shape
        held = np.zeros(new.shape, bool)
        held[tuple(map(slice, old.shape))] = True
        np.testing.assert_array_equal(np.asarray(new), np.where(held, 1, 0))
