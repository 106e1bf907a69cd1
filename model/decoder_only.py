"""A decoder-only transformer: tokens in, the logits of each next token out."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from configs.model_config import ModelConfig
from model.attention import LayerCache
from model.constrain import UNCONSTRAINED, Constrain
from model.embeddings import TokenEmbedding
from model.linear import Linear
from model.masks import MaskSpec, attention_mask
from model.positions import rotation
from model.stack import Stack


class Cache(NamedTuple):
    """What generation keeps of the tokens seen so far; a plain pytree.

    layers: keys and values [N, B, S, K, C]. segments_BS: 0 where a slot holds nothing.
    length: slots written so far, the same for every row.
    """

    layers: LayerCache
    segments_BS: Int[Array, "B S"]
    length: Int[Array, ""]


def empty_cache(config: ModelConfig, batch_size: int, num_slots: int) -> Cache:
    """A cache with room for `num_slots` tokens a row, in the compute dtype."""
    c = config.attention
    shape = (config.num_layers, batch_size, num_slots, c.num_kv_heads, c.head_dim)
    dtype = jnp.dtype(config.compute_dtype)
    # Two buffers, not one twice: the cache is donated, and a buffer can be given away only once.
    layers = LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    segments_BS = jnp.zeros((batch_size, num_slots), jnp.int32)
    return Cache(layers, segments_BS, jnp.zeros((), jnp.int32))


class DecoderOnly(nn.Module):
    """embedding → N × (causal self-attention, feed-forward) → norm → head.

    Attributes:
      config: widths, depth and variants.
      constrain: how activations are cut over the mesh; nothing by default.
    """

    config: ModelConfig
    constrain: Constrain = UNCONSTRAINED

    def setup(self):
        c, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        self.token_embedding = TokenEmbedding(c.vocab_size, c.emb_dim, dtype, self.constrain)
        self.decoder = Stack(c, self.constrain)
        if not c.tie_embeddings:
            self.head = Linear((c.emb_dim,), (c.vocab_size,), ("embed", "vocab"), dtype)

    def __call__(
        self,
        tokens_BL: Int[Array, "B L"],
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
    ) -> Float[Array, "B L V"]:
        """Logits of the next token at every place of a packed row.

        Args:
          tokens_BL: ids in [0, vocab_size).
          positions: place within the document, from 0.
          segment_ids: which document of the row; 0 is padding. Attention stays inside one.

        Returns:
          fp32 logits.
        """
        slots_L = jnp.arange(tokens_BL.shape[1])
        mask_BLM = attention_mask(
            MaskSpec(causal=True),
            query_slots_L=slots_L,
            key_slots_M=slots_L,
            query_segments_BL=segment_ids,
            key_segments_BM=segment_ids,
        )
        angles = rotation(self.config.position, positions, self.config.attention.head_dim)
        x_BLD, _ = self.decoder(self.token_embedding(tokens_BL), angles, mask_BLM)
        return self._logits(x_BLD)

    def extend(
        self,
        tokens_BL: Int[Array, "B L"],
        cache: Cache,
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
    ) -> tuple[Float[Array, "B L V"], Cache]:
        """Logits of L more tokens after those in the cache, and the cache with them added.

        The prompt goes in at once (L its length), then one token at a time. The caller sees to it
        that the cache has room: a write past the last slot would land on the last ones.
        """
        L, S = tokens_BL.shape[1], cache.segments_BS.shape[1]
        segments_BS = jax.lax.dynamic_update_slice_in_dim(
            cache.segments_BS, segment_ids, cache.length, axis=1
        )
        mask_BLM = attention_mask(
            MaskSpec(causal=True),
            query_slots_L=cache.length + jnp.arange(L),
            key_slots_M=jnp.arange(S),
            query_segments_BL=segment_ids,
            key_segments_BM=segments_BS,
        )
        angles = rotation(self.config.position, positions, self.config.attention.head_dim)
        x_BLD, layers = self.decoder(
            self.token_embedding(tokens_BL), angles, mask_BLM, cache.layers, cache.length
        )
        assert layers is not None
        return self._logits(x_BLD), Cache(layers, segments_BS, cache.length + L)

    def _logits(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        if self.config.tie_embeddings:
            logits_BLV = self.token_embedding.attend(x_BLD)
        else:
            logits_BLV = self.head(x_BLD)
        logits_BLV = self.constrain(logits_BLV, "batch", "length", "vocab")
        return logits_BLV.astype(jnp.float32)
