"""One step: accumulated gradients equal the large batch's, the state is given away."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.schema import MeshConfig, RunConfig
from data.batches import Batch
from model.build import forward_readout
from tests.model.samples import (
    QUICK_COMPILE,
    Rows,
    assert_trees_close,
    logits_of,
    random_params,
)
from tests.train.samples import mesh_of, random_batch, random_state, rate_at, tiny_run
from train import step
from train.feed import put_batch
from train.optimizers import make_optimizer
from train.step import batch_sharding, make_eval_step, make_gradients, make_train_step


@cache
def compiled_gradients(config: RunConfig):
    return jax.jit(make_gradients(config, mesh_of(config)), compiler_options=QUICK_COMPILE)


def gradients_of(config: RunConfig, batch: Batch | None = None) -> tuple[Any, Any]:
    mesh = mesh_of(config)
    batch = put_batch(batch or random_batch(config), batch_sharding(config, mesh))
    return compiled_gradients(config)(random_state(config, mesh).params, batch)


@cache
def large_batch_gradients() -> tuple[Any, Any]:
    return gradients_of(tiny_run())


@pytest.mark.parametrize(
    ("num_microbatches", "mesh"),
    [(8, MeshConfig()), (2, MeshConfig(data=2, fsdp=2))],
    ids=["a row each", "two on four devices"],
)
def test_accumulated_gradients_equal_the_large_batch(num_microbatches, mesh):
    # Rows carry different weights, one none at all, so a mean of means would differ.
    config = tiny_run(num_microbatches=num_microbatches, mesh=mesh)
    gradient, sums = gradients_of(config)
    whole_gradient, whole_sums = large_batch_gradients()
    assert_trees_close(gradient, whole_gradient, 1e-5)
    np.testing.assert_allclose(sums, whole_sums, rtol=1e-5)
    assert float(sums.weight) == random_batch(config).loss_weights.sum()


def with_toy_loss(model, params, tokens_BL, **fields):
    """The model, and a loss of its own: half the squares of the last norm's scales."""
    readout, losses = forward_readout(model, params, tokens_BL, **fields)
    scale_D = params["decoder"]["final_norm"]["scale"]
    return readout, losses | {"toy": 0.5 * jnp.sum(jnp.square(scale_D))}


@pytest.mark.parametrize("num_microbatches", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_the_models_own_losses_are_added_to_the_mean_loss_however_it_is_accumulated(
    monkeypatch, num_microbatches
):
    plain, plain_sums = large_batch_gradients()
    monkeypatch.setattr(step, "forward_readout", with_toy_loss)
    # The seed is a cache entry of its own for these gradients, and nothing else.
    config = tiny_run(num_microbatches=num_microbatches, seed=1)
    gradient, sums = gradients_of(config)
    scale_D = random_params(config.model)["decoder"]["final_norm"]["scale"]
    norm = plain["decoder"]["final_norm"]
    expected = plain | {
        "decoder": plain["decoder"] | {"final_norm": {"scale": norm["scale"] + scale_D}}
    }
    assert_trees_close(gradient, expected, 1e-5)
    assert float(plain_sums.auxiliary) == 0.0
    auxiliary = 0.5 * float(jnp.sum(jnp.square(scale_D)))
    assert float(sums.auxiliary / sums.weight) == pytest.approx(auxiliary, rel=1e-5)
    np.testing.assert_allclose(sums[:3], plain_sums[:3], rtol=1e-5)


def test_a_batch_without_weight_gives_a_gradient_of_zero():
    config = tiny_run()
    batch = random_batch(config)
    batch = batch._replace(loss_weights=np.zeros_like(batch.loss_weights))
    gradient, _ = gradients_of(config, batch)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


@pytest.fixture(scope="module")
def stepped():
    config = tiny_run()
    mesh = mesh_of(config)
    batch = put_batch(random_batch(config), batch_sharding(config, mesh))
    state = random_state(config, mesh)
    train_step = make_train_step(config, mesh).lower(state, batch).compile(QUICK_COMPILE)
    return config, state, *train_step(state, batch)


def test_a_step_is_the_optimizer_on_the_gradient(stepped):
    config, _, after, metrics = stepped
    gradient, sums = large_batch_gradients()
    params = random_params(config.model)
    optimizer = make_optimizer(config.optimizer, config.training.num_steps)

    @partial(jax.jit, compiler_options=QUICK_COMPILE)
    def updated(params, gradient):
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    assert_trees_close(after.params, updated(params, gradient), 1e-5)
    assert int(after.step) == 1
    weight = float(sums.weight)
    assert metrics.loss == pytest.approx(float(sums.cross_entropy) / weight, rel=1e-5)
    assert metrics.z_loss == pytest.approx(float(sums.z_loss) / weight, rel=1e-5)
    assert metrics.grad_norm == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-5)
    assert metrics.trained_tokens == weight
    assert metrics.auxiliary_loss == 0.0
    assert metrics.learning_rate == pytest.approx(rate_at(config.optimizer, 0, 10), rel=1e-6)


def test_an_evaluation_says_which_targets_are_the_likeliest_tokens():
    config = tiny_run()
    mesh, params, batch = mesh_of(config), random_params(config.model), random_batch(config)
    evaluate = make_eval_step(config, mesh).lower(params, batch).compile(QUICK_COMPILE)
    rows = Rows(batch.inputs, batch.positions, batch.segment_ids)
    best = logits_of(config.model, params, rows).argmax(-1)
    sums, is_correct = evaluate(params, batch._replace(targets=np.where(best % 2, best, 0)))
    np.testing.assert_array_equal(is_correct, (best % 2 == 1) | (best == 0))
    assert 0.2 < np.mean(is_correct) < 0.8
    assert float(sums.weight) == batch.loss_weights.sum()


def test_the_state_is_donated(stepped):
    _, before, after, _ = stepped
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_the_gradient_is_that_of_mean_cross_entropy_plus_z_loss():
    # Along a random direction: the slope of the loss itself, in central differences.
    config = tiny_run()
    mesh = mesh_of(config)
    batch = put_batch(random_batch(config), batch_sharding(config, mesh))
    params, direction = random_params(config.model), random_params(config.model, seed=1)
    gradient, _ = large_batch_gradients()
    evaluate = make_eval_step(config, mesh).lower(params, batch).compile(QUICK_COMPILE)

    def loss(distance: float) -> float:
        moved = jax.tree.map(lambda p, d: p + distance * d, params, direction)
        sums = evaluate(moved, batch).sums
        return float((sums.cross_entropy + config.training.z_loss * sums.z_loss) / sums.weight)

    slope = (loss(1e-2) - loss(-1e-2)) / 2e-2
    products = jax.tree.map(lambda g, d: float(jnp.vdot(g, d)), gradient, direction)
    # fp32 losses near 5 resolve 5e-7, over 2e-2; curvature adds about as much again.
    assert slope == pytest.approx(sum(jax.tree.leaves(products)), rel=1e-2)
