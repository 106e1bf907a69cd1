"""A decoder-only transformer: tokens in, the logits of each next token out."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from configs.model_config import ModelConfig
from model.cache import Cache
from model.constrain import UNCONSTRAINED, Constrain
from model.embeddings import InputEmbedding, TokenEmbedding
from model.head import Head, Readout
from model.masks import Places, row_places
from model.mlp import Losses
from model.stack import Stack, StackSpec


class DecoderOnly(nn.Module):
    """embedding → N × (causal self-attention, feed-forward) → norm → head.

    Attributes:
      config: widths, depth and variants.
      constrain: how activations are cut over the mesh; nothing by default.
      stacked: whether layers' parameters are stacked; see `Stack`.
    """

    config: ModelConfig
    constrain: Constrain = UNCONSTRAINED
    stacked: bool = True

    def setup(self):
        c = self.config
        self.token_embedding = TokenEmbedding(c, self.constrain)
        self.decoder_embedding = InputEmbedding(c, self.constrain)
        self.decoder = Stack(
            c, self.constrain, StackSpec(num_layers=c.num_layers, causal=True), self.stacked
        )
        self.head = Head(c, self.constrain)

    def __call__(
        self, tokens_BL: Int[Array, "B L"], **fields: jax.Array
    ) -> tuple[Float[Array, "B L out"], Losses]:
        """fp32 logits of the next token at every place of packed rows: the head on `features`."""
        x_BLD, losses = self.features(tokens_BL, **fields)
        return self.head(x_BLD, self.token_embedding.table_VD), losses

    def readout(self, tokens_BL: Int[Array, "B L"], **fields: jax.Array) -> tuple[Readout, Losses]:
        """What those logits are made of, without making them."""
        x_BLD, losses = self.features(tokens_BL, **fields)
        return self.head.readout(x_BLD, self.token_embedding.table_VD), losses

    def features(
        self,
        tokens_BL: Int[Array, "B L"],
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        prefix: Int[Array, "B L"] | None = None,
        token_types: Int[Array, "B L"] | None = None,
    ) -> tuple[Float[Array, "B L D"], Losses]:
        """The last layer's normed activations at every place of a packed row, and auxiliary losses.

        Args:
          tokens_BL: ids in [0, vocab_size).
          positions: place within the document, from 0.
          segment_ids: which document of the row; 0 is padding. Attention stays inside one.
          prefix: 1 where all of a place's document may see it, 0 where only what follows may;
            None for 0 everywhere.
        """
        x_BLD = self.token_embedding(tokens_BL)
        x_BLD = self.decoder_embedding(x_BLD, positions, token_types)
        out = self.decoder(x_BLD, positions, row_places(segment_ids, prefix))
        return out.x_BLD, out.losses

    def extend(
        self,
        tokens_BL: Int[Array, "B L"],
        cache: Cache,
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        prefix: Int[Array, "B L"] | None = None,
        num_logits: int | None = None,
    ) -> tuple[Float[Array, "B l V"], Cache]:
        """Logits of L more tokens after those in the cache, and the cache with them added.

        The prompt goes in at once (L its length), then one token at a time. The caller sees to it
        that the cache has room: a write past the last slot would land on the last ones.

        Args:
          prefix: 1 where these L tokens see one another both ways, as a prefix LM's prompt does.
          num_logits: only those of the last l places; None: of all. A prompt's last ones are all
            that generation wants, and the head costs as much as several layers.
        """
        places, segments_BS = cached_places(cache, segment_ids)
        if prefix is not None:
            prefix_BS = jax.lax.dynamic_update_slice_in_dim(
                jnp.zeros_like(segments_BS), prefix, cache.length, axis=1
            )
            places = places._replace(key_prefix_BM=prefix_BS)
        x_BLD = self.decoder_embedding(self.token_embedding(tokens_BL), positions)
        out = self.decoder(x_BLD, positions, places, cache=cache.layers, write_slot=cache.length)
        assert out.cache is not None
        logits_BlV = self.head(last_places(out.x_BLD, num_logits), self.token_embedding.table_VD)
        return logits_BlV, Cache(out.cache, segments_BS, cache.length + tokens_BL.shape[1])


def last_places(x_BLD: Float[Array, "B L D"], number: int | None) -> Float[Array, "B l D"]:
    """The last `number` places of each row; None: all."""
    return x_BLD if number is None else x_BLD[:, -number:]


def cached_places(cache: Cache, segments_BL: Int[Array, "B L"]) -> tuple[Places, Int[Array, "B S"]]:
    """Where new tokens stand among a cache's slots, and the slots' segments with them written."""
    L, S = segments_BL.shape[1], cache.segments_BS.shape[1]
    segments_BS = jax.lax.dynamic_update_slice_in_dim(
        cache.segments_BS, segments_BL, cache.length, axis=1
    )
    places = Places(
        query_slots_L=cache.length + jnp.arange(L),
        key_slots_M=jnp.arange(S),
        query_segments_BL=segments_BL,
        key_segments_BM=segments_BS,
    )
    return places, segments_BS
