"""Token ids to vectors, and vectors back to logits."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from model.constrain import Constrain
from model.linear import project
from model.parameters import fan_in_normal, parameter


class TokenEmbedding(nn.Module):
    """A table of one row per token; `attend` reuses it as the output head when tied.

    Rows start from a normal of standard deviation `1/sqrt(emb_dim)`, so that with tied weights
    the first logits have variance one.
    """

    vocab_size: int
    emb_dim: int
    dtype: jnp.dtype
    constrain: Constrain

    def setup(self):
        self.embedding = parameter(
            self,
            "embedding",
            fan_in_normal(self.emb_dim),
            (self.vocab_size, self.emb_dim),
            ("vocab", "embed"),
        )

    def __call__(self, tokens_BL: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Looks tokens up. Out-of-range ids must be refused on the host: a gather clamps them."""
        # Gathered over fsdp before the look-up: afterwards the rows are cut along that axis.
        table_VD = self.constrain(self.embedding.astype(self.dtype), "vocab", "activation_embed")
        x_BLD = jnp.take(table_VD, tokens_BL, axis=0)
        return self.constrain(x_BLD, "batch", "length", "activation_embed")

    def attend(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """Logits: the product with every token's row."""
        return project(x_BLD, self.embedding.astype(self.dtype).T)
