"""Multi-head self-attention with grouped keys and values, and its key/value cache."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from configs.model_config import AttentionConfig
from model.constrain import Constrain
from model.kernels import causal_attention, dot_product_attention
from model.linear import Linear
from model.positions import Rotation, rotate


class LayerCache(NamedTuple):
    """Keys and values of the S slots a layer has room for, in compute dtype."""

    key_BSKC: Float[Array, "B S K C"]
    value_BSKC: Float[Array, "B S K C"]


class Attention(nn.Module):
    """Projects to queries, keys and values, turns the first two, attends, projects back.

    With a cache, keys and values of the L new tokens are written at slot `write_slot` on, and
    queries attend over all S slots (the mask says which hold something).
    """

    config: AttentionConfig
    dtype: jnp.dtype
    constrain: Constrain
    out_init_scale: float

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        angles: Rotation,
        mask_BLM: Bool[Array, "B L M"],
        cache: LayerCache | None = None,
        write_slot: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B L D"], LayerCache | None]:
        c, D = self.config, x_BLD.shape[-1]
        H, K, C = c.num_heads, c.num_kv_heads, c.head_dim
        query = Linear((D,), (H, C), ("embed", "heads", "head_dim"), self.dtype, name="query")
        key = Linear((D,), (K, C), ("embed", "kv_heads", "head_dim"), self.dtype, name="key")
        value = Linear((D,), (K, C), ("embed", "kv_heads", "head_dim"), self.dtype, name="value")
        q_BLHC = self.constrain(rotate(query(x_BLD), angles), "batch", "length", "heads", None)
        k_BLKC = self.constrain(rotate(key(x_BLD), angles), "batch", "length", "kv_heads", None)
        v_BLKC = self.constrain(value(x_BLD), "batch", "length", "kv_heads", None)
        if cache is None:
            out_BLHC = causal_attention(q_BLHC, k_BLKC, v_BLKC, mask_BLM, c.causal_blocks)
        else:
            assert write_slot is not None
            k_BMKC = jax.lax.dynamic_update_slice_in_dim(cache.key_BSKC, k_BLKC, write_slot, 1)
            v_BMKC = jax.lax.dynamic_update_slice_in_dim(cache.value_BSKC, v_BLKC, write_slot, 1)
            cache = LayerCache(k_BMKC, v_BMKC)
            out_BLHC = dot_product_attention(q_BLHC, k_BMKC, v_BMKC, mask_BLM)
        out_BLHC = self.constrain(out_BLHC, "batch", "length", "heads", None)
        out = Linear(
            (H, C),
            (D,),
            ("heads", "head_dim", "embed"),
            self.dtype,
            self.out_init_scale,
            name="out",
        )
        return out(out_BLHC), cache
