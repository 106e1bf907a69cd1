"""Declaring a parameter: shape, a name per axis and initialiser together, in one call."""

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


def normal(stddev: float) -> Initializer:
    """Normal with mean zero."""
    return nn.initializers.normal(stddev=stddev)


zeros = nn.initializers.zeros
