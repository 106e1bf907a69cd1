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

    def setup(self) -> None:
        shape = (*self.in_shape, *self.out_shape)
        self.kernel = parameter(self, "kernel", normal(self.stddev), shape, self.logical_axes)
        if self.bias_axes:
            self.bias = parameter(self, "bias", zeros, self.out_shape, self.bias_axes)

    def __call__(self, x: jax.Array) -> jax.Array:
        inputs, outputs = math.prod(self.in_shape), math.prod(self.out_shape)
        kernel = self.constrain.gathered(self.kernel.astype(self.dtype), *self.logical_axes)
        rows = x.shape[: x.ndim - len(self.in_shape)]
        y = project(
            jnp.reshape(x, (*rows, inputs)),
            jnp.reshape(kernel, (inputs, outputs)),
            self.constrain,
        )
        return self._with_bias(jnp.reshape(y, (*rows, *self.out_shape)))

    def and_alike(self, other: "Linear", x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`self(x), other(x)` by one product, for projections of equal shapes and axes: where
        kernels are cut, both are gathered at once."""
        count, axes = len(self.in_shape), self.logical_axes
        both = [kernel.astype(self.dtype) for kernel in (self.kernel, other.kernel)]
        kernel = self.constrain.gathered(
            jnp.stack(both, axis=count), *axes[:count], None, *axes[count:]
        )
        y = jnp.tensordot(x, kernel, count)
        own, others = (jax.lax.index_in_dim(y, n, x.ndim - count, keepdims=False) for n in (0, 1))
        return self._with_bias(own), other._with_bias(others)

    def _with_bias(self, y: jax.Array) -> jax.Array:
        return add_bias(y, self.bias) if self.bias_axes else y
