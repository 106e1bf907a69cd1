"""What generation keeps of the tokens seen so far."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from configs.model_config import ModelConfig
from model.attention import LayerCache
from model.block import BlockCache


class Cache(NamedTuple):
    """Keys and values of a decoder's layers; a plain pytree.

    layers: keys and values [N, B, S, K, C], of the memory too where there is one. segments_BS: 0
    where a slot holds nothing. length: slots written so far, the same for every row.
    memory_segments_BM: segments of the encoder's places; None without an encoder.
    """

    layers: BlockCache
    segments_BS: Int[Array, "B S"]
    length: Int[Array, ""]
    memory_segments_BM: Int[Array, "B M"] | None = None


def empty_cache(
    config: ModelConfig, batch_size: int, num_slots: int, *, memory_slots: int = 0
) -> Cache:
    """A cache with room for `num_slots` tokens a row, in the compute dtype.

    Args:
      memory_slots: length of the encoder's rows; 0 without an encoder.
    """
    own = _layer_cache(config, batch_size, num_slots)
    memory = _layer_cache(config, batch_size, memory_slots) if memory_slots else None
    return Cache(
        BlockCache(own, memory),
        jnp.zeros((batch_size, num_slots), jnp.int32),
        jnp.zeros((), jnp.int32),
        jnp.zeros((batch_size, memory_slots), jnp.int32) if memory_slots else None,
    )


def _layer_cache(config: ModelConfig, batch_size: int, num_slots: int) -> LayerCache:
    c = config.attention
    shape = (config.num_layers, batch_size, num_slots, c.num_kv_heads, c.head_dim)
    dtype = jnp.dtype(config.compute_dtype)
    # Two buffers, not one twice: the cache is donated, and a buffer can be given away only once.
    return LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
