"""ModernBERT (Warner et al. 2024, arXiv 2412.13663), both published sizes.

Shapes are the released checkpoints'. Of the training, this is the paper's first and longest phase:
1.7T tokens in rows of 1,024, its learning rates, warm-ups and batches. Differences: AdamW clipped
to norm 1 stands in for StableAdamW; the batch does not grow; the decay, which the paper has after
a phase in rows of 8,192, comes at the end; RoPE's base in full layers is the released models',
which stood at 10,000 in this phase.
"""

from configs.data_config import BestFitConfig, DataConfig
from configs.mlp_config import GEGLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    NormalInitConfig,
)
from configs.objective_config import MaskedLMConfig
from configs.optimizer_config import AdamWConfig, WarmupStableDecayConfig
from configs.position_config import RopeConfig
from configs.schema import RunConfig, TrainingConfig


def modernbert_base() -> RunConfig:
    """150M parameters, 1.7T tokens.

    Command: `isoflop train encoder_only/modernbert_base --data.corpus PATH`; on eight hosts
    `--mesh.data 64 --training.num-microbatches 2`.
    Hardware: one 80 GB accelerator holds it; about 3,700 A100-hours.
    Source: answerdotai/ModernBERT-base.
    """
    return _modernbert(
        "modernbert_base",
        emb_dim=768,
        num_layers=22,
        num_heads=12,
        mlp_dim=1152,
        learning_rate=8e-4,
        warmup_steps=636,
        num_steps=360_000,
        batch_size=4608,
        num_microbatches=144,
    )


def modernbert_large() -> RunConfig:
    """396M parameters, 1.7T tokens.

    The paper's run went back at 900B tokens, to go on with a tenth of the learning rate.

    Command: `isoflop train encoder_only/modernbert_large --data.corpus PATH`; on eight hosts
    `--mesh.data 64 --training.num-microbatches 7`.
    Hardware: one 80 GB accelerator holds it; about 9,600 A100-hours.
    Source: answerdotai/ModernBERT-large.
    """
    return _modernbert(
        "modernbert_large",
        emb_dim=1024,
        num_layers=28,
        num_heads=16,
        mlp_dim=2624,
        learning_rate=5e-4,
        warmup_steps=396,
        num_steps=337_000,
        batch_size=4928,
        num_microbatches=308,
    )


def _modernbert(
    name: str,
    *,
    emb_dim: int,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    learning_rate: float,
    warmup_steps: int,
    num_steps: int,
    batch_size: int,
    num_microbatches: int,
) -> RunConfig:
    return RunConfig(
        name=name,
        model=ModelConfig(
            architecture="encoder_only",
            vocab_size=50_368,
            emb_dim=emb_dim,
            num_layers=num_layers,
            attention=AttentionConfig(
                num_heads=num_heads,
                num_kv_heads=num_heads,
                head_dim=64,
                window=65,  # 64 places to either side
                layer_pattern=("full", "window", "window"),
            ),
            position=RopeConfig(theta=160_000.0, local_theta=10_000.0),
            norm=LayerNormConfig(epsilon=1e-5, use_bias=False),
            skip_first_norm=True,
            mlp=GEGLUConfig(mlp_dim=mlp_dim, gelu="exact"),
            embedding=EmbeddingConfig(use_norm=True),
            head=MaskedLMHeadConfig(use_dense_bias=False, gelu="exact"),
            init=NormalInitConfig(stddev=0.02, scale_residual=True),
            compute_dtype="bfloat16",
            remat="full",
        ),
        objective=MaskedLMConfig(mask_rate=0.3),
        data=DataConfig(seq_len=1024, packing=BestFitConfig()),
        optimizer=AdamWConfig(
            learning_rate=learning_rate,
            b2=0.98,
            epsilon=1e-6,
            weight_decay=1e-5,
            schedule=WarmupStableDecayConfig(warmup_steps=warmup_steps, decay_fraction=0.03),
        ),
        training=TrainingConfig(
            num_steps=num_steps,
            batch_size=batch_size,
            num_microbatches=num_microbatches,
            z_loss=0.0,
            eval_every=1000,
            eval_tokens=1_048_576,
            checkpoint_every=1000,
            keep_every=20_000,
        ),
    )
