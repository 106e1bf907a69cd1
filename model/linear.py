"""Matrix products of activations with a kernel: the one place where weights meet activations."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from model.parameters import fan_in_normal, parameter


def project(x: Float[Array, "*rows inputs"], kernel: Float[Array, "inputs outputs"]) -> jax.Array:
    """`x @ kernel` with the leading axes flattened into one.

    XLA's CPU backend takes a slow path for a product whose weight gradient contracts two axes;
    with rows flattened the gradient contracts one.
    """
    rows = x.shape[:-1]
    y = jnp.reshape(x, (math.prod(rows), x.shape[-1])) @ kernel
    return jnp.reshape(y, (*rows, kernel.shape[-1]))


class Linear(nn.Module):
    """A projection without bias; input and output may be several axes (heads by head_dim).

    Attributes:
      in_shape, out_shape: sizes of the contracted and of the produced axes.
      logical_axes: a name for each axis of the kernel, `in_shape + out_shape`.
      dtype: compute dtype; the kernel is kept in fp32 and cast at use.
      init_scale: factor on the fan-in standard deviation.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    logical_axes: tuple[str, ...]
    dtype: jnp.dtype
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs, outputs = math.prod(self.in_shape), math.prod(self.out_shape)
        kernel = parameter(
            self,
            "kernel",
            fan_in_normal(inputs, self.init_scale),
            (*self.in_shape, *self.out_shape),
            self.logical_axes,
        )
        rows = x.shape[: x.ndim - len(self.in_shape)]
        y = project(
            jnp.reshape(x, (*rows, inputs)),
            jnp.reshape(kernel.astype(self.dtype), (inputs, outputs)),
        )
        return jnp.reshape(y, (*rows, *self.out_shape))
