"""Norms. Statistics are fp32 whatever the compute dtype: a bf16 mean of squares loses digits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from configs.model_config import LayerNormConfig, NormConfig, RMSNormConfig
from model.linear import add_bias
from model.parameters import parameter, zeros


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + ε) · (scale + offset) over the last axis."""

    config: RMSNormConfig
    dtype: jnp.dtype
    logical_axis: str = "norm"

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        offset = self.config.scale_offset
        ones = nn.initializers.constant(1.0 - offset)
        scale_D = parameter(self, "scale", ones, (x.shape[-1],), (self.logical_axis,))
        x = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(mean_square + self.config.epsilon)
        return _scaled(x, scale_D + offset if offset else scale_D).astype(self.dtype)


class LayerNorm(nn.Module):
    """(x − mean) / sqrt(variance + ε) · scale + bias over the last axis."""

    config: LayerNormConfig
    dtype: jnp.dtype
    logical_axis: str = "norm"

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        shape, axes = (x.shape[-1],), (self.logical_axis,)
        scale_D = parameter(self, "scale", nn.initializers.ones, shape, axes)
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        x = _scaled(x * jax.lax.rsqrt(variance + self.config.epsilon), scale_D)
        if self.config.use_bias:
            x = add_bias(x, parameter(self, "bias", zeros, shape, axes))
        return x.astype(self.dtype)


NORMS = {RMSNormConfig: RMSNorm, LayerNormConfig: LayerNorm}


def make_norm(
    config: NormConfig, dtype: jnp.dtype, name: str | None = None, logical_axis: str = "norm"
) -> nn.Module:
    """The module for a norm's sub-config; without a name, the one of the attribute it is set to."""
    return NORMS[type(config)](config=config, dtype=dtype, logical_axis=logical_axis, name=name)


def _scaled(x: jax.Array, scale_D: jax.Array) -> jax.Array:
    return x * jnp.reshape(scale_D, (1,) * (x.ndim - 1) + scale_D.shape)
