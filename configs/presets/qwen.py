"""Qwen3 (Yang et al. 2025, arXiv 2505.09388), two of its published sizes.

Shapes are the released base checkpoints', RoPE's base included, which stood at 10,000 until the
last, long-context stage. Rows of 4,096 and 36T tokens are the report's (section 3.2); batches of
4M tokens, learning rates and schedule, which it does not give, are ours.
"""

from configs.data_config import DataConfig
from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig, NormalInitConfig, RMSNormConfig
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.position_config import RopeConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig


def qwen3_0_6b() -> RunConfig:
    """596M parameters, 36T tokens in rows of 4,096.

    Command: `isoflop train decoder_only/qwen3_0_6b --data.corpus PATH`; on eight devices add
    `--mesh.data 8 --training.num-microbatches 64`.
    Hardware: one 80 GB accelerator holds it; about 400,000 A100-hours.
    Source: Qwen/Qwen3-0.6B-Base.
    """
    return _qwen3(
        "qwen3_0_6b",
        emb_dim=1024,
        num_layers=28,
        num_heads=16,
        mlp_dim=3072,
        tie_embeddings=True,
        learning_rate=6e-4,
        mesh=MeshConfig(),
        num_microbatches=512,
    )


def qwen3_8b() -> RunConfig:
    """8.19B parameters, 36T tokens in rows of 4,096.

    Command: `isoflop train decoder_only/qwen3_8b --data.corpus PATH`; on 128 hosts
    `--mesh.data 128 --mesh.fsdp 8 --training.num-microbatches 1`.
    Hardware: eight 80 GB accelerators hold it (mesh fsdp=8); about 3.9M A100-hours.
    Source: Qwen/Qwen3-8B-Base.
    """
    return _qwen3(
        "qwen3_8b",
        emb_dim=4096,
        num_layers=36,
        num_heads=32,
        mlp_dim=12_288,
        tie_embeddings=False,
        learning_rate=3e-4,
        mesh=MeshConfig(fsdp=8),
        num_microbatches=128,
    )


def _qwen3(
    name: str,
    *,
    emb_dim: int,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    tie_embeddings: bool,
    learning_rate: float,
    mesh: MeshConfig,
    num_microbatches: int,
) -> RunConfig:
    return RunConfig(
        name=name,
        model=ModelConfig(
            vocab_size=151_936,
            emb_dim=emb_dim,
            num_layers=num_layers,
            attention=AttentionConfig(
                num_heads=num_heads, num_kv_heads=8, head_dim=128, qk_norm=True
            ),
            position=RopeConfig(theta=1_000_000.0),
            norm=RMSNormConfig(epsilon=1e-6),
            mlp=SwiGLUConfig(mlp_dim=mlp_dim),
            tie_embeddings=tie_embeddings,
            init=NormalInitConfig(stddev=0.02),
            compute_dtype="bfloat16",
            remat="full",
        ),
        data=DataConfig(seq_len=4096),
        optimizer=AdamWConfig(
            learning_rate=learning_rate, schedule=CosineConfig(warmup_steps=2_000)
        ),
        mesh=mesh,
        training=TrainingConfig(
            num_steps=8_583_000,
            batch_size=1024,
            num_microbatches=num_microbatches,
            z_loss=0.0,
            eval_every=1000,
            eval_tokens=4_194_304,
            checkpoint_every=1000,
            keep_every=50_000,
        ),
    )
