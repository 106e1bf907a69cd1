"""From the last activations to logits: over the vocabulary, or over classes (heads.py)."""

from typing import NamedTuple

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


class Readout(NamedTuple):
    """Everything between the last layer and logits over the vocabulary, for whoever computes them
    a part at a time: softcapped(features @ kernel + bias).

    features_BLD, kernel_DV: compute dtype. bias_V: fp32; None for none. softcap: 0 for none.
    """

    features_BLD: Float[Array, "B L D"]
    kernel_DV: Float[Array, "D V"]
    bias_V: Float[Array, " V"] | None
    softcap: float


class Head(nn.Module):
    """Logits in fp32: a product with a kernel of its own, or with the token table if tied."""

    config: ModelConfig
    constrain: Constrain

    def setup(self):
        c, dtype, init = self.config, jnp.dtype(self.config.compute_dtype), Init(self.config)
        D, V = c.emb_dim, c.vocab_size
        if isinstance(c.head, ClassHeadConfig):
            self.classes = ClassHead(c, c.head, self.constrain)
        if not isinstance(c.head, LinearHeadConfig | MaskedLMHeadConfig):
            return
        if isinstance(c.head, MaskedLMHeadConfig):
            bias_axes = ("norm",) if c.head.use_dense_bias else ()
            axes, stddev = ("embed", "norm"), init.stddev("hidden", D)
            self.dense = Linear((D,), (D,), axes, dtype, stddev, self.constrain, bias_axes)
            self.norm = make_norm(c.norm, dtype)
        if not c.tie_embeddings:
            start = normal(init.stddev("head", D))
            self.kernel = parameter(self, "kernel", start, (D, V), ("embed", "vocab"))
        if c.head.use_bias:
            self.bias = parameter(self, "bias", zeros, (V,), ("vocab",))

    def __call__(
        self, x_BLD: Float[Array, "B L D"], table_VD: Float[Array, "V D"]
    ) -> Float[Array, "B L out"]:
        """Logits over the vocabulary or the classes; without a head the activations, in fp32."""
        if isinstance(self.config.head, NoHeadConfig):
            return x_BLD.astype(jnp.float32)
        if isinstance(self.config.head, ClassHeadConfig):
            return self.classes(x_BLD)
        features_BLD, kernel_DV, bias_V, softcap = self.readout(x_BLD, table_VD)
        logits_BLV = project(features_BLD, kernel_DV, self.constrain)
        if bias_V is not None:
            logits_BLV = add_bias(logits_BLV, bias_V)
        logits_BLV = self.constrain(logits_BLV, "batch", "length", "vocab").astype(jnp.float32)
        return softcap * jnp.tanh(logits_BLV / softcap) if softcap else logits_BLV

    def readout(self, x_BLD: Float[Array, "B L D"], table_VD: Float[Array, "V D"]) -> Readout:
        """What the logits over the vocabulary are made of."""
        c, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        assert isinstance(c.head, LinearHeadConfig | MaskedLMHeadConfig)
        if isinstance(c.head, MaskedLMHeadConfig):
            x_BLD = self.norm(gelu(c.head.gelu)(self.dense(x_BLD)))
        if (multiplier := logit_multiplier(c)) != 1.0:
            x_BLD = x_BLD * jnp.asarray(multiplier, dtype)
        return Readout(
            self.constrain(x_BLD, "batch", "length", "activation_embed"),
            table_VD.T if c.tie_embeddings else self.kernel.astype(dtype),
            self.bias if c.head.use_bias else None,
            c.head.logit_softcap if isinstance(c.head, LinearHeadConfig) else 0.0,
        )
