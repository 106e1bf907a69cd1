"""Adafactor on stacked parameters equals Adafactor on one matrix after another."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.mlp_config import MoEConfig
from configs.optimizer_config import AdafactorConfig, CosineConfig, InverseSquareRootConfig
from model.build import abstract_params
from tests.model.samples import QUICK_COMPILE, VARIANTS, random_params, tiny_model
from train.adafactor import AdafactorState, scale_by_adafactor
from train.matrices import matrix_axes
from train.optimizers import make_optimizer

CONFIG = AdafactorConfig(min_factored_dim=16)
MODELS = {
    "mixture": tiny_model(mlp=MoEConfig(mlp_dim=48, num_experts=4), num_layers=3),
    "biases": VARIANTS["gpt2"],
    "two sides": VARIANTS["t5"],
}


class Matrix:
    """One matrix, or vector, under Adafactor in double precision: algorithms 4 and 5."""

    def __init__(self, config: AdafactorConfig, shape: tuple[int, ...]):
        self.config, self.t = config, 0
        self.factored = len(shape) == 2 and min(shape) >= config.min_factored_dim
        self.rows, self.columns = np.zeros(shape[:1]), np.zeros(shape[-1:])
        self.whole = np.zeros(shape)

    def step(self, gradient: np.ndarray, param: np.ndarray) -> np.ndarray:
        self.t += 1
        decay = 1 - self.t**-self.config.decay_exponent
        squared = gradient**2 + self.config.epsilon
        if self.factored:  # equations 3 and 4: sums of rows and columns, and the sum of all
            self.rows = decay * self.rows + (1 - decay) * squared.sum(1)
            self.columns = decay * self.columns + (1 - decay) * squared.sum(0)
            moment = np.outer(self.rows, self.columns) / self.rows.sum()
        else:
            moment = self.whole = decay * self.whole + (1 - decay) * squared
        update = gradient / np.sqrt(moment)
        size = np.sqrt(np.mean(update**2))
        update /= max(1.0, size / self.config.clipping_threshold)
        return update * max(self.config.min_scale, np.sqrt(np.mean(param**2)))


def matrices_of(path: tuple, leaf: np.ndarray) -> np.ndarray:
    """[M, inputs, outputs], or of vectors [M, outputs]: M layers, or layers and experts."""
    axes = matrix_axes(path, leaf.ndim)
    sizes = [int(np.prod([leaf.shape[i] for i in side])) for side in axes]
    return np.reshape(leaf, sizes if axes.inputs else [sizes[0], sizes[2]])


@pytest.mark.parametrize(
    "name",
    [n if n != "two sides" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS],
)
def test_a_stacked_models_steps_are_those_of_its_layers_taken_one_at_a_time(name):
    params = random_params(MODELS[name])
    optimizer = scale_by_adafactor(CONFIG)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update, compiler_options=QUICK_COMPILE)
    alone: dict[str, list[Matrix]] = {}
    for seed in (1, 2, 3):
        # Layers of very different gradients, so that none can pass for another.
        gradient = jax.tree.map(
            lambda g: g * 10.0 ** (jnp.arange(len(g)) % 3).reshape(-1, *[1] * (g.ndim - 1)),
            random_params(MODELS[name], seed),
        )
        steps, state = update(gradient, state, params)
        for path, step in jax.tree_util.tree_leaves_with_path(steps):
            key = jax.tree_util.keystr(path)
            leaves = [_at(tree, path) for tree in (gradient, params)]
            gradients, values = (matrices_of(path, np.asarray(x, np.float64)) for x in leaves)
            own = alone.setdefault(key, [Matrix(CONFIG, g.shape) for g in gradients])
            expected = [m.step(g, p) for m, g, p in zip(own, gradients, values, strict=True)]
            got = matrices_of(path, np.asarray(step))
            np.testing.assert_allclose(got, expected, rtol=2e-5, err_msg=f"{key}, seed {seed}")
    factored = {key for key, own in alone.items() if own[0].factored}
    assert any("['out']['kernel']" in key for key in factored)  # heads and head_dim together
    assert not any("scale" in key or "bias" in key or "router" in key for key in factored)
    if name == "mixture":
        assert len(alone["['decoder']['layers']['mlp']['experts']['up']['kernel']"]) == 3 * 4


def _at(tree, path):
    for part in path:
        tree = tree[part.key]
    return tree


def test_a_lone_matrix_steps_as_optax_has_it():
    rng = np.random.default_rng(0)
    params = {"token_embedding": {"embedding": jnp.asarray(rng.standard_normal((40, 24)))}}
    schedule = CosineConfig(warmup_steps=0, final_fraction=1.0)
    config = replace(CONFIG, momentum=0.9, learning_rate=0.05, schedule=schedule)
    ours = make_optimizer(config, 10)
    theirs = optax.adafactor(0.05, min_dim_size_to_factor=16, momentum=0.9)
    states = [ours.init(params), theirs.init(params)]
    for seed in range(3):
        drawn = np.random.default_rng(seed).standard_normal((40, 24))
        gradient = jax.tree.map(lambda _, g=drawn: jnp.asarray(g, jnp.float32), params)
        updates = []
        for i, optimizer in enumerate((ours, theirs)):
            update, states[i] = jax.jit(optimizer.update)(gradient, states[i], params)
            updates.append(update["token_embedding"]["embedding"])
        # Where three steps nearly cancel, rounding is all that is left.
        np.testing.assert_allclose(*updates, rtol=1e-5, atol=1e-8)


def test_moments_of_matrices_are_vectors_and_all_together_a_sliver_of_the_parameters():
    config = tiny_model(emb_dim=256, vocab_size=512)
    params = abstract_params(config)
    state = jax.eval_shape(scale_by_adafactor(AdafactorConfig(min_factored_dim=16)).init, params)
    assert isinstance(state, AdafactorState)
    layers = [
        tree["decoder"]["layers"]["attention"] for tree in (state.rows, state.columns, state.whole)
    ]
    assert [tree["query"]["kernel"].shape for tree in layers[:2]] == [(2, 256, 1, 1), (2, 1, 4, 8)]
    assert [tree["out"]["kernel"].shape for tree in layers[:2]] == [(2, 4, 8, 1), (2, 1, 1, 256)]
    assert isinstance(layers[2]["query"]["kernel"], optax.MaskedNode)
    assert state.whole["decoder"]["final_norm"]["scale"].shape == (256,)
    assert isinstance(state.rows["decoder"]["final_norm"]["scale"], optax.MaskedNode)
    held, whole = (sum(x.size for x in jax.tree.leaves(tree)) for tree in (state, params))
    assert held < 0.03 * whole
    assert {x.dtype for x in jax.tree.leaves(state)} == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_small_matrices_keep_every_second_moment():
    params = abstract_params(tiny_model())
    state = jax.eval_shape(scale_by_adafactor(AdafactorConfig()).init, params)
    shapes = [[x.shape for x in jax.tree.leaves(tree)] for tree in (state.whole, params)]
    assert shapes[0] == shapes[1]
    assert not jax.tree.leaves((state.rows, state.columns))


def test_no_step_exceeds_the_rate_times_the_parameters_own_size():
    params = random_params(tiny_model())
    config = replace(CONFIG, schedule=InverseSquareRootConfig())
    optimizer = make_optimizer(config, 100)
    huge = jax.tree.map(lambda g: 1e6 * g, random_params(tiny_model(), seed=1))

    @partial(jax.jit, compiler_options=QUICK_COMPILE)
    def update(gradient):
        return optimizer.update(gradient, optimizer.init(params), params)[0]

    for path, step in jax.tree_util.tree_leaves_with_path(update(huge)):
        steps, values = (matrices_of(path, np.asarray(x)) for x in (step, _at(params, path)))
        for one, value in zip(steps, values, strict=True):
            size, own = (np.sqrt(np.mean(np.square(x))) for x in (one, value))
            assert 0.5 * config.learning_rate * own < size <= 1.0001 * config.learning_rate * own


def test_parameters_of_zero_take_steps_of_the_smallest_scale():
    params = {"head": {"bias": jnp.zeros(8)}}
    optimizer = scale_by_adafactor(CONFIG)
    step: Any = optimizer.update({"head": {"bias": jnp.ones(8)}}, optimizer.init(params), params)[0]
    np.testing.assert_allclose(step["head"]["bias"], CONFIG.min_scale, rtol=1e-5)
