"""Norms. Statistics are fp32 whatever the compute dtype: a bf16 mean of squares loses digits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from configs.model_config import RMSNormConfig
from model.parameters import parameter


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + ε) · scale over the last axis."""

    config: RMSNormConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale_D = parameter(self, "scale", nn.initializers.ones, (x.shape[-1],), ("norm",))
        x = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(mean_square + self.config.epsilon)
        scale = jnp.reshape(scale_D, (1,) * (x.ndim - 1) + scale_D.shape)
        return (x * scale).astype(self.dtype)


NORMS = {RMSNormConfig: RMSNorm}


def make_norm(config: RMSNormConfig, dtype: jnp.dtype, name: str) -> nn.Module:
    """The module for a norm's sub-config."""
    return NORMS[type(config)](config=config, dtype=dtype, name=name)
