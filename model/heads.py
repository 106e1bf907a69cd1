"""Heads that name classes instead of tokens: of a whole text, or of each of its tokens.

Letters: B batch, L length, D model width, G classes.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from configs.model_config import ClassHeadConfig, ModelConfig, SequenceClassificationHeadConfig
from model.constrain import Constrain
from model.initializers import Init, logit_multiplier
from model.linear import Linear


class ClassHead(nn.Module):
    """Logits of classes in fp32 at every place; the loss weights say which places answer.

    A sequence's class goes through a dense layer and tanh first, as BERT's pooler does; a token's
    is a projection alone.
    """

    config: ModelConfig
    head: ClassHeadConfig
    constrain: Constrain

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L G"]:
        c, dtype, init = self.config, jnp.dtype(self.config.compute_dtype), Init(self.config)
        D, G = c.emb_dim, self.head.num_labels
        axes = ("embed", "norm")  # so few outputs are not worth cutting
        if isinstance(self.head, SequenceClassificationHeadConfig):
            stddev = init.stddev("hidden", D)
            x_BLD = jnp.tanh(
                Linear((D,), (D,), axes, dtype, stddev, self.constrain, ("norm",), name="dense")(
                    x_BLD
                )
            )
        if (multiplier := logit_multiplier(c)) != 1.0:
            x_BLD = x_BLD * jnp.asarray(multiplier, dtype)
        stddev = init.stddev("head", D)
        out = Linear((D,), (G,), axes, dtype, stddev, self.constrain, ("norm",), name="out")
        return self.constrain(out(x_BLD), "batch", "length", None).astype(jnp.float32)
