"""Llama 3 (Grattafiori et al. 2024, arXiv 2407.21783), two of its published sizes.

Shapes are the released checkpoints'. Of the optimizer the paper gives peak learning rates (table
3) and, for 405B, warm-up, decay and weight decay (section 3.4.1); batches of 4M tokens are where
405B arrived early on. The rest is ours.
"""

from configs.data_config import DataConfig
from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig, NormalInitConfig
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.position_config import Llama3ScalingConfig, NoScalingConfig, RopeConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig


def llama3_8b() -> RunConfig:
    """8.03B parameters, 15T tokens in rows of 8,192.

    Command: `isoflop train decoder_only/llama3_8b --data.corpus PATH`; on 128 hosts
    `--mesh.data 64 --mesh.fsdp 8 --training.num-microbatches 1`.
    Hardware: eight 80 GB accelerators hold it (mesh fsdp=8); about 1.7M A100-hours.
    Source: meta-llama/Meta-Llama-3-8B.
    """
    return RunConfig(
        name="llama3_8b",
        model=ModelConfig(
            vocab_size=128_256,
            emb_dim=4096,
            num_layers=32,
            attention=AttentionConfig(num_heads=32, num_kv_heads=8, head_dim=128),
            position=RopeConfig(theta=500_000.0, scaling=NoScalingConfig()),
            mlp=SwiGLUConfig(mlp_dim=14_336),
            tie_embeddings=False,
            init=NormalInitConfig(stddev=0.02),
            compute_dtype="bfloat16",
            remat="full",
        ),
        data=DataConfig(seq_len=8192),
        optimizer=AdamWConfig(
            learning_rate=3e-4, schedule=CosineConfig(warmup_steps=8_000, final_fraction=0.01)
        ),
        mesh=MeshConfig(fsdp=8),
        training=_training(num_steps=3_576_000, num_microbatches=64),
    )


def llama3_2_1b() -> RunConfig:
    """1.24B parameters, 9T tokens in rows of 8,192.

    The released model was pruned from 8B and learned from the logits of larger ones; here its
    shape is trained from nothing, on the most tokens its model card speaks of. Learning rate ours.

    Command: `isoflop train decoder_only/llama3_2_1b --data.corpus PATH`; on eight devices add
    `--mesh.fsdp 8 --training.num-microbatches 64`.
    Hardware: one 80 GB accelerator holds it; about 180,000 A100-hours.
    Source: meta-llama/Llama-3.2-1B.
    """
    return RunConfig(
        name="llama3_2_1b",
        model=ModelConfig(
            vocab_size=128_256,
            emb_dim=2048,
            num_layers=16,
            attention=AttentionConfig(num_heads=32, num_kv_heads=8, head_dim=64),
            position=RopeConfig(
                theta=500_000.0,
                scaling=Llama3ScalingConfig(
                    factor=32.0,
                    low_frequency_factor=1.0,
                    high_frequency_factor=4.0,
                    original_length=8192,
                ),
            ),
            mlp=SwiGLUConfig(mlp_dim=8192),
            init=NormalInitConfig(stddev=0.02),
            compute_dtype="bfloat16",
            remat="full",
        ),
        data=DataConfig(seq_len=8192),
        optimizer=AdamWConfig(
            learning_rate=3e-4, schedule=CosineConfig(warmup_steps=8_000, final_fraction=0.01)
        ),
        training=_training(num_steps=2_146_000, num_microbatches=512),
    )


def _training(num_steps: int, num_microbatches: int) -> TrainingConfig:
    """Batches of 512 rows; a microbatch has one row of each device."""
    return TrainingConfig(
        num_steps=num_steps,
        batch_size=512,
        num_microbatches=num_microbatches,
        z_loss=0.0,
        eval_every=1000,
        eval_tokens=4_194_304,
        checkpoint_every=1000,
        keep_every=50_000,
    )
