"""muP's factors and those of T5's queries, as each optimizer needs them."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from configs.mlp_config import MoEConfig
from configs.model_config import AttentionConfig, LinearHeadConfig, MuPInitConfig, T5InitConfig
from configs.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    CosineConfig,
    LionConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
)
from model.build import rate_multipliers, step_multipliers
from tests.model.samples import QUICK_COMPILE, VARIANTS, random_params, tiny_model
from train.optimizers import make_optimizer

NUM_STEPS = 20
SCHEDULE = CosineConfig(warmup_steps=3)
OPTIMIZERS: dict[str, OptimizerConfig] = {
    "adamw": AdamWConfig(schedule=SCHEDULE),
    "muon": MuonConfig(schedule=SCHEDULE),
    "lion": LionConfig(schedule=SCHEDULE),
    "sgd": SGDConfig(schedule=SCHEDULE),
    "adafactor": AdafactorConfig(min_factored_dim=16, schedule=SCHEDULE),
}


def factors_of(config: OptimizerConfig, model, rates=None, steps=None) -> dict:
    """By which number `rates` or `steps` multiply each leaf of a first step, by its path.

    Fails where it is not one number for all of a leaf.
    """
    params, gradient = random_params(model), random_params(model, seed=1)

    def update(gradient, *multipliers):
        optimizer = make_optimizer(config, NUM_STEPS, *multipliers)
        return optimizer.update(gradient, optimizer.init(params), params)[0]

    scaled, plain = jax.jit(
        lambda g: (update(g, rates, steps), update(g)), compiler_options=QUICK_COMPILE
    )(gradient)
    factors = {}
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(scaled), jax.tree.leaves(plain), strict=True
    ):
        factor = float(np.linalg.norm(a) / np.linalg.norm(b))
        np.testing.assert_allclose(a, factor * b, rtol=1e-5)
        factors[tuple(key.key for key in path)] = factor
    return factors


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_mups_factors_are_those_of_the_optimizer(kind):
    attention = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, qk_norm=True)
    model = tiny_model(
        init=MuPInitConfig(base_emb_dim=8),
        num_layers=1,
        mlp=MoEConfig(mlp_dim=48, num_experts=4),
        attention=attention,
        head=LinearHeadConfig(use_bias=True),
    )
    config, rates = OPTIMIZERS[kind], rate_multipliers(model)
    factors = factors_of(config, model, rates)
    layers = ("decoder", "layers")
    hidden = {"adamw": 1 / 4, "muon": 1.0, "lion": 1 / 4, "sgd": 1.0, "adafactor": 1 / 2}[kind]
    spread = 4.0 if kind == "sgd" else 1.0
    expected = {
        (*layers, "attention", "query", "kernel"): hidden,
        (*layers, "attention", "out", "kernel"): hidden,
        (*layers, "mlp", "experts", "down", "kernel"): hidden,
        (*layers, "mlp", "router", "kernel"): 1 / 2 if kind == "adafactor" else 1 / 4,
        (*layers, "mlp_norm", "scale"): spread,
        (*layers, "attention", "query_norm", "scale"): 1.0,
        ("token_embedding", "embedding"): spread,
        ("head", "kernel"): spread,
        ("head", "bias"): 1.0,
    }
    assert {path: factors[path] for path in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_queries_that_are_not_scaled_step_as_the_optimizer_needs(kind):
    model = replace(VARIANTS["t5"], num_layers=1, num_encoder_layers=1, init=T5InitConfig())
    config, steps = OPTIMIZERS[kind], step_multipliers(model)
    assert steps is not None and step_multipliers(tiny_model()) is None
    factors = factors_of(config, model, None, steps)
    # Adafactor's steps follow the parameter's size; SGD's gradient is larger where that is smaller.
    power = {"adafactor": 0.0, "sgd": -1.0}.get(kind, -0.5)
    queries = {path: factor for path, factor in factors.items() if path[-2] == "query"}
    assert len(queries) == 3  # the encoder's, the decoder's, and those that read the memory
    assert list(queries.values()) == pytest.approx(3 * [8**power], rel=1e-5)
    rest = [factor for path, factor in factors.items() if path not in queries]
    assert rest == pytest.approx([1.0] * len(rest))


@pytest.mark.parametrize("kind", ["lion", "sgd", "adafactor"])
def test_a_kernel_that_holds_a_constant_steps_like_one_without(kind):
    """c times as large, with scores divided by c, it is the same model: so it is after a step."""
    config = OPTIMIZERS[kind]
    params, gradient = random_params(tiny_model()), random_params(tiny_model(), seed=1)

    settings = replace(config, clip_norm=0.0, weight_decay=0.0)

    def scaled(tree: Any, factor: float) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, x: x * factor if path[-2].key == "query" else x, tree
        )

    def step(c: float) -> np.ndarray:
        own, factors = scaled(params, c), scaled(jax.tree.map(lambda _: 1.0, params), c)
        optimizer = make_optimizer(settings, NUM_STEPS, None, factors)
        update: Any = jax.jit(
            lambda g: optimizer.update(g, optimizer.init(own), own)[0],
            compiler_options=QUICK_COMPILE,
        )(scaled(gradient, 1 / c))
        return np.asarray(update["decoder"]["layers"]["attention"]["query"]["kernel"]) / c

    np.testing.assert_allclose(step(0.25), step(1.0), rtol=1e-5)
