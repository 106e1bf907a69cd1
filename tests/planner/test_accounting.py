"""Counts by hand, and how memory falls with the mesh."""

import math
from dataclasses import replace
from typing import Any

import jax
import optax
import pytest

from configs.presets import PRESETS
from configs.schema import (
    AttentionConfig,
    DataConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
    SwiGLUConfig,
    TrainingConfig,
)
from planner.accounting import (
    matmul_params,
    total_params,
    training_bytes,
    training_flops_per_token,
)
from train.mesh import make_mesh
from train.state import abstract_state

MODEL = ModelConfig(
    vocab_size=100,
    emb_dim=8,
    num_layers=3,
    attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=4),
    mlp=SwiGLUConfig(mlp_dim=20),
)
# Per layer: query 8·16, key and value 8·8 each, out 16·8, three MLP matrices of 8·20.
LAYER_MATRICES = 128 + 64 + 64 + 128 + 3 * 160


def test_tied_table_counts_once_and_as_the_head():
    assert matmul_params(MODEL) == 3 * LAYER_MATRICES + 800
    assert total_params(MODEL) == 3 * (LAYER_MATRICES + 2 * 8) + 8 + 800


def test_untied_look_up_table_is_no_matmul_parameter():
    untied = replace(MODEL, tie_embeddings=False)
    assert matmul_params(untied) == matmul_params(MODEL)
    assert total_params(untied) == total_params(MODEL) + 800


def test_flops_are_six_per_matmul_parameter_plus_causal_attention():
    flops = training_flops_per_token(MODEL, seq_len=32)
    attention = 12 * 3 * (4 * 4) * 32 / 2
    assert flops.total == 6 * matmul_params(MODEL) + attention
    assert flops.head == 6 * 800
    palm = training_flops_per_token(MODEL, seq_len=32, causal=False)
    assert palm.total - flops.total == attention


def run_config(**mesh: Any) -> RunConfig:
    return RunConfig(
        model=ModelConfig(emb_dim=128, num_layers=4, compute_dtype="bfloat16"),
        data=DataConfig(seq_len=128),
        mesh=MeshConfig(**mesh),
        training=TrainingConfig(batch_size=32),
    )


def test_state_is_sixteen_bytes_a_parameter_on_one_device():
    config = run_config()
    held, params = training_bytes(config), total_params(config.model)
    assert (held.params, held.optimizer, held.gradients) == (4 * params, 8 * params, 4 * params)
    assert held.total == sum(
        (held.params, held.optimizer, held.gradients, held.activations, held.logits)
    )


def test_fsdp_cuts_state_and_data_only_activations():
    one, data, fsdp = run_config(), run_config(data=8), run_config(fsdp=8)
    whole, replicated, cut = map(training_bytes, (one, data, fsdp))
    assert replicated.params == whole.params
    # Norm scales stay whole; everything else is cut in eight.
    assert whole.params / 8 <= cut.params < whole.params / 8 + 4 * 128 * 9
    assert replicated.activations == cut.activations == whole.activations // 8


def test_remat_and_microbatches_lower_what_a_step_holds():
    config = run_config()
    remat = replace(config, model=replace(config.model, remat="full"))
    parts = replace(config, training=replace(config.training, num_microbatches=4))
    assert training_bytes(remat).activations < training_bytes(config).activations
    assert training_bytes(parts).activations == training_bytes(config).activations // 4
    assert training_bytes(parts).gradients == 2 * training_bytes(config).gradients


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_causal_blocks_visit_the_share_of_the_square_they_say(blocks):
    attention = AttentionConfig(causal_blocks=blocks)
    config = replace(run_config(), model=replace(run_config().model, attention=attention))
    whole = training_bytes(run_config()).activations
    tokens, heads, item, layers = 32 * 128, 4, 2, 4
    square = tokens * layers * item * 2 * heads * 128
    skipped = square * (1 - (blocks + 1) / (2 * blocks))
    assert training_bytes(config).activations == pytest.approx(whole - skipped)


@pytest.mark.parametrize(
    "mesh",
    [{}, {"data": 8}, {"fsdp": 8}, {"tensor": 4, "data": 2}, {"fsdp": 2, "tensor": 4}],
    ids=str,
)
def test_state_is_counted_to_the_byte_on_every_mesh(mesh):
    config = run_config(**mesh)
    devices = jax.devices()[: config.mesh.num_devices]
    state = abstract_state(config, make_mesh(config.mesh, devices))

    def held_bytes(tree) -> int:
        shards = [leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(tree)]
        return 4 * sum(math.prod(shard) for shard in shards)

    held = training_bytes(config)
    assert held.params == held_bytes(state.params)
    moments = [optax.tree.get(state.opt_state, name) for name in ("mu", "nu")]
    assert held.optimizer == held_bytes(moments)


def test_a_presets_counts_are_known():
    # 1.04B as its docstring says: 16 layers of 4 matrices and 3, one table.
    model = PRESETS["decoder_only/base_1b"]().model
    attention = 2 * 2048 * 2048 + 2 * 2048 * 8 * 64
    layers = 16 * (attention + 3 * 2048 * 8192)
    assert matmul_params(model) == layers + 32_768 * 2048
    assert total_params(model) == matmul_params(model) + 33 * 2048
