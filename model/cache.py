"""What generation keeps of the tokens seen so far."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from configs.model_config import ModelConfig
from model.attention import LayerCache
from model.block import BlockCache
from model.stack import LayerCaches


class Cache(NamedTuple):
    """Keys and values of a decoder's layers; a plain pytree.

    layers: keys and values [N, B, K, S, C], of the memory too where there is one; or, where layers
    are laid out, one [B, K, S, C] for each. segments_BS: 0 where a slot holds nothing. length:
    slots written so far, the same for every row. memory_segments_BM: segments of the encoder's
    places; None without an encoder.
    """

    layers: BlockCache | LayerCaches
    segments_BS: Int[Array, "B S"]
    length: Int[Array, ""]
    memory_segments_BM: Int[Array, "B M"] | None = None


def empty_cache(
    config: ModelConfig,
    batch_size: int,
    num_slots: int,
    *,
    memory_slots: int = 0,
    stacked: bool = True,
) -> Cache:
    """A cache with room for `num_slots` tokens a row, in the compute dtype.

    Args:
      memory_slots: length of the encoder's rows; 0 without an encoder.
      stacked: whether it is for a stacked model.
    """

    def layer(leading: tuple[int, ...]) -> BlockCache:
        own = _layer_cache(config, (*leading, batch_size), num_slots)
        has_memory = memory_slots > 0
        return BlockCache(
            own, _layer_cache(config, (*leading, batch_size), memory_slots) if has_memory else None
        )

    N = config.num_layers
    return Cache(
        layer((N,)) if stacked else tuple(layer(()) for _ in range(N)),
        jnp.zeros((batch_size, num_slots), jnp.int32),
        jnp.zeros((), jnp.int32),
        jnp.zeros((batch_size, memory_slots), jnp.int32) if memory_slots else None,
    )


def grow_cache(cache: Cache, num_slots: int) -> Cache:
    """The cache with room for `num_slots` tokens a row, at least as many as it has."""
    more = num_slots - cache.segments_BS.shape[1]
    assert more >= 0, "a cache does not shrink"

    def grow(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, more), (0, 0)])

    def grow_layer(layer: BlockCache) -> BlockCache:
        return layer._replace(own=LayerCache(*map(grow, layer.own)))

    layers = cache.layers
    return cache._replace(
        layers=grow_layer(layers)
        if isinstance(layers, BlockCache)
        else tuple(map(grow_layer, layers)),
        segments_BS=jnp.pad(cache.segments_BS, [(0, 0), (0, more)]),
    )


def _layer_cache(config: ModelConfig, leading: tuple[int, ...], num_slots: int) -> LayerCache:
    c = config.attention
    shape = (*leading, c.num_kv_heads, num_slots, c.head_dim)
    dtype = jnp.dtype(config.compute_dtype)
    # Two buffers, not one twice: the cache is donated, and a buffer can be given away only once.
    return LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
