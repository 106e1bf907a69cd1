"""BART (Lewis et al. 2019, arXiv 1910.13461), both published sizes.

Shapes are the released checkpoints'; their `final_logits_bias`, a constant of zeros, is the head's
bias here and learned. Text infilling over 30% of the tokens, permuted sentences, 500,000 steps and
batches of 8,000 are the paper's (section 5), where it speaks of the large model; the base model's
training is not published. The optimizer, which it does not give either, is RoBERTa's of the same
size (arXiv 1907.11692, table 9). No dropout.
"""

from configs.data_config import DataConfig
from configs.mlp_config import GELUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    LinearHeadConfig,
    ModelConfig,
    NormalInitConfig,
)
from configs.objective_config import DenoisingConfig
from configs.optimizer_config import AdamWConfig, WarmupStableDecayConfig
from configs.position_config import LearnedPositionConfig
from configs.schema import RunConfig, TrainingConfig


def bart_base() -> RunConfig:
    """139M parameters, 500,000 steps of 8,000 rows: 2.0T tokens.

    Command: `isoflop train encoder_decoder/bart_base --data.corpus PATH`; on eight hosts
    `--mesh.data 64 --training.num-microbatches 5`.
    Hardware: one 80 GB accelerator holds it; about 4,100 A100-hours.
    Source: facebook/bart-base.
    """
    return _bart(
        "bart_base",
        emb_dim=768,
        num_layers=6,
        num_heads=12,
        learning_rate=6e-4,
        warmup_steps=24_000,
    )


def bart_large() -> RunConfig:
    """406M parameters, 500,000 steps of 8,000 rows: 2.0T tokens.

    Command: `isoflop train encoder_decoder/bart_large --data.corpus PATH`; on eight hosts
    `--mesh.data 64 --training.num-microbatches 5`.
    Hardware: one 80 GB accelerator holds it; about 12,000 A100-hours.
    Source: facebook/bart-large.
    """
    return _bart(
        "bart_large",
        emb_dim=1024,
        num_layers=12,
        num_heads=16,
        learning_rate=4e-4,
        warmup_steps=30_000,
    )


def _bart(
    name: str,
    *,
    emb_dim: int,
    num_layers: int,
    num_heads: int,
    learning_rate: float,
    warmup_steps: int,
) -> RunConfig:
    num_steps = 500_000
    return RunConfig(
        name=name,
        model=ModelConfig(
            architecture="encoder_decoder",
            vocab_size=50_265,
            emb_dim=emb_dim,
            num_layers=num_layers,
            num_encoder_layers=num_layers,
            attention=AttentionConfig(
                num_heads=num_heads,
                num_kv_heads=num_heads,
                head_dim=64,
                use_qkv_bias=True,
                use_out_bias=True,
            ),
            position=LearnedPositionConfig(num_positions=1026, offset=2),
            norm=LayerNormConfig(epsilon=1e-5),
            norm_placement="post",
            mlp=GELUConfig(mlp_dim=4 * emb_dim, gelu="exact"),
            embedding=EmbeddingConfig(use_norm=True),
            head=LinearHeadConfig(use_bias=True),
            init=NormalInitConfig(stddev=0.02, scale_residual=False),
            compute_dtype="bfloat16",
            remat="full",
        ),
        objective=DenoisingConfig(mask_rate=0.3, mean_span=3.0, permute_sentences=True),
        data=DataConfig(seq_len=512),
        optimizer=AdamWConfig(
            learning_rate=learning_rate,
            b2=0.98,
            epsilon=1e-6,
            weight_decay=0.01,
            # Decay from the end of warm-up to the last step is linear decay.
            schedule=WarmupStableDecayConfig(
                warmup_steps=warmup_steps, decay_fraction=1 - warmup_steps / num_steps
            ),
        ),
        training=TrainingConfig(
            num_steps=num_steps,
            batch_size=8000,
            num_microbatches=500,
            z_loss=0.0,
            eval_every=5000,
            eval_tokens=1_048_576,
            checkpoint_every=5000,
            keep_every=100_000,
        ),
    )
