"""Sharding names are checked on any platform: a mistake raises, nothing is silently replicated."""

import jax
import jax.numpy as jnp
import pytest

from configs.errors import InputError
from configs.schema import MeshConfig
from configs.sharding import ShardingRules
from model.build import build_model, forward, param_shardings
from model.constrain import UNCONSTRAINED, Constrain, named_sharding
from tests.model.samples import random_params, tiny_model
from train.mesh import make_mesh

X_BLD = jnp.zeros((8, 4, 6))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.fixture(params=["with a mesh", "without a mesh"])
def constrain(request, mesh):
    return Constrain(mesh) if request.param == "with a mesh" else UNCONSTRAINED


def test_an_unknown_logical_axis_raises(constrain):
    with pytest.raises(InputError, match="got logical axis 'lenght'"):
        constrain(X_BLD, "batch", "lenght", None)


def test_a_wrong_rank_raises(constrain):
    with pytest.raises(InputError, match="got 2 logical axes"):
        constrain(X_BLD, "batch", "length")


def test_one_mesh_axis_cutting_two_dimensions_raises(constrain):
    with pytest.raises(InputError, match="already cuts 'heads'"):
        constrain(jnp.zeros((8, 4, 4)), "batch", "heads", "vocab")


def test_a_mesh_axis_that_is_not_in_the_mesh_raises(mesh):
    rules = ShardingRules(length=("stage",))
    for constrain in (Constrain(mesh, rules), Constrain(None, rules)):
        with pytest.raises(InputError, match="got mesh axis 'stage'"):
            constrain(X_BLD, "batch", "length", None)


def test_a_dimension_that_does_not_divide_raises_eagerly_and_when_traced(mesh):
    constrain, x_BLD = Constrain(mesh), jnp.zeros((6, 4, 6))
    for call in (constrain, jax.jit(constrain, static_argnums=(1, 2, 3))):
        with pytest.raises(InputError, match="got 4 shards for a dimension of 6"):
            call(x_BLD, "batch", "length", None)


def test_activations_are_cut_as_the_rules_say(mesh):
    constrain = Constrain(mesh)
    y_BLD = jax.jit(lambda x: constrain(x, "batch", "length", "mlp"))(X_BLD)
    assert y_BLD.sharding.is_equivalent_to(
        named_sharding(mesh, constrain.rules, ("batch", "length", "mlp"), X_BLD.shape), 3
    )
    assert y_BLD.addressable_shards[0].data.shape == (2, 4, 3)


def test_a_model_whose_rows_do_not_divide_over_the_mesh_raises_before_any_compile(mesh):
    config = tiny_model()
    model, params = build_model(config, Constrain(mesh)), random_params(config)

    def trace(num_rows: int):
        row = jnp.zeros((num_rows, 4), jnp.int32)
        return jax.eval_shape(lambda: forward(model, params, row, positions=row, segment_ids=row))

    assert trace(8).shape == (8, 4, config.vocab_size)
    with pytest.raises(InputError, match="mesh.rules.batch: got 4 shards for a dimension of 6"):
        trace(6)


def test_parameters_that_do_not_divide_over_the_mesh_raise(mesh):
    with pytest.raises(InputError, match="mesh.rules.vocab: got 2 shards for a dimension of 63"):
        param_shardings(tiny_model(vocab_size=63), mesh, ShardingRules())


def test_without_a_mesh_values_pass_through():
    assert UNCONSTRAINED(X_BLD, "batch", "length", "activation_embed") is X_BLD
