"""An encoder-only transformer: every place sees the whole document, before and after it."""

import flax.linen as nn
from jaxtyping import Array, Float, Int

from configs.model_config import ModelConfig
from model.constrain import UNCONSTRAINED, Constrain
from model.embeddings import InputEmbedding, TokenEmbedding
from model.head import Head
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
        self,
        tokens_BL: Int[Array, "B L"],
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        token_types: Int[Array, "B L"] | None = None,
    ) -> tuple[Float[Array, "B L V"], Losses]:
        """Logits of the token that belongs at every place of a packed row.

        Args:
          tokens_BL: ids in [0, vocab_size), some of them masked.
          positions: place within the document, from 0.
          segment_ids: which document of the row; 0 is padding. Attention stays inside one.
          token_types: BERT's sentence A or B; None for 0 everywhere.

        Returns:
          fp32 logits (activations [B, L, D] where the config has no head), and the mixtures'
          auxiliary losses.
        """
        x_BLD = self.token_embedding(tokens_BL)
        x_BLD = self.encoder_embedding(x_BLD, positions, token_types)
        out = self.encoder(x_BLD, positions, row_places(segment_ids))
        return self.head(out.x_BLD, self.token_embedding.table_VD), out.losses
