"""Every architecture on eight devices, however they are arranged, as on one.

In fp32 the first loss within 1e-6 and each gradient leaf within 1e-5 (norm of the difference over
the norm): sums over rows and widths are only added up in another order.
"""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from configs.model_config import ModelConfig, RMSNormConfig
from configs.objective_config import MaskedLMConfig, PrefixLMConfig, SpanCorruptionConfig
from configs.schema import MeshConfig, RunConfig
from tests.model.samples import (
    QUICK_COMPILE,
    VARIANTS,
    attention,
    random_params,
    relative_difference,
    tiny_model,
)
from tests.train.samples import ONE_DEVICE, mesh_of, random_batch, tiny_run
from train.feed import put_batch
from train.state import abstract_state
from train.step import batch_sharding, make_gradients

MESHES = {
    "data=8": MeshConfig(data=8),
    "fsdp=8": MeshConfig(fsdp=8),
    "tensor=4, data=2": MeshConfig(tensor=4, data=2),
    "fsdp=2, tensor=2, data=2": MeshConfig(fsdp=2, tensor=2, data=2),
}

HEADS = attention(num_kv_heads=4)


def divided(name: str, **changes: Any) -> ModelConfig:
    """A variant of one layer a side, whose widths divide over eight devices."""
    config = VARIANTS[name]
    a = replace(config.attention, num_kv_heads=4)
    return replace(config, num_layers=1, attention=a, **changes)


RUNS = {
    # Learned positions, token types and biases; targets at their own places.
    "encoder": tiny_run(model=divided("bert"), objective=MaskedLMConfig()),
    # Two stacks with a table of biases each; rows of 16 in the encoder and of fewer in the decoder.
    "encoder-decoder": tiny_run(
        model=divided("t5", num_encoder_layers=1), objective=SpanCorruptionConfig(density=0.5)
    ),
    # A prefix seen both ways, a window, capped scores and normed queries.
    "decoder with prefix": tiny_run(
        model=tiny_model(
            num_layers=1,
            attention=replace(
                HEADS,
                window=5,
                layer_pattern=("window",),
                qk_norm=True,
                logit_softcap=2.0,
                use_out_bias=True,
            ),
            norm=RMSNormConfig(scale_offset=1.0),
            norm_placement="sandwich",
        ),
        objective=PrefixLMConfig(),
    ),
}


class First(NamedTuple):
    loss: float
    gradient: Any


@cache
def first(name: str, mesh_config: MeshConfig) -> First:
    config: RunConfig = replace(RUNS[name], mesh=mesh_config)
    mesh = mesh_of(config)
    batch = put_batch(random_batch(config), batch_sharding(config, mesh))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh).params)
    params = jax.tree.map(
        lambda x, sharding: jax.device_put(np.array(x), sharding),
        random_params(config.model),
        shardings,
    )
    gradients = jax.jit(make_gradients(config, mesh), compiler_options=QUICK_COMPILE)
    gradient, sums = gradients(params, batch)
    return First(float(sums.cross_entropy / sums.weight), jax.tree.map(np.asarray, gradient))


def is_keys_bias(path: tuple) -> bool:
    """A bias on keys adds the same to all scores of a query: its gradient is rounding alone."""
    return [key.key for key in path][-2:] == ["key", "bias"]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    "mesh",
    [
        *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in list(MESHES)[:3]),
        "fsdp=2, tensor=2, data=2",
    ],
)
def test_the_first_loss_and_gradient_equal_those_of_one_device(name, mesh):
    one, eight = first(name, ONE_DEVICE), first(name, MESHES[mesh])
    assert eight.loss == pytest.approx(one.loss, rel=1e-6)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(one.gradient))
    different = jax.tree_util.tree_map_with_path(
        lambda path, a, b: (
            np.abs(a - b).max() / largest if is_keys_bias(path) else relative_difference(a, b)
        ),
        eight.gradient,
        one.gradient,
    )
    for path, difference in jax.tree_util.tree_leaves_with_path(different):
        assert difference <= 1e-5, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", RUNS)
def test_every_parameter_has_a_gradient_but_a_bias_on_keys_and_rows_nobody_meets(name):
    gradient = first(name, ONE_DEVICE).gradient
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        if not is_keys_bias(path):
            assert np.abs(leaf).max() > 1e-4, jax.tree_util.keystr(path)
