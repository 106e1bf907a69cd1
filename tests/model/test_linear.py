"""Projections: two of the same shape by one product are the two by themselves."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.schema import MeshConfig
from model.constrain import UNCONSTRAINED, Constrain
from model.linear import Linear
from train.mesh import make_mesh

D, K, C = 16, 4, 8


def mesh_constrain() -> Constrain:
    config = MeshConfig(fsdp=2, tensor=2, data=2)
    return Constrain(make_mesh(config), config.rules)


@pytest.mark.parametrize("biases", [(), ("kv_heads", "head_dim")], ids=["plain", "with biases"])
@pytest.mark.parametrize("constrain", [lambda: UNCONSTRAINED, mesh_constrain], ids=["one", "mesh"])
def test_two_by_one_product_equal_the_two_by_themselves(biases, constrain):
    axes = ("embed", "kv_heads", "head_dim")
    linear: Any = Linear((D,), (K, C), axes, jnp.dtype("float32"), 0.3, constrain(), biases)
    rng = np.random.default_rng(5)
    x_BLD, reading = rng.normal(size=(8, 6, D)), rng.normal(size=(2, 8, 6, K, C))
    shapes = {"kernel": (D, K, C)} | ({"bias": (K, C)} if biases else {})
    first, second = (
        {"params": {name: jnp.asarray(rng.normal(size=s)) for name, s in shapes.items()}}
        for _ in range(2)
    )

    def apart(first, second, x):
        return jnp.stack([linear.apply(first, x), linear.apply(second, x)])

    def together(first, second, x):
        return jnp.stack(linear.bind(first).and_alike(linear.bind(second), x))

    outputs, gradients = [], []
    for function in (apart, together):
        outputs.append(jax.jit(function)(first, second, x_BLD))
        gradient = jax.grad(lambda *a, f=function: jnp.sum(f(*a) * reading), (0, 1, 2))
        gradients.append(jax.jit(gradient)(first, second, x_BLD))
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *gradients)
    assert not np.allclose(outputs[0][0], outputs[0][1])


def test_parameters_are_drawn_alike_either_way():
    class Two(nn.Module):
        together: bool

        def setup(self):
            shape = ((D,), (K, C), ("embed", "kv_heads", "head_dim"), jnp.dtype("float32"), 0.3)
            self.key, self.value = (Linear(*shape, UNCONSTRAINED) for _ in range(2))

        def __call__(self, x):
            return (
                self.key.and_alike(self.value, x) if self.together else (self.key(x), self.value(x))
            )

    x_BLD = jnp.ones((2, 3, D))
    drawn = [Two(together).init(jax.random.key(0), x_BLD) for together in (True, False)]
    jax.tree.map(np.testing.assert_array_equal, *drawn)
    assert set(drawn[0]["params"]) == {"key", "value"}
