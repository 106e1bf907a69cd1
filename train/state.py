"""What training carries from step to step."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs.schema import RunConfig
from model.build import (
    abstract_params,
    build_model,
    init_params,
    param_shardings,
    rate_multipliers,
    step_multipliers,
)
from train.guard import new_guard
from train.optimizers import make_optimizer


class TrainState(NamedTuple):
    """Step number (int32 scalar), fp32 parameters (nested dict), optimizer state, and what the
    guard against spikes remembers (() where none is asked for); no keys."""

    step: Any
    params: Any
    opt_state: Any
    guard: Any = ()


def abstract_state(config: RunConfig, mesh: Mesh) -> TrainState:
    """Shape, dtype and sharding of every leaf, without computing any.

    Optimizer moments are cut like their parameters, along the axes that they have in common (of
    Adafactor's rows and columns the others have size 1); scalars and the guard are replicated.
    """
    params = abstract_params(config.model)
    shardings = param_shardings(config.model, mesh, config.mesh.rules)
    params = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        params,
        shardings,
    )
    optimizer = run_optimizer(config)
    replicated = NamedSharding(mesh, PartitionSpec())

    def like_param(leaf: Any, param: Any) -> Any:
        if isinstance(leaf, optax.MaskedNode):  # another optimizer's parameter
            return leaf
        sharding = _of_common_axes(leaf.shape, param.shape, param.sharding)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    def whole(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated)

    opt_state = optax.tree_map_params(
        optimizer,
        like_param,
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=whole,
        is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
    )
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated)
    guard = jax.tree.map(whole, jax.eval_shape(partial(new_guard, config.guard)))
    return TrainState(step, params, opt_state, guard)


def _of_common_axes(
    shape: tuple[int, ...], param_shape: tuple[int, ...], sharding: NamedSharding
) -> NamedSharding:
    """A parameter's sharding for a moment of the same rank, where averaged axes have size 1."""
    assert len(shape) == len(param_shape)
    axes = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    common = zip(axes, shape, param_shape, strict=True)
    spec = PartitionSpec(*(cut if own == whole else None for cut, own, whole in common))
    return NamedSharding(sharding.mesh, spec)


def init_state(config: RunConfig, mesh: Mesh) -> TrainState:
    """The state before step 0, computed under jit straight into its shardings.

    The same numbers on any mesh: they depend on `training.seed` alone.
    """
    model = build_model(config.model)
    optimizer = run_optimizer(config)

    def init(key: jax.Array) -> TrainState:
        params = init_params(model, key)
        step, guard = jnp.zeros((), jnp.int32), new_guard(config.guard)
        return TrainState(step, params, optimizer.init(params), guard)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    return jax.jit(init, out_shardings=shardings)(jax.random.key(config.training.seed))


def run_optimizer(config: RunConfig) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a run, with the factors that its model asks for."""
    return make_optimizer(
        config.optimizer,
        config.training.num_steps,
        rate_multipliers(config.model),
        step_multipliers(config.model),
    )
