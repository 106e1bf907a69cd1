"""Gemma 2 (arXiv 2408.00118) and Gemma 3 (arXiv 2503.19786), the smallest text models of each.

Shapes are the released checkpoints'. Both learned from a teacher's logits on 2T tokens; here the
shapes are trained on the tokens themselves. Batches of 4M tokens, learning rates and schedule,
which the reports do not give, are ours.
"""

from configs.data_config import DataConfig
from configs.mlp_config import GEGLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LinearHeadConfig,
    ModelConfig,
    RMSNormConfig,
)
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.position_config import RopeConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig


def gemma2_2b() -> RunConfig:
    """2.61B parameters, 2T tokens in rows of 8,192; every other layer sees 4,096 tokens back.

    Command: `isoflop train decoder_only/gemma2_2b --data.corpus PATH`; on 64 hosts
    `--mesh.data 64 --mesh.fsdp 8 --training.num-microbatches 1`.
    Hardware: eight 80 GB accelerators (mesh fsdp=8; logits over 256,000 words need the room);
    about 80,000 A100-hours. Source: google/gemma-2-2b.
    """
    return _gemma(
        "gemma2_2b",
        ModelConfig(
            vocab_size=256_000,
            emb_dim=2304,
            num_layers=26,
            attention=AttentionConfig(
                num_heads=8,
                num_kv_heads=4,
                head_dim=256,
                window=4096,
                layer_pattern=("window", "full"),
                logit_softcap=50.0,
                query_scale=256**-0.5,
            ),
            norm=RMSNormConfig(epsilon=1e-6, scale_offset=1.0),
            norm_placement="sandwich",
            mlp=GEGLUConfig(mlp_dim=9216, gelu="tanh"),
            embedding=EmbeddingConfig(scale_by_width=True),
            head=LinearHeadConfig(logit_softcap=30.0),
            compute_dtype="bfloat16",
            remat="full",
        ),
        mesh=MeshConfig(fsdp=8),
        num_microbatches=64,
    )


def gemma3_1b() -> RunConfig:
    """1.00B parameters, 2T tokens in rows of 8,192; five of six layers see 512 tokens back.

    RoPE's base in full layers is the released model's, for its context of 32,768.

    Command: `isoflop train decoder_only/gemma3_1b --data.corpus PATH`; on eight devices add
    `--mesh.fsdp 8 --training.num-microbatches 64`.
    Hardware: one 80 GB accelerator holds it; about 28,000 A100-hours.
    Source: google/gemma-3-1b-pt.
    """
    return _gemma(
        "gemma3_1b",
        ModelConfig(
            vocab_size=262_144,
            emb_dim=1152,
            num_layers=26,
            attention=AttentionConfig(
                num_heads=4,
                num_kv_heads=1,
                head_dim=256,
                window=512,
                layer_pattern=("window", "window", "window", "window", "window", "full"),
                qk_norm=True,
                query_scale=256**-0.5,
            ),
            position=RopeConfig(theta=1_000_000.0, local_theta=10_000.0),
            norm=RMSNormConfig(epsilon=1e-6, scale_offset=1.0),
            norm_placement="sandwich",
            mlp=GEGLUConfig(mlp_dim=6912, gelu="tanh"),
            embedding=EmbeddingConfig(scale_by_width=True),
            compute_dtype="bfloat16",
            remat="full",
        ),
        mesh=MeshConfig(),
        num_microbatches=512,
    )


def _gemma(name: str, model: ModelConfig, *, mesh: MeshConfig, num_microbatches: int) -> RunConfig:
    return RunConfig(
        name=name,
        model=model,
        data=DataConfig(seq_len=8192),
        optimizer=AdamWConfig(learning_rate=3e-4, schedule=CosineConfig(warmup_steps=2_000)),
        mesh=mesh,
        training=TrainingConfig(
            num_steps=476_800,
            batch_size=512,
            num_microbatches=num_microbatches,
            z_loss=0.0,
            eval_every=1000,
            eval_tokens=4_194_304,
            checkpoint_every=1000,
            keep_every=50_000,
        ),
    )
