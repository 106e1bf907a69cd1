"""An encoder-only transformer: every place sees the whole document, before and after it."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from configs.model_config import ModelConfig
from model.constrain import UNCONSTRAINED, Constrain
from model.embeddings import InputEmbedding, TokenEmbedding
from model.head import Head, Readout
from model.masks import row_places
from model.mlp import Losses
from model.stack import Stack, StackSpec


class EncoderOnly(nn.Module):
    """embedding → N × (self-attention both ways, feed-forward) → norm → head.

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
        self.encoder_embedding = InputEmbedding(c, self.constrain)
        self.encoder = Stack(
            c, self.constrain, StackSpec(num_layers=c.num_layers, causal=False), self.stacked
        )
        self.head = Head(c, self.constrain)

    def __call__(
        self, tokens_BL: Int[Array, "B L"], **fields: jax.Array
    ) -> tuple[Float[Array, "B L out"], Losses]:
        """fp32 logits of the token that belongs at every place of packed rows, or of its class: the
        head on `features`, which are returned where the config has no head."""
        x_BLD, losses = self.features(tokens_BL, **fields)
        return self.head(x_BLD, self.token_embedding.table_VD), losses

    def readout(self, tokens_BL: Int[Array, "B L"], **fields: jax.Array) -> tuple[Readout, Losses]:
        """What logits over the vocabulary are made of, without making them."""
        x_BLD, losses = self.features(tokens_BL, **fields)
        return self.head.readout(x_BLD, self.token_embedding.table_VD), losses

    def features(
        self,
        tokens_BL: Int[Array, "B L"],
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        token_types: Int[Array, "B L"] | None = None,
    ) -> tuple[Float[Array, "B L D"], Losses]:
        """The last layer's normed activations at every place of a packed row, and auxiliary losses.

        Args:
          tokens_BL: ids in [0, vocab_size), some of them masked.
          positions: place within the document, from 0.
          segment_ids: which document of the row; 0 is padding. Attention stays inside one.
          token_types: BERT's sentence A or B; None for 0 everywhere.
        """
        x_BLD = self.token_embedding(tokens_BL)
        x_BLD = self.encoder_embedding(x_BLD, positions, token_types)
        out = self.encoder(x_BLD, positions, row_places(segment_ids))
        return out.x_BLD, out.losses
