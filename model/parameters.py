"""Declaring a parameter: shape, a name per axis and initialiser together, in one call."""

import math
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = nn.initializers.Initializer


def parameter(
    module: nn.Module,
    name: str,
    initializer: Initializer,
    shape: tuple[int, ...],
    logical_axes: tuple[str, ...],
) -> jax.Array:
    """An fp32 parameter of `module` whose axes are named for the sharding rules."""
    boxed = nn.with_logical_partitioning(initializer, logical_axes)
    return cast(jax.Array, module.param(name, boxed, shape, jnp.float32))


def fan_in_normal(fan_in: int, scale: float = 1.0) -> Initializer:
    """Normal with standard deviation `scale / sqrt(fan_in)`: keeps the variance of a unit input."""
    return nn.initializers.normal(stddev=scale / math.sqrt(fan_in))
