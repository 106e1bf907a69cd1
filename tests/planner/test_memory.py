"""Bytes of every architecture against what the compiler and the cache really hold."""

from dataclasses import replace
from typing import Any

import jax
import pytest

from configs.data_config import DataConfig
from configs.mlp_config import MoEConfig
from configs.model_config import ModelConfig
from configs.objective_config import MaskedLMConfig, SpanCorruptionConfig
from configs.position_config import LearnedPositionConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from model.cache import empty_cache
from planner.memory import kv_cache_bytes, training_bytes
from tests.planner.test_flops import T5_SMALL
from tests.planner.test_parameters import BERT
from train.loop import abstract_batch
from train.mesh import make_mesh
from train.state import abstract_state
from train.step import make_train_step

SIZES: dict[str, Any] = {"emb_dim": 128, "num_layers": 4, "vocab_size": 2048}
BERT_RUN = RunConfig(
    model=replace(
        BERT,
        **SIZES,
        position=LearnedPositionConfig(num_positions=128),
        attention=replace(BERT.attention, num_heads=4, num_kv_heads=4, head_dim=32),
        mlp=replace(BERT.mlp, mlp_dim=512),
    ),
    objective=MaskedLMConfig(),
    data=DataConfig(seq_len=128),
    training=TrainingConfig(batch_size=32),
)
T5_RUN = replace(
    BERT_RUN,
    model=replace(
        T5_SMALL,
        **SIZES,
        num_encoder_layers=4,
        attention=replace(T5_SMALL.attention, num_heads=4, num_kv_heads=4, head_dim=32),
        mlp=replace(T5_SMALL.mlp, mlp_dim=344),
    ),
    objective=SpanCorruptionConfig(),
)
MOE_RUN = RunConfig(
    model=ModelConfig(**SIZES, mlp=MoEConfig(mlp_dim=344, num_experts=4)),
    data=DataConfig(seq_len=128),
    training=TrainingConfig(batch_size=32),
)


@pytest.mark.parametrize("config", [BERT_RUN, T5_RUN, MOE_RUN], ids=["bert", "t5", "mixture"])
def test_bytes_are_near_those_the_compiler_reports(config):
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
    memory = make_train_step(config, mesh).lower(state, batch).compile().memory_analysis()
    assert memory is not None
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    # First order: masks, copies in other layouts and what a dispatch sorts by are not counted.
    assert training_bytes(config).total == pytest.approx(held, rel=0.2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cache_with_memory_holds_both_sides_keys_and_values(dtype):
    model = replace(T5_RUN.model, compute_dtype=dtype)
    cache = jax.eval_shape(lambda: empty_cache(model, 3, 40, memory_slots=17))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))
    assert kv_cache_bytes(model, 3, 40, memory_length=17) == held
    assert kv_cache_bytes(BERT, 3, 40) == 0


def test_both_sides_activations_are_kept_until_the_encoders_turn():
    t5 = training_bytes(T5_RUN)
    shallow = replace(T5_RUN.model, num_encoder_layers=1)
    assert training_bytes(replace(T5_RUN, model=shallow)).activations < 0.5 * t5.activations
    remat = replace(T5_RUN, model=replace(T5_RUN.model, remat="full"))
    assert training_bytes(remat).activations < 0.2 * t5.activations
    # With rematerialisation the decoder is small: its rows have 30 places, the encoder's 128.
    assert training_bytes(remat).layer > t5.activations / 8


def test_the_expert_axis_cuts_the_experts_and_the_rows():
    cut = replace(MOE_RUN, mesh=MeshConfig(expert=4))
    whole, held = training_bytes(MOE_RUN), training_bytes(cut)
    experts = 4 * 4 * 3 * 4 * 128 * 344  # bytes of all layers' four experts
    assert held.params == whole.params - experts * 3 / 4
    assert held.activations < 0.27 * whole.activations
    assert held.logits == whole.logits / 4
