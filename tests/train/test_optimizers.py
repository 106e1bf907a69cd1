"""AdamW against NumPy, and what weight decay and clipping apply to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.schema import AdamWConfig, CosineConfig
from model.build import abstract_params
from planner.accounting import parameters
from tests.model.samples import tiny_model
from train.optimizers import decay_mask, make_optimizer
from train.schedules import make_schedule

NUM_STEPS = 20
CONFIG = AdamWConfig(
    learning_rate=0.05,
    b1=0.8,
    b2=0.9,
    epsilon=1e-6,
    weight_decay=0.3,
    clip_norm=1.0,
    schedule=CosineConfig(warmup_steps=3),
)


def random_tree(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "layer": {"kernel": rng.standard_normal((3, 4)), "scale": rng.standard_normal(4)},
        "embedding": rng.standard_normal((5, 2)),
    }


def as_fp32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def adamw_in_numpy(config: AdamWConfig, params: dict, gradients: list[dict]) -> dict:
    """Loshchilov and Hutter's algorithm 2 after clipping, in double precision."""
    leaves, structure = jax.tree.flatten(params)
    decays = jax.tree.leaves({"layer": {"kernel": 1.0, "scale": 0.0}, "embedding": 1.0})
    first, second = [np.zeros_like(x) for x in leaves], [np.zeros_like(x) for x in leaves]
    schedule = make_schedule(config.schedule, config.learning_rate, NUM_STEPS)
    for step, gradient in enumerate(gradients):
        grads = jax.tree.leaves(gradient)
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        if config.clip_norm and norm > config.clip_norm:
            grads = [g * config.clip_norm / norm for g in grads]
        rate = float(schedule(jnp.asarray(step)))
        for i, g in enumerate(grads):
            first[i] = config.b1 * first[i] + (1 - config.b1) * g
            second[i] = config.b2 * second[i] + (1 - config.b2) * g**2
            m = first[i] / (1 - config.b1 ** (step + 1))
            v = second[i] / (1 - config.b2 ** (step + 1))
            update = m / (np.sqrt(v) + config.epsilon) + config.weight_decay * decays[i] * leaves[i]
            leaves[i] = leaves[i] - rate * update
    return jax.tree.unflatten(structure, leaves)


@pytest.mark.parametrize("clip_norm", [1.0, 1e3, 0.0], ids=["clipped", "below", "not clipped"])
def test_steps_equal_adamw_in_numpy(clip_norm):
    config = AdamWConfig(**{**vars(CONFIG), "clip_norm": clip_norm})
    start, gradients = random_tree(0), [random_tree(seed) for seed in (1, 2, 3)]
    optimizer = make_optimizer(config, NUM_STEPS)
    params = as_fp32(start)
    state = optimizer.init(params)
    for steps_done, gradient in enumerate(gradients, start=1):
        updates, state = optimizer.update(as_fp32(gradient), state, params)
        params = optax.apply_updates(params, updates)
        expected = adamw_in_numpy(config, start, gradients[:steps_done])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, expected)


def test_weight_decay_spares_norm_scales_and_nothing_else():
    config = tiny_model()
    mask = decay_mask(abstract_params(config))
    decayed = {
        tuple(key.key for key in path)
        for path, applies in jax.tree_util.tree_leaves_with_path(mask)
        if applies
    }
    assert decayed == {spec.path for spec in parameters(config) if spec.is_matrix}
    assert all(path[-1] != "scale" for path in decayed)


def test_without_a_gradient_only_decayed_leaves_shrink():
    params = as_fp32(random_tree(0))
    optimizer = make_optimizer(CONFIG, NUM_STEPS)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    assert (updates["layer"]["scale"] == 0).all()
    rate = CONFIG.learning_rate / 4  # the first of three warm-up steps
    np.testing.assert_allclose(
        updates["layer"]["kernel"], -rate * 0.3 * params["layer"]["kernel"], rtol=1e-6
    )


def test_moments_are_fp32_and_shaped_like_their_parameters():
    params = abstract_params(tiny_model(compute_dtype="bfloat16"))
    state = jax.eval_shape(make_optimizer(CONFIG, NUM_STEPS).init, params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert {leaf.dtype for leaf in moments} == {jnp.dtype("float32")}
    assert sorted(leaf.shape for leaf in moments) == sorted(
        2 * [leaf.shape for leaf in jax.tree.leaves(params)]
    )
