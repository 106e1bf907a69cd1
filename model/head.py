"""From the last activations to logits: over the vocabulary, or over classes (heads.py)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from configs.model_config import (
    ClassHeadConfig,
    LinearHeadConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    NoHeadConfig,
)
from model.constrain import Constrain
from model.heads import ClassHead
from model.initializers import Init, logit_multiplier
from model.linear import Linear, add_bias, project
from model.mlp import gelu
from model.norms import make_norm
from model.parameters import normal, parameter, zeros


class Head(nn.Module):
    """Logits in fp32: a product with a kernel of its own, or with the token table if tied."""

    config: ModelConfig
    constrain: Constrain

    @nn.compact
    def __call__(
        self, x_BLD: Float[Array, "B L D"], table_VD: Float[Array, "V D"]
    ) -> Float[Array, "B L out"]:
        c, dtype, init = self.config, jnp.dtype(self.config.compute_dtype), Init(self.config)
        D, V = c.emb_dim, c.vocab_size
        if isinstance(c.head, NoHeadConfig):
            return x_BLD.astype(jnp.float32)
        if isinstance(c.head, ClassHeadConfig):
            return ClassHead(c, c.head, self.constrain, name="classes")(x_BLD)
        if isinstance(c.head, MaskedLMHeadConfig):
            bias_axes = ("norm",) if c.head.use_dense_bias else ()
            dense = Linear(
                (D,),
                (D,),
                ("embed", "norm"),
                dtype,
                init.stddev("hidden", D),
                bias_axes,
                name="dense",
            )
            x_BLD = make_norm(c.norm, dtype, "norm")(gelu(c.head.gelu)(dense(x_BLD)))
        if (multiplier := logit_multiplier(c)) != 1.0:
            x_BLD = x_BLD * jnp.asarray(multiplier, dtype)
        if c.tie_embeddings:
            kernel_DV = table_VD.T
        else:
            start = normal(init.stddev("head", D))
            kernel_DV = parameter(self, "kernel", start, (D, V), ("embed", "vocab")).astype(dtype)
        logits_BLV = project(x_BLD, kernel_DV)
        if c.head.use_bias:
            logits_BLV = add_bias(logits_BLV, parameter(self, "bias", zeros, (V,), ("vocab",)))
        logits_BLV = self.constrain(logits_BLV, "batch", "length", "vocab").astype(jnp.float32)
        if isinstance(c.head, LinearHeadConfig) and c.head.logit_softcap:
            logits_BLV = c.head.logit_softcap * jnp.tanh(logits_BLV / c.head.logit_softcap)
        return logits_BLV
