"""The planner's list of parameters is the built model's, array by array; how they start."""

import random
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs.model_config import AttentionConfig, ModelConfig, SwiGLUConfig
from configs.presets import PRESETS
from configs.schema import MeshConfig
from model.build import (
    abstract_params,
    build_model,
    count_matmul_params,
    count_params,
    init_params,
    param_shardings,
)
from planner.accounting import matmul_params, parameters, total_params
from tests.model.samples import QUICK_COMPILE, tiny_model
from train.mesh import make_mesh


class Declared(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    logical_axes: tuple[str, ...]


def declared_by_the_model(config: ModelConfig) -> dict[tuple[str, ...], Declared]:
    """Path -> what the module declares, traced without computing any."""
    row = jnp.zeros((1, 2), jnp.int32)
    init = partial(build_model(config).init, positions=row, segment_ids=row)
    boxed = jax.eval_shape(init, jax.random.key(0), row)["params"]
    leaves = jax.tree_util.tree_leaves_with_path(
        boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )
    return {
        tuple(key.key for key in path): Declared(box.value.shape, str(box.value.dtype), box.names)
        for path, box in leaves
    }


def declared_by_the_planner(config: ModelConfig) -> dict[tuple[str, ...], Declared]:
    return {s.path: Declared(s.shape, "float32", s.logical_axes) for s in parameters(config)}


def random_model(seed: int) -> ModelConfig:
    rng = random.Random(seed)
    num_kv_heads = rng.choice([1, 2, 3])
    return ModelConfig(
        vocab_size=rng.randrange(3, 90),
        emb_dim=rng.randrange(1, 50),
        num_layers=rng.randrange(1, 5),
        attention=AttentionConfig(
            num_heads=num_kv_heads * rng.choice([1, 2, 3]),
            num_kv_heads=num_kv_heads,
            head_dim=rng.choice([2, 6, 8]),
        ),
        mlp=SwiGLUConfig(mlp_dim=rng.randrange(1, 70)),
        tie_embeddings=rng.random() < 0.5,
        compute_dtype=rng.choice(["float32", "bfloat16"]),
        scan_layers=rng.random() < 0.5,
        remat=rng.choice(["none", "full"]),
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_planner_lists_exactly_the_parameters_of_a_preset(preset):
    config = PRESETS[preset]().model
    assert declared_by_the_planner(config) == declared_by_the_model(config)


@pytest.mark.parametrize("seed", range(20))
def test_the_planner_lists_exactly_the_parameters_of_a_random_model(seed):
    config = random_model(seed)
    assert declared_by_the_planner(config) == declared_by_the_model(config)
    params = abstract_params(config)
    assert total_params(config) == count_params(params)
    assert matmul_params(config) == count_matmul_params(params)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_tied_models_have_no_head(tie_embeddings):
    params = abstract_params(tiny_model(tie_embeddings=tie_embeddings))
    assert ("head" in params) != tie_embeddings


def test_parameters_are_cut_as_their_logical_axes_say():
    config = tiny_model()
    mesh_config = MeshConfig(data=2, fsdp=2, tensor=2)
    shardings = param_shardings(config, make_mesh(mesh_config), mesh_config.rules)
    attention = shardings["decoder"]["layers"]["attention"]
    assert shardings["token_embedding"]["embedding"].spec == P("tensor", "fsdp")
    assert attention["query"]["kernel"].spec == P(None, "fsdp", "tensor", None)
    assert attention["out"]["kernel"].spec == P(None, "tensor", None, "fsdp")
    down = shardings["decoder"]["layers"]["mlp"]["down"]
    assert down["kernel"].spec == P(None, "tensor", "fsdp")
    assert shardings["decoder"]["final_norm"]["scale"].spec == P(None)


@pytest.fixture(scope="module")
def initial():
    config = tiny_model(emb_dim=64)
    init = partial(init_params, build_model(config))
    init = jax.jit(init, compiler_options=QUICK_COMPILE)
    return jax.tree.map(np.asarray, init(jax.random.key(0)))


def test_kernels_start_with_deviation_one_over_root_fan_in(initial):
    layers = initial["decoder"]["layers"]
    deviations = {
        "embedding": (initial["token_embedding"]["embedding"], 64),
        "head": (initial["head"]["kernel"], 64),
        "query": (layers["attention"]["query"]["kernel"], 64),
        "value": (layers["attention"]["value"]["kernel"], 64),
        "up": (layers["mlp"]["up"]["kernel"], 64),
        # Back into the residual: smaller by 1/sqrt(2N), N = 2.
        "out": (layers["attention"]["out"]["kernel"], 32 * 4),
        "down": (layers["mlp"]["down"]["kernel"], 48 * 4),
    }
    for name, (kernel, variance) in deviations.items():
        # 2048 or more draws: the sample deviation is within 7% at four of its own deviations.
        assert kernel.std() == pytest.approx(variance**-0.5, rel=0.07), name


def test_norms_start_at_one_and_layers_start_differently(initial):
    layers = initial["decoder"]["layers"]
    assert (layers["attention_norm"]["scale"] == 1).all()
    assert (initial["decoder"]["final_norm"]["scale"] == 1).all()
    up_NDF = layers["mlp"]["up"]["kernel"]
    assert abs(np.corrcoef(up_NDF[0].ravel(), up_NDF[1].ravel())[0, 1]) < 0.1


@pytest.mark.slow
def test_scanned_and_unrolled_models_start_from_the_same_numbers():
    def start(**changes):
        init = partial(init_params, build_model(tiny_model(**changes)))
        return jax.jit(init, compiler_options=QUICK_COMPILE)(jax.random.key(3))

    scanned = start(scan_layers=True)
    for changes in ({"scan_layers": False}, {"scan_layers": True, "remat": "full"}):
        jax.tree.map(np.testing.assert_array_equal, start(**changes), scanned)
