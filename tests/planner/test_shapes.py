"""Shapes grow with their target and keep their proportions, and whatever is no size."""

import math
from dataclasses import replace

import pytest

from configs.errors import InputError
from configs.model_config import ModelConfig, RMSNormConfig
from configs.position_config import RopeConfig
from planner.accounting import matmul_params, total_params
from planner.shapes import ACCELERATOR_TILE, CPU_TILE, shape_for, vocabulary_for

TEMPLATE = ModelConfig(position=RopeConfig(theta=77.0), norm=RMSNormConfig(epsilon=0.5))


def shape(params: float, tile=ACCELERATOR_TILE, **options) -> ModelConfig:
    options = {"template": TEMPLATE, "vocab_size": vocabulary_for(params)} | options
    return shape_for(params, tile=tile, **options)


@pytest.mark.parametrize(("tile", "low", "high"), [(CPU_TILE, 5, 8), (ACCELERATOR_TILE, 7, 11)])
def test_more_parameters_never_mean_a_smaller_model(tile, low, high):
    targets = [10 ** (low + i / 3) for i in range(3 * (high - low) + 1)]
    counts = [matmul_params(shape(target, tile)) for target in targets]
    assert counts == sorted(counts)
    # From ten million on, widths and layers are fine enough steps to come within a tenth.
    for target, count in zip(targets, counts, strict=True):
        assert count == pytest.approx(target, rel=0.1 if target >= 1e7 else 0.3)


@pytest.mark.parametrize("params", [1e6, 3e7, 1e9, 7e10])
def test_width_per_layer_stays_near_published_ratios(params):
    config = shape(params)
    assert 20 <= config.emb_dim / config.num_layers <= 210
    assert config.attention.head_dim in range(32, 257)
    assert config.mlp.mlp_dim == pytest.approx(config.emb_dim * 8 / 3, abs=128)


def test_the_target_is_met_in_the_definition_asked_for():
    as_matmul, as_total = shape(1e8), shape(1e8, count=total_params)
    assert matmul_params(as_matmul) == pytest.approx(1e8, rel=0.1)
    assert total_params(as_total) == pytest.approx(1e8, rel=0.1)
    untied = replace(TEMPLATE, tie_embeddings=False)
    assert matmul_params(shape(1e8, template=untied, count=total_params)) < 0.95e8


def test_all_but_sizes_is_the_templates():
    config = shape(1e7)
    assert (config.position, config.norm) == (TEMPLATE.position, TEMPLATE.norm)
    assert config.vocab_size == vocabulary_for(1e7)
    assert config.tie_embeddings == TEMPLATE.tie_embeddings


def test_wide_models_share_keys_and_values_where_heads_allow():
    # Eight groups, in models from 2048 wide whose heads divide by eight.
    attentions = [shape(params).attention for params in (1e8, 1e9, 4e9, 5e9)]
    assert [a.num_kv_heads for a in attentions[:2]] == [a.num_heads for a in attentions[:2]]
    assert any(a.num_kv_heads == 8 < a.num_heads for a in attentions)
    for attention in attentions[2:]:
        groups = 8 if attention.num_heads % 8 == 0 else attention.num_heads
        assert attention.num_kv_heads == groups


def test_larger_models_get_larger_vocabularies():
    sizes = [vocabulary_for(10**exponent) for exponent in range(5, 12)]
    assert sizes == sorted(sizes)
    assert all(math.log2(size).is_integer() for size in sizes)


def test_the_smallest_shape_is_named_when_the_target_is_below_it():
    message = r"^budget: got a model of 1,000 parameters, expected at least ([\d,]+) \(one layer"
    with pytest.raises(InputError, match=message):
        shape(1000, CPU_TILE)
