"""Counts by hand, and how memory falls with the mesh."""

import math
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import jax
import optax
import pytest

from configs.data_config import DataConfig
from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig
from configs.optimizer_config import MuonConfig
from configs.presets import PRESETS
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from model.cache import empty_cache
from planner.accounting import (
    chinchilla_params,
    executed_flops_per_step,
    forward_flops_chinchilla,
    kv_cache_bytes,
    matmul_params,
    total_params,
    training_bytes,
    training_flops_per_token,
)
from train.mesh import make_mesh
from train.programs import abstract_batch
from train.state import abstract_state
from train.step import make_train_step

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
    flops = training_flops_per_token(MODEL, 32)
    attention = 12 * 3 * (4 * 4) * 32 / 2
    assert flops.total == 6 * matmul_params(MODEL) + attention
    assert flops.head == 6 * 800
    palm = training_flops_per_token(MODEL, 32, causal=False)
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
    tokens, heads, layers = 32 * 128, 4, 4
    square = tokens * layers * (4 + 2) * heads * 128  # softmax in fp32, weights in bf16
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


def test_the_look_up_multiplies_nothing_and_components_sum_up():
    flops = training_flops_per_token(MODEL, 32)
    assert flops.embedding == 0.0
    assert flops.total == sum(asdict(flops).values())


def test_executed_flops_are_the_models_with_attention_over_the_whole_square():
    config = run_config()
    executed = executed_flops_per_step(config)
    model = training_flops_per_token(config.model, config.data.seq_len, causal=False)
    assert executed.total == pytest.approx(model.total * config.batch_tokens, rel=1e-12)
    assert (executed.recomputation, executed.optimizer) == (0.0, 0.0)


def test_remat_repeats_every_forward_product_of_a_layer_but_its_last():
    config = run_config()
    remat = replace(config, model=replace(config.model, remat="full"))
    once, twice = executed_flops_per_step(config), executed_flops_per_step(remat)
    layers_forward = (once.attention_projections + once.attention_scores + once.mlp) / 3
    down = 2 * config.batch_tokens * 4 * 512 * 128
    assert twice.recomputation == pytest.approx(layers_forward - down, rel=1e-12)
    assert twice.total == pytest.approx(once.total + twice.recomputation, rel=1e-12)


def test_muons_products_are_counted_once_a_step_whatever_the_batch():
    small = replace(run_config(), optimizer=MuonConfig())
    large = replace(small, training=replace(small.training, batch_size=64))
    # Per iteration and layer: four square matrices of 128, three MLP matrices of 128 by 512.
    square, mlp = 3 * 128**3, 2 * 128 * 128 * 512 + 128**3
    by_hand = 5 * 4 * 2 * (4 * square + 3 * mlp)
    assert executed_flops_per_step(small).optimizer == by_hand
    assert executed_flops_per_step(large).optimizer == by_hand


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kv_cache_bytes_are_those_of_the_empty_cache(dtype):
    model = replace(MODEL, compute_dtype=dtype)
    cache = jax.eval_shape(lambda: empty_cache(model, 3, 40))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))
    assert kv_cache_bytes(model, 3, 40) == held
    assert kv_cache_bytes(model, 3, 40, item_bytes=2) == kv_cache_bytes(
        replace(MODEL, compute_dtype="bfloat16"), 3, 40
    )


@pytest.mark.parametrize(
    ("millions", "layers", "d", "f", "heads", "kv"),
    [
        (44, 8, 512, 2048, 8, 64),
        (57, 9, 576, 2304, 9, 64),
        (74, 10, 640, 2560, 10, 64),
        (90, 13, 640, 2560, 10, 64),
    ],
)
def test_chinchilla_counts_reproduce_the_papers_table(millions, layers, d, f, heads, kv):
    # Hoffmann et al. 2022, table A9, first rows, printed to the million.
    assert round(chinchilla_params(layers=layers, d=d, f=f, heads=heads, kv=kv) / 1e6) == millions


def test_chinchilla_forward_flops_by_hand():
    count = partial(
        forward_flops_chinchilla, layers=2, d=8, f=16, heads=2, kv=4, vocab=10, seq_len=6
    )
    # Per layer: QKV 3·2·6·8·8, scores and values 2·2·36·8, softmax 3·2·36, output 2·6·8·8,
    # feed-forward 4·6·8·16.
    layer = 2304 + 1152 + 216 + 768 + 3072
    assert count(embeddings_and_logits=False) == 2 * layer
    assert count() == 2 * layer + 2 * 960


def test_muon_keeps_one_moment_of_the_layers_matrices():
    config = replace(run_config(), optimizer=MuonConfig())
    matrices = matmul_params(config.model) - 2048 * 128
    held = training_bytes(config)
    assert held.optimizer == 4 * (2 * total_params(config.model) - matrices)


@pytest.mark.parametrize(
    ("remat", "microbatches", "mesh"),
    [("none", 1, {}), ("full", 2, {}), ("none", 1, {"fsdp": 4, "tensor": 2})],
    ids=str,
)
def test_bytes_are_near_those_the_compiler_reports(remat, microbatches, mesh):
    config = run_config(**mesh)
    config = replace(
        config,
        model=replace(config.model, compute_dtype="float32", remat=remat),
        training=replace(config.training, num_microbatches=microbatches),
    )
    devices = jax.devices()[: config.mesh.num_devices]
    built = make_mesh(config.mesh, devices)
    state, batch = abstract_state(config, built), abstract_batch(config, built)
    memory = make_train_step(config, built).lower(state, batch).compile().memory_analysis()
    assert memory is not None
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    # First order: the compiler also holds masks, angles and copies in other layouts.
    assert training_bytes(config).total == pytest.approx(held, rel=0.12)
