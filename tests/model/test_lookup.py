"""A table that is cut over a mesh gives the rows, and takes the gradients, of a whole one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.schema import MeshConfig
from configs.sharding import DEFAULT_RULES
from model.constrain import Constrain
from model.lookup import look_up
from train.mesh import make_mesh

V, D, B, L = 64, 16, 8, 4
MESHES = {
    "width cut": MeshConfig(fsdp=8),
    "width cut, copies along data": MeshConfig(data=2, fsdp=4),
    "width and vocabulary cut": MeshConfig(data=2, fsdp=2, tensor=2),
    "width cut by fsdp and sequence": MeshConfig(fsdp=4, sequence=2),
}


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("mesh", MESHES)
def test_rows_and_gradients_equal_those_of_a_whole_table(mesh, platform, monkeypatch):
    monkeypatch.setattr(Constrain, "platform", platform)  # tpu: a few tokens' rows at a time
    rng = np.random.default_rng(0)
    table_VD = jnp.asarray(rng.standard_normal((V, D)), jnp.float32)
    reading_BLD = jnp.asarray(rng.standard_normal((B, L, D)), jnp.float32)
    tokens_BL = jnp.asarray(rng.integers(0, V, (B, L)), jnp.int32).at[:, 0].set(V - 1)
    constrain = Constrain(make_mesh(MESHES[mesh]), DEFAULT_RULES)

    @jax.jit
    def rows_and_gradient(table_VD):
        def read(table_VD):
            x_BLD = look_up(table_VD, tokens_BL, constrain)
            return jnp.sum(x_BLD * reading_BLD), x_BLD

        gradient_VD, x_BLD = jax.grad(read, has_aux=True)(table_VD)
        return x_BLD, gradient_VD

    if platform == "tpu":
        assert "scan" in str(jax.make_jaxpr(rows_and_gradient)(table_VD))
    x_BLD, gradient_VD = rows_and_gradient(table_VD)
    expected_VD = np.zeros((V, D), np.float32)
    np.add.at(expected_VD, np.asarray(tokens_BL), np.asarray(reading_BLD))
    np.testing.assert_array_equal(x_BLD, table_VD[tokens_BL])
    np.testing.assert_allclose(gradient_VD, expected_VD, rtol=1e-5, atol=1e-6)


def test_gradients_of_half_precision_tables_are_added_in_full():
    constrain = Constrain(make_mesh(MeshConfig(fsdp=8)), DEFAULT_RULES)
    table_VD, tokens_BL = jnp.zeros((V, D), jnp.bfloat16), jnp.zeros((B, L), jnp.int32)
    reading_BLD = jnp.full((B, L, D), 1.0 / 256, jnp.bfloat16).at[0, 0].set(1.0)

    def read(table_VD):
        return jnp.sum(look_up(table_VD, tokens_BL, constrain).astype(jnp.float32) * reading_BLD)

    # One by one in bf16 every small summand would be lost beside the first.
    expected = 1.0 + (B * L - 1) / 256
    gradient_VD = jax.jit(jax.grad(read))(table_VD)
    np.testing.assert_allclose(gradient_VD[0].astype(jnp.float32), expected, rtol=2**-8)
