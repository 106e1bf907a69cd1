"""The planner's choice of attention kernels against the model's own, and the blocks they visit."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import pytest

from configs.data_config import DataConfig
from configs.model_config import AttentionConfig, ModelConfig
from configs.objective_config import PrefixLMConfig
from configs.position_config import AlibiConfig, RelativeBiasConfig
from configs.presets import PRESETS
from configs.schema import MeshConfig, RunConfig
from model.kernels import AttentionCase, choose_kernel
from model.kernels.blockwise import BLOCK, _Plan, _query_blocks
from model.masks import MaskSpec, row_places
from planner.attention_kernel import attention_kernel, kernel_pairs
from planner.parameters import Side, sides

LONG = replace(PRESETS["decoder_only/base_1b"](), data=DataConfig(seq_len=8192))
CONFIGS = {name: make() for name, make in PRESETS.items() if "/" in name} | {
    "sequence": replace(LONG, mesh=MeshConfig(sequence=128)),
    "prefix": replace(LONG, objective=PrefixLMConfig()),
    "alibi": replace(LONG, model=replace(LONG.model, position=AlibiConfig())),
    "odd": replace(LONG, data=DataConfig(seq_len=8191)),
}


def case_of(config: RunConfig, side: Side, platform: str, of_memory: bool) -> AttentionCase:
    """What the model would ask for."""
    m, lengths, a = config.model, config.lengths, config.model.attention
    own = not of_memory
    return AttentionCase(
        platform=platform,
        dtype=m.compute_dtype,
        L=side.length(lengths),
        M=side.length(lengths) if own else lengths.encoder_length,
        H=a.num_heads,
        K=a.num_kv_heads,
        C=a.head_dim,
        causal=side.is_causal and own,
        softcap=a.logit_softcap,
        has_bias=own and isinstance(m.position, RelativeBiasConfig | AlibiConfig),
        has_prefix=own and side.is_causal and lengths.has_prefix,
        length_shards=config.mesh.rules.shards("length", config.mesh.axis_sizes),
    )


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_planner_counts_on_the_kernel_that_the_model_takes(platform: Any):
    for name, config in CONFIGS.items():
        for side in sides(config.model):
            for of_memory in (False, True) if side.reads_memory else (False,):
                case = case_of(config, side, platform, of_memory)
                taken = choose_kernel(config.model.attention.kernel, case).kernel
                planned = attention_kernel(config, side, platform, of_memory=of_memory)
                assert planned == taken, (name, side.name, of_memory)


def test_long_rows_meet_every_kernel():
    (side,) = sides(LONG.model)
    by_platform = {p: attention_kernel(LONG, side, p) for p in ("cpu", "gpu", "tpu")}
    assert by_platform == {"cpu": "blockwise", "gpu": "cudnn", "tpu": "splash"}


@pytest.mark.parametrize("length", [384, 1024, 3000, 16_384])
@pytest.mark.parametrize("window", [0, 700])
def test_blockwise_pairs_are_those_of_its_blocks(length, window):
    attention = AttentionConfig(
        window=window, layer_pattern=("window",) if window else ("full",), kernel="blockwise"
    )
    config = RunConfig(model=ModelConfig(attention=attention), data=DataConfig(seq_len=length))
    block = min(BLOCK, length)
    plan = _Plan(MaskSpec(causal=True, window=window), 0.0, block, False)
    places = row_places(jnp.ones((1, length), jnp.int32))
    places = places._replace(key_slots_M=jnp.arange(-(-length // block) * block))
    rows = _query_blocks(plan, places)
    visited = sum((of.stop - of.start) * of.num_blocks * block for of in rows)
    (side,) = sides(config.model)
    assert kernel_pairs(config, side, "blockwise", is_window=window > 0) == visited
