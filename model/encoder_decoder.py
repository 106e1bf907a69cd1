"""An encoder-decoder transformer: an encoder reads a text, a decoder writes another one."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from configs.model_config import ModelConfig
from model.cache import Cache
from model.constrain import UNCONSTRAINED, Constrain
from model.decoder_only import cached_places, last_places
from model.embeddings import InputEmbedding, TokenEmbedding
from model.head import Head, Readout
from model.masks import row_places
from model.mlp import Losses
from model.stack import Memory, Stack, StackOutput, StackSpec


class EncoderDecoder(nn.Module):
    """Encoder: embedding → N × (self-attention both ways, feed-forward) → norm = memory.
    Decoder: embedding → N × (causal self-attention, cross-attention to the memory, feed-forward) →
    norm → head. Both look tokens up in one table.

    A decoder's segment reads the memory of the encoder's segment of the same number.

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
        encoder = StackSpec(num_layers=c.num_encoder_layers, causal=False)
        decoder = StackSpec(num_layers=c.num_layers, causal=True, reads_memory=True)
        self.token_embedding = TokenEmbedding(c, self.constrain)
        self.encoder_embedding = InputEmbedding(c, self.constrain)
        self.encoder = Stack(c, self.constrain, encoder, self.stacked)
        self.decoder_embedding = InputEmbedding(c, self.constrain)
        self.decoder = Stack(c, self.constrain, decoder, self.stacked)
        self.head = Head(c, self.constrain)

    def __call__(
        self, tokens_BL: Int[Array, "B L"], **fields: jax.Array
    ) -> tuple[Float[Array, "B L out"], Losses]:
        """fp32 logits of the next token at every place of the decoder's rows: the head on
        `features`."""
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
        encoder_tokens: Int[Array, "B M"],
        encoder_positions: Int[Array, "B M"],
        encoder_segment_ids: Int[Array, "B M"],
    ) -> tuple[Float[Array, "B L D"], Losses]:
        """The last layer's normed activations at every place of the decoder's rows, and auxiliary
        losses of both sides.

        Args:
          tokens_BL: the decoder's inputs: start of sequence, then the text so far; ids in
            [0, vocab_size).
          positions, segment_ids: of the decoder's places; segment 0 is padding.
          encoder_tokens, encoder_positions, encoder_segment_ids: the same of the encoder's.
        """
        encoded = self.encode(encoder_tokens, encoder_positions, encoder_segment_ids)
        x_BLD = self.decoder_embedding(self.token_embedding(tokens_BL), positions)
        memory = Memory(encoded.x_BLD, encoder_segment_ids)
        out = self.decoder(x_BLD, positions, row_places(segment_ids), memory=memory)
        losses = {name: loss + encoded.losses[name] for name, loss in out.losses.items()}
        return out.x_BLD, losses

    def encode(
        self,
        tokens_BM: Int[Array, "B M"],
        positions_BM: Int[Array, "B M"],
        segment_ids_BM: Int[Array, "B M"],
    ) -> StackOutput:
        """The encoder alone: its activations are the memory."""
        x_BMD = self.encoder_embedding(self.token_embedding(tokens_BM), positions_BM)
        return self.encoder(x_BMD, positions_BM, row_places(segment_ids_BM))

    def start(
        self,
        tokens_BL: Int[Array, "B L"],
        cache: Cache,
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        encoder_tokens: Int[Array, "B M"],
        encoder_positions: Int[Array, "B M"],
        encoder_segment_ids: Int[Array, "B M"],
        num_logits: int | None = None,
    ) -> tuple[Float[Array, "B l V"], Cache]:
        """Encodes, and reads the first L tokens: `extend` on an empty cache, which keeps the
        memory's keys and values of every layer."""
        encoded = self.encode(encoder_tokens, encoder_positions, encoder_segment_ids)
        memory = Memory(encoded.x_BLD, encoder_segment_ids)
        return self._extend(tokens_BL, cache, memory, positions, segment_ids, num_logits)

    def extend(
        self,
        tokens_BL: Int[Array, "B L"],
        cache: Cache,
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        num_logits: int | None = None,
    ) -> tuple[Float[Array, "B l V"], Cache]:
        """Logits of L more tokens after those in the cache, and the cache with them added.

        Args:
          num_logits: only those of the last l places; None: of all.
        """
        assert cache.memory_segments_BM is not None
        memory = Memory(None, cache.memory_segments_BM)
        return self._extend(tokens_BL, cache, memory, positions, segment_ids, num_logits)

    def _extend(
        self,
        tokens_BL: Int[Array, "B L"],
        cache: Cache,
        memory: Memory,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        num_logits: int | None,
    ) -> tuple[Float[Array, "B l V"], Cache]:
        places, segments_BS = cached_places(cache, segment_ids)
        x_BLD = self.decoder_embedding(self.token_embedding(tokens_BL), positions)
        out = self.decoder(
            x_BLD,
            positions,
            places,
            memory=memory,
            cache=cache.layers,
            write_slot=cache.length,
        )
        assert out.cache is not None
        logits_BlV = self.head(last_places(out.x_BLD, num_logits), self.token_embedding.table_VD)
        length = cache.length + tokens_BL.shape[1]
        return logits_BlV, Cache(out.cache, segments_BS, length, memory.segments_BM)
