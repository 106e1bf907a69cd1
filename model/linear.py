"""Matrix products of activations with a kernel: the one place where weights meet activations."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from model.constrain import UNCONSTRAINED, Constrain
from model.parameters import normal, parameter, zeros


def project(
    x: Float[Array, "*rows inputs"],
    kernel: Float[Array, "inputs outputs"],
    constrain: Constrain = UNCONSTRAINED,
) -> jax.Array:
    """`x @ kernel`, on one device with the leading axes flattened into one.

    XLA's CPU backend takes a slow path for a product whose weight gradient contracts two axes;
    with rows flattened the gradient contracts one. Axes that are cut both, rows and their length,
    do not flatten without moving data.
    """
    rows = x.shape[:-1]
    if constrain.cuts_length:
        return jnp.tensordot(x, kernel, axes=1)
    y = jnp.reshape(x, (math.prod(rows), x.shape[-1])) @ kernel
    return jnp.reshape(y, (*rows, kernel.shape[-1]))


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """`y + bias` over the last axes, in y's dtype."""
    rows = (1,) * (y.ndim - bias.ndim)
    return y + jnp.reshape(bias, (*rows, *bias.shape)).astype(y.dtype)


class Linear(nn.Module):
    """A projection; input and output may be several axes (heads by head_dim).

    Attributes:
      in_shape, out_shape: sizes of the contracted and of the produced axes.
      logical_axes: a name for each axis of the kernel, `in_shape + out_shape`.
      dtype: compute dtype; the kernel is kept in fp32 and cast at use.
      stddev: of the fresh kernel.
      constrain: how activations are cut over the mesh, and kernels at use.
      bias_axes: a name for each axis of the bias, `out_shape`; () for no bias.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    logical_axes: tuple[str, ...]
    dtype: jnp.dtype
    stddev: float
    constrain: Constrain
    bias_axes: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs, outputs = math.prod(self.in_shape), math.prod(self.out_shape)
        kernel = parameter(
            self,
            "kernel",
            normal(self.stddev),
            (*self.in_shape, *self.out_shape),
            self.logical_axes,
        )
        kernel = self.constrain.gathered(kernel.astype(self.dtype), *self.logical_axes)
        rows = x.shape[: x.ndim - len(self.in_shape)]
        y = project(
            jnp.reshape(x, (*rows, inputs)),
            jnp.reshape(kernel, (inputs, outputs)),
            self.constrain,
        )
        y = jnp.reshape(y, (*rows, *self.out_shape))
        if self.bias_axes:
            y = add_bias(y, parameter(self, "bias", zeros, self.out_shape, self.bias_axes))
        return y
