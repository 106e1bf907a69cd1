"""AdamW, Lion and SGD against NumPy; what weight decay and clipping apply to."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from configs.mlp_config import MoEConfig
from configs.optimizer_config import (
    AdamWConfig,
    CosineConfig,
    LionConfig,
    MuonConfig,
    SGDConfig,
)
from model.build import abstract_params
from planner.parameters import parameters
from tests.model.samples import (
    QUICK_COMPILE,
    VARIANTS,
    random_params,
    tiny_model,
)
from tests.train.samples import rate_at
from train.optimizers import decay_mask, make_optimizer, muon_dimensions
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
        "layer": {
            "kernel": rng.standard_normal((3, 4)),
            "scale": rng.standard_normal(4),
            "bias": rng.standard_normal(4),
        },
        "embedding": rng.standard_normal((5, 2)),
    }


def as_fp32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def adamw_in_numpy(config: AdamWConfig, params: dict, gradients: list[dict]) -> dict:
    """Loshchilov and Hutter's algorithm 2 after clipping, in double precision."""
    leaves, structure = jax.tree.flatten(params)
    decays = jax.tree.leaves(
        {"layer": {"kernel": 1.0, "scale": 0.0, "bias": 0.0}, "embedding": 1.0}
    )
    first, second = [np.zeros_like(x) for x in leaves], [np.zeros_like(x) for x in leaves]
    for step, gradient in enumerate(gradients):
        grads = jax.tree.leaves(gradient)
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        if config.clip_norm and norm > config.clip_norm:
            grads = [g * config.clip_norm / norm for g in grads]
        rate = rate_at(config, step, NUM_STEPS)
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

    @partial(jax.jit, compiler_options=QUICK_COMPILE)
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for steps_done, gradient in enumerate(gradients, start=1):
        params, state = step(params, state, as_fp32(gradient))
        expected = adamw_in_numpy(config, start, gradients[:steps_done])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, expected)


def lion_in_numpy(config: LionConfig, params: dict, gradients: list[dict]) -> dict:
    """Chen et al.'s algorithm 2 after clipping, in double precision."""
    return _descend(config, params, gradients, lambda m, g: np.sign(_mixed(config.b1, m, g)))


def sgd_in_numpy(config: SGDConfig, params: dict, gradients: list[dict]) -> dict:
    """Sutskever et al. 2013 as reformulated: momentum, or one step further along it."""

    def step(m, g):
        new = config.momentum * m + g
        return g + config.momentum * new if config.nesterov else new

    return _descend(config, params, gradients, step)


def _mixed(b: float, m: np.ndarray, g: np.ndarray) -> np.ndarray:
    return b * m + (1 - b) * g


def _descend(config: LionConfig | SGDConfig, params, gradients, step_of) -> dict:
    leaves, structure = jax.tree.flatten(params)
    decays = jax.tree.leaves(
        {"layer": {"kernel": 1.0, "scale": 0.0, "bias": 0.0}, "embedding": 1.0}
    )
    schedule = make_schedule(config.schedule, config.learning_rate, NUM_STEPS)
    momenta = [np.zeros_like(x) for x in leaves]
    for step, gradient in enumerate(gradients):
        grads = jax.tree.leaves(gradient)
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        grads = [g * min(1.0, config.clip_norm / norm) for g in grads]
        rate = float(np.asarray(schedule(step)))
        for i, g in enumerate(grads):
            update = step_of(momenta[i], g) + config.weight_decay * decays[i] * leaves[i]
            leaves[i] = leaves[i] - rate * update
            momenta[i] = (
                _mixed(config.b2, momenta[i], g)
                if isinstance(config, LionConfig)
                else config.momentum * momenta[i] + g
            )
    return jax.tree.unflatten(structure, leaves)


SCHEDULE = CosineConfig(warmup_steps=3)
BY_HAND = {
    "lion": (LionConfig(b1=0.8, b2=0.95, weight_decay=0.3, schedule=SCHEDULE), lion_in_numpy),
    "sgd": (SGDConfig(weight_decay=0.3, schedule=SCHEDULE), sgd_in_numpy),
    "nesterov": (SGDConfig(nesterov=True, momentum=0.7, schedule=SCHEDULE), sgd_in_numpy),
    "no momentum": (SGDConfig(momentum=0.0, schedule=SCHEDULE), sgd_in_numpy),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_steps_equal_lion_and_sgd_in_numpy(name):
    config, by_hand = BY_HAND[name]
    start, gradients = random_tree(0), [random_tree(seed) for seed in (1, 2, 3)]
    optimizer = make_optimizer(config, NUM_STEPS)
    params = as_fp32(start)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update, compiler_options=QUICK_COMPILE)
    for gradient in gradients:
        updates, state = update(as_fp32(gradient), state, params)
        params = optax.apply_updates(params, updates)
    expected = by_hand(config, start, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, expected)


MIXTURE = tiny_model(mlp=MoEConfig(mlp_dim=48, num_experts=4))
MODELS = {"llama": tiny_model(), "mixture": MIXTURE} | VARIANTS
shapes_of = cache(abstract_params)


def paths_of(tree) -> set[tuple[str, ...]]:
    return {
        tuple(key.key for key in path) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("name", MODELS)
def test_weight_decay_spares_norm_scales_and_biases_and_nothing_else(name):
    config = MODELS[name]
    mask = decay_mask(shapes_of(config))
    decayed = paths_of(jax.tree.map(lambda applies: applies or None, mask))
    assert decayed == {spec.path for spec in parameters(config) if spec.is_matrix}
    assert all(path[-1] not in ("scale", "bias") for path in decayed)


def is_dimensions(leaf) -> bool:
    return leaf is None or isinstance(leaf, MuonDimensionNumbers)


@pytest.mark.parametrize("name", MODELS)
def test_muon_takes_every_kernel_of_the_layers_but_the_router(name):
    config = MODELS[name]
    leaves = jax.tree_util.tree_leaves_with_path(
        muon_dimensions(shapes_of(config)), is_leaf=is_dimensions
    )
    taken = {tuple(key.key for key in path): d for path, d in leaves if d is not None}
    assert set(taken) == {spec.path for spec in parameters(config) if spec.is_muons}
    for path, (inputs, outputs) in taken.items():
        if "experts" in path:
            assert (inputs, outputs) == ((2,), (3,))  # layers and experts are kept apart
        elif path[-2] == "out":
            assert (inputs, outputs) == ((1, 2), (3,))  # heads and head_dim are contracted
        elif path[-2] in ("query", "key", "value"):
            assert (inputs, outputs) == ((1,), (2, 3))
        else:
            assert (inputs, outputs) == ((1,), (2,))
    names = {path[-2] for path in taken}
    assert not {"router", "dense", "head"} & names
    if name == "mixture":
        assert {"gate", "up", "down"} <= names


def test_without_a_gradient_only_decayed_leaves_shrink():
    params = as_fp32(random_tree(0))
    optimizer = make_optimizer(CONFIG, NUM_STEPS)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    rate = CONFIG.learning_rate / 4  # the first of three warm-up steps
    decays = {"layer": {"kernel": 0.3, "scale": 0.0, "bias": 0.0}, "embedding": 0.3}
    expected = jax.tree.map(lambda p, decay: -rate * decay * p, params, decays)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)


@pytest.fixture(scope="module")
def muon_update():
    """One step of Muon on a tiny model's random gradients: gradients -> updates."""
    params = random_params(tiny_model())
    optimizer = make_optimizer(MUON, NUM_STEPS)

    @partial(jax.jit, compiler_options=QUICK_COMPILE)
    def update(gradient):
        return optimizer.update(gradient, optimizer.init(params), params)[0]

    return lambda gradient: jax.tree.map(np.asarray, update(gradient))


MUON = MuonConfig(
    learning_rate=0.02,
    adam_learning_rate=0.01,
    weight_decay=0.0,
    clip_norm=0.0,
    schedule=CosineConfig(warmup_steps=0),
)


def test_muon_steps_along_orthogonal_matrices_layer_by_layer(muon_update):
    update = muon_update(random_params(tiny_model(), seed=1))
    layers = update["decoder"]["layers"]
    # Heads and head_dim are one axis of 32, or of 16 for keys and values.
    matrices = {
        "query": (layers["attention"]["query"]["kernel"].reshape(2, 32, 32), 1.0),
        "key": (layers["attention"]["key"]["kernel"].reshape(2, 32, 16), 1.0),
        "out": (layers["attention"]["out"]["kernel"].reshape(2, 32, 32), 1.0),
        "up": (layers["mlp"]["up"]["kernel"], (48 / 32) ** 0.5),
        "down": (layers["mlp"]["down"]["kernel"], 1.0),
    }
    for name, (matrices_NIO, scale) in matrices.items():
        values = np.linalg.svd(matrices_NIO, compute_uv=False) / (0.02 * scale)
        # Five Newton-Schulz steps bring singular values near one, not onto it; a tiny one stays.
        assert (values < 1.3).all(), name
        assert (values > 0.6).mean() > 0.9, name


def test_muon_keeps_layers_apart(muon_update):
    gradient = random_params(tiny_model(), seed=1)
    doubled = jax.tree.map(
        lambda g: g * np.array([1.0, 5.0]).reshape(2, *[1] * (g.ndim - 1)),
        gradient["decoder"]["layers"],
    )
    other = muon_update(gradient | {"decoder": gradient["decoder"] | {"layers": doubled}})
    update = muon_update(gradient)
    for part in ("attention", "mlp"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[0], b[0], atol=1e-6),
            update["decoder"]["layers"][part],
            other["decoder"]["layers"][part],
        )


def test_muon_leaves_table_head_and_norms_to_adam(muon_update):
    gradient = random_params(tiny_model(), seed=1)
    update = muon_update(gradient)
    for of in (
        lambda tree: tree["token_embedding"]["embedding"],
        lambda tree: tree["head"]["kernel"],
        lambda tree: tree["decoder"]["final_norm"]["scale"],
        lambda tree: tree["decoder"]["layers"]["mlp_norm"]["scale"],
    ):
        # Adam's first step is the sign of the gradient; Nesterov's momentum looks one step ahead.
        first_step = 0.01 * (1 + 0.9 * 0.1 / (1 - 0.9**2))
        np.testing.assert_allclose(of(update), -first_step * np.sign(of(gradient)), rtol=1e-2)


def test_moments_are_fp32_and_shaped_like_their_parameters():
    params = abstract_params(tiny_model(compute_dtype="bfloat16"))
    state = jax.eval_shape(make_optimizer(CONFIG, NUM_STEPS).init, params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert {leaf.dtype for leaf in moments} == {jnp.dtype("float32")}
    assert sorted(leaf.shape for leaf in moments) == sorted(
        2 * [leaf.shape for leaf in jax.tree.leaves(params)]
    )
