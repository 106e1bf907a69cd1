"""The planner's list of parameters is the built model's, array by array, for every variant."""

from dataclasses import replace
from functools import partial
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from configs.mlp_config import GELUConfig, MLPConfig, MoEConfig, SwiGLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    HeadConfig,
    LayerNormConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    NoHeadConfig,
    NormConfig,
)
from configs.position_config import LearnedPositionConfig, PositionConfig
from configs.presets import PRESETS
from model.build import build_model, count_matmul_params, count_params
from planner.parameters import (
    active_params,
    matmul_params,
    non_embedding_params,
    parameters,
    sides,
    total_params,
)
from tests.planner.samples import random_model

RANDOM_MODELS = 108


def traced(config: ModelConfig) -> Any:
    """The model's parameters with their logical axes, traced without computing any."""
    row = jnp.zeros((1, 2), jnp.int32)
    fields = {"positions": row, "segment_ids": row}
    if config.architecture == "encoder_decoder":
        fields |= {f"encoder_{name}": row for name in ("tokens", "positions", "segment_ids")}
    init = partial(build_model(config).init, **fields)
    return jax.eval_shape(init, jax.random.key(0), row)["params"]


def assert_the_planner_knows(config: ModelConfig) -> None:
    boxed = traced(config)
    leaves = jax.tree_util.tree_leaves_with_path(
        boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )
    declared = {
        tuple(key.key for key in path): (box.value.shape, box.names) for path, box in leaves
    }
    listed = [(spec.path, (spec.shape, spec.logical_axes)) for spec in parameters(config)]
    assert dict(listed) == declared
    assert len(listed) == len(declared)
    params = nn.meta.unbox(boxed)
    assert total_params(config) == count_params(params)
    assert matmul_params(config) == count_matmul_params(params, config)
    layers = {name: params[name] for name in params if name in ("encoder", "decoder")}
    assert non_embedding_params(config) == count_params(layers)


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_parameters_are_the_built_models(name):
    assert_the_planner_knows(PRESETS[name]().model)


@pytest.mark.parametrize(
    "first",
    [pytest.param(n, marks=[pytest.mark.slow] * (n > 12)) for n in range(0, RANDOM_MODELS, 12)],
)
def test_random_models_parameters_are_the_built_models(first):
    for seed in range(first, first + 12):
        assert_the_planner_knows(random_model(seed))


def test_the_random_models_meet_every_member_of_every_union():
    models = [random_model(seed) for seed in range(RANDOM_MODELS)]
    for field, union in (
        ("norm", NormConfig),
        ("mlp", MLPConfig),
        ("position", PositionConfig),
        ("head", HeadConfig),
    ):
        assert {type(getattr(model, field)) for model in models} == set(get_args(union))
    for field in ("architecture", "norm_placement", "tie_embeddings", "skip_first_norm"):
        drawn = {getattr(model, field) for model in models}
        assert len(drawn) == (3 if field in ("architecture", "norm_placement") else 2)


def test_parameters_come_in_the_order_of_the_models_story():
    first_names = list(dict.fromkeys(spec.path[0] for spec in parameters(T5)))
    assert first_names == ["token_embedding", "encoder", "decoder", "head"]
    in_bert = [spec.path[0] for spec in parameters(BERT)]
    assert list(dict.fromkeys(in_bert)) == [
        "token_embedding",
        "encoder_embedding",
        "encoder",
        "head",
    ]


BERT = ModelConfig(
    architecture="encoder_only",
    vocab_size=30_522,
    emb_dim=768,
    num_layers=12,
    attention=AttentionConfig(
        num_heads=12, num_kv_heads=12, head_dim=64, use_qkv_bias=True, use_out_bias=True
    ),
    position=LearnedPositionConfig(num_positions=512),
    norm=LayerNormConfig(epsilon=1e-12),
    norm_placement="post",
    mlp=GELUConfig(mlp_dim=3072),
    embedding=EmbeddingConfig(num_token_types=2, use_norm=True),
    head=MaskedLMHeadConfig(),
)
T5 = ModelConfig(
    architecture="encoder_decoder", num_encoder_layers=2, num_layers=3, tie_embeddings=False
)


def test_bert_bases_kernels_by_hand():
    layers = 12 * (4 * 768**2 + 2 * 768 * 3072)
    assert matmul_params(BERT) == layers + 768**2 + 768 * 30_522
    biases_and_norms = 12 * (4 * 768 + 3072 + 768 + 2 * 2 * 768)
    tables = (30_522 + 512 + 2 + 2) * 768  # tokens, positions, types, the norm of their sum
    head = 768**2 + 768 + 2 * 768 + 30_522
    assert total_params(BERT) == layers + biases_and_norms + tables + head
    assert total_params(BERT) == 109_514_298  # as published


def test_without_a_head_the_table_multiplies_nothing():
    headless = replace(BERT, head=NoHeadConfig())
    assert matmul_params(headless) == 12 * (4 * 768**2 + 2 * 768 * 3072)
    assert {spec.path[0] for spec in parameters(headless)} == {
        "token_embedding",
        "encoder_embedding",
        "encoder",
    }


def test_a_decoder_with_memory_has_twice_the_attention():
    attention, mlp = 4 * 128 * 128, 3 * 128 * 512
    encoder, decoder = 2 * (attention + mlp), 3 * (2 * attention + mlp)
    assert matmul_params(T5) == encoder + decoder + 2048 * 128
    assert [side.num_layers for side in sides(T5)] == [2, 3]


def test_only_the_experts_a_token_is_sent_to_are_active():
    expert = 3 * 128 * 512
    dense = ModelConfig(mlp=SwiGLUConfig(mlp_dim=512))
    mixture = replace(dense, mlp=MoEConfig(mlp_dim=512, num_experts=8, experts_per_token=2))
    router = 4 * 128 * 8
    assert total_params(mixture) == total_params(dense) + 4 * 7 * expert + router
    assert active_params(mixture) == total_params(dense) + 4 * expert + router
    assert matmul_params(mixture) == matmul_params(dense) + 4 * expert + router
    assert active_params(dense) == total_params(dense)
