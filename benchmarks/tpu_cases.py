"""Train steps that are compiled for TPUs: what runs where, and what MaxText is told to match it.

Pure data. Each case is one step of one optimizer update, without microbatches unless it says so;
the yardstick's three (`MAXTEXT_CASES`) have MaxText's own batch, sequence and full remat.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig
from configs.position_config import NoScalingConfig, RopeConfig
from configs.presets.bert import bert_large
from configs.presets.llama import llama3_8b
from configs.presets.mixtral import mixtral_8x7b
from configs.presets.t5 import t5_large
from configs.schema import MeshConfig, RunConfig


@dataclass(frozen=True, kw_only=True)
class TpuCase:
    """A config on a grid of chips.

    Attributes:
      config: builds the config; its mesh is the whole topology.
      topology: one slice, as `planner.topology.parse_topology` reads it.
      num_slices: so many of them.
      maxtext: MaxText's own settings for the same step; () where there is no such comparison.
    """

    name: str
    config: Callable[[], RunConfig]
    topology: str
    num_slices: int = 1
    maxtext: tuple[str, ...] = ()


def llama3_8b_v5p_64() -> RunConfig:
    """8.03B parameters on 32 chips, two rows of 8,192 tokens each."""
    return _on(llama3_8b(), MeshConfig(fsdp=32), batch_size=64)


def llama3_8b_v6e_64() -> RunConfig:
    """8.03B parameters on 64 chips, one row of 8,192 tokens each."""
    return _on(llama3_8b(), MeshConfig(fsdp=64), batch_size=64)


def llama3_70b_v5p_256() -> RunConfig:
    """70.6B parameters on 128 chips, one row of 8,192 tokens each."""
    return _on(_llama3_70b(), MeshConfig(fsdp=128), batch_size=128)


def llama3_70b_two_slices() -> RunConfig:
    """70.6B parameters on two slices of 64 chips, copies of the parameters on either."""
    return _on(_llama3_70b(), MeshConfig(replica=2, fsdp=64), batch_size=128)


def llama3_405b_v5p_4096() -> RunConfig:
    """405.9B parameters on 2,048 chips, one row of 8,192 tokens each: the paper's 16M tokens."""
    config = _llama(
        "llama3_405b", emb_dim=16_384, num_layers=126, num_heads=128, mlp_dim=53_248
    )  # arXiv 2407.21783, table 3
    return _on(config, MeshConfig(data=4, fsdp=512), batch_size=2048)


def llama2_7b_v5p_64() -> RunConfig:
    """6.7B parameters (Touvron et al. 2023, arXiv 2307.09288) on 32 chips, 4M tokens a step."""
    config = _llama(
        "llama2_7b", emb_dim=4096, num_layers=32, num_heads=32, mlp_dim=11_008, num_kv_heads=32
    )
    model = replace(
        config.model,
        vocab_size=32_000,
        position=RopeConfig(theta=10_000.0, scaling=NoScalingConfig()),
    )
    config = replace(config, model=model, data=replace(config.data, seq_len=4096))
    return _on(config, MeshConfig(fsdp=32), batch_size=1024, num_microbatches=8)


def mixtral_8x7b_v5p_128() -> RunConfig:
    """46.7B parameters on 64 chips, an expert of each layer on every eighth of them."""
    return _on(mixtral_8x7b(), MeshConfig(fsdp=8, expert=8), batch_size=64)


def t5_xxl_v5p_64() -> RunConfig:
    """11.1B parameters (google/t5-v1_1-xxl) on 32 chips, 2,048 rows of 512 in four parts."""
    large = t5_large()
    model = replace(
        large.model,
        emb_dim=4096,
        attention=replace(large.model.attention, num_heads=64, num_kv_heads=64),
        mlp=replace(large.model.mlp, mlp_dim=10_240),
    )
    config = replace(large, name="t5_xxl", model=model)
    return _on(config, MeshConfig(fsdp=32), batch_size=2048, num_microbatches=4)


def bert_large_v5e_16() -> RunConfig:
    """335M parameters on 16 chips, the paper's 256 rows of 512, copies of the parameters on all."""
    return _on(bert_large(), MeshConfig(data=16), batch_size=256)


def _on(
    config: RunConfig, mesh: MeshConfig, *, batch_size: int, num_microbatches: int = 1
) -> RunConfig:
    training = replace(config.training, batch_size=batch_size, num_microbatches=num_microbatches)
    return replace(config, mesh=mesh, training=training)


def _llama3_70b() -> RunConfig:
    return _llama("llama3_70b", emb_dim=8192, num_layers=80, num_heads=64, mlp_dim=28_672)


def _llama(
    name: str,
    *,
    emb_dim: int,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    num_kv_heads: int = 8,
) -> RunConfig:
    """Another size of the 8B preset; heads are 128 wide in all of them."""
    config = llama3_8b()
    model = replace(
        config.model,
        emb_dim=emb_dim,
        num_layers=num_layers,
        attention=AttentionConfig(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=128),
        mlp=SwiGLUConfig(mlp_dim=mlp_dim),
    )
    return replace(config, name=name, model=model)


def _maxtext(model: str, topology: str, rows_per_chip: int) -> tuple[str, ...]:
    return (
        f"model_name={model}",
        f"compile_topology={topology}",
        "compile_topology_num_slices=1",
        f"per_device_batch_size={rows_per_chip}",
        "max_target_length=8192",
        "remat_policy=full",
        "attention=flash",
        "ici_fsdp_parallelism=-1",
        "weight_dtype=float32",
        "dtype=bfloat16",
        "dataset_type=synthetic",
        "enable_checkpointing=false",
    )


CASES = (
    TpuCase(
        name="8b-v5p-64",
        config=llama3_8b_v5p_64,
        topology="v5p:2x4x4",
        maxtext=_maxtext("llama3.1-8b", "v5p-64", 2),
    ),
    TpuCase(
        name="8b-v6e-64",
        config=llama3_8b_v6e_64,
        topology="v6e:8x8",
        maxtext=_maxtext("llama3.1-8b", "v6e-64", 1),
    ),
    TpuCase(
        name="70b-v5p-256",
        config=llama3_70b_v5p_256,
        topology="v5p:4x4x8",
        maxtext=_maxtext("llama3.1-70b", "v5p-256", 1),
    ),
    TpuCase(
        name="70b-2xv5p-128",
        config=llama3_70b_two_slices,
        topology="v5p:4x4x4",
        num_slices=2,
    ),
    TpuCase(name="405b-v5p-4096", config=llama3_405b_v5p_4096, topology="v5p:16x16x8"),
    TpuCase(name="7b-v5p-64", config=llama2_7b_v5p_64, topology="v5p:2x4x4"),
    TpuCase(name="8x7b-v5p-128", config=mixtral_8x7b_v5p_128, topology="v5p:4x4x4"),
    TpuCase(name="t5-xxl-v5p-64", config=t5_xxl_v5p_64, topology="v5p:2x4x4"),
    TpuCase(name="bert-large-v5e-16", config=bert_large_v5e_16, topology="v5e:4x4"),
)

MAXTEXT_CASES = tuple(case for case in CASES if case.maxtext)
