"""Mixtral (Jiang et al. 2024, arXiv 2401.04088)."""

from configs.data_config import DataConfig
from configs.mlp_config import MoEConfig
from configs.model_config import AttentionConfig, ModelConfig, NormalInitConfig
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.position_config import RopeConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig


def mixtral_8x7b() -> RunConfig:
    """46.7B parameters of which a token uses 12.9B, 258B tokens in rows of 8,192.

    The shape is the released checkpoint's, its weight of the load-balance loss too. The paper
    says nothing of data, batches or optimizer: batches of 4M tokens, 20 tokens a parameter in use
    (Hoffmann et al. 2022, arXiv 2203.15556) and the learning rate are ours.

    Command: `isoflop train decoder_only/mixtral_8x7b --data.corpus PATH`; on 64 hosts
    `--mesh.data 16 --mesh.fsdp 4 --mesh.expert 8 --training.num-microbatches 1`.
    Hardware: 32 accelerators with 80 GB hold it (mesh expert=8 fsdp=4); about 48,000 A100-hours.
    Source: mistralai/Mixtral-8x7B-v0.1.
    """
    return RunConfig(
        name="mixtral_8x7b",
        model=ModelConfig(
            vocab_size=32_000,
            emb_dim=4096,
            num_layers=32,
            attention=AttentionConfig(num_heads=32, num_kv_heads=8, head_dim=128),
            position=RopeConfig(theta=1_000_000.0),
            mlp=MoEConfig(
                mlp_dim=14_336,
                num_experts=8,
                experts_per_token=2,
                balance_loss=0.02,
                router_z_loss=0.0,
            ),
            tie_embeddings=False,
            init=NormalInitConfig(stddev=0.02),
            compute_dtype="bfloat16",
            remat="full",
        ),
        data=DataConfig(seq_len=8192),
        optimizer=AdamWConfig(learning_rate=3e-4, schedule=CosineConfig(warmup_steps=2_000)),
        mesh=MeshConfig(fsdp=4, expert=8),
        training=TrainingConfig(
            num_steps=61_500,
            batch_size=512,
            num_microbatches=16,
            z_loss=0.0,
            eval_every=1000,
            eval_tokens=4_194_304,
            checkpoint_every=1000,
            keep_every=10_000,
        ),
    )
