"""BERT (Devlin et al. 2019, arXiv 1810.04805) and RoBERTa (Liu et al. 2019, arXiv 1907.11692).

Shapes are the released checkpoints', optimizers the papers' (BERT's appendix A.2, RoBERTa's table
9), linear decay included. Differences: no dropout; no next-sentence prediction; BERT's first 90%
of steps had rows of 128 tokens, here all have 512, and masks are drawn anew in every epoch.
RoBERTa's positions begin after the id of its padding, which is 1 there and 0 here: one row of the
table fewer is skipped, of as many.
"""

from configs.data_config import ConcatenateConfig, DataConfig
from configs.mlp_config import GELUConfig
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
from configs.position_config import LearnedPositionConfig
from configs.schema import RunConfig, TrainingConfig


def bert_base() -> RunConfig:
    """110M parameters, 1M steps of 256 rows: 131B tokens.

    Command: `isoflop train encoder_only/bert_base --data.corpus PATH`; on eight devices add
    `--mesh.data 8 --training.num-microbatches 1`.
    Hardware: one 80 GB accelerator, about 210 A100-hours. Source: google-bert/bert-base-uncased.
    """
    return _bert("bert_base", emb_dim=768, num_layers=12, num_heads=12)


def bert_large() -> RunConfig:
    """335M parameters, 1M steps of 256 rows: 131B tokens.

    Command: `isoflop train encoder_only/bert_large --data.corpus PATH`; on eight devices add
    `--mesh.data 8 --training.num-microbatches 1`.
    Hardware: one 80 GB accelerator, about 630 A100-hours. Source: google-bert/bert-large-uncased.
    """
    return _bert("bert_large", emb_dim=1024, num_layers=24, num_heads=16)


def roberta_base() -> RunConfig:
    """125M parameters, 500,000 steps of 8,192 rows that run across documents: 2.1T tokens.

    Command: `isoflop train encoder_only/roberta_base --data.corpus PATH`; on 32 hosts
    `--mesh.data 256 --training.num-microbatches 1`.
    Hardware: one 80 GB accelerator holds it; about 3,700 A100-hours.
    Source: FacebookAI/roberta-base.
    """
    return _roberta(
        "roberta_base",
        emb_dim=768,
        num_layers=12,
        num_heads=12,
        learning_rate=6e-4,
        warmup_steps=24_000,
    )


def roberta_large() -> RunConfig:
    """355M parameters, 500,000 steps of 8,192 rows that run across documents: 2.1T tokens.

    Command: `isoflop train encoder_only/roberta_large --data.corpus PATH`; on 32 hosts
    `--mesh.data 256 --training.num-microbatches 1`.
    Hardware: one 80 GB accelerator holds it; about 11,000 A100-hours.
    Source: FacebookAI/roberta-large.
    """
    return _roberta(
        "roberta_large",
        emb_dim=1024,
        num_layers=24,
        num_heads=16,
        learning_rate=4e-4,
        warmup_steps=30_000,
    )


def _bert(name: str, *, emb_dim: int, num_layers: int, num_heads: int) -> RunConfig:
    return RunConfig(
        name=name,
        model=_model(
            vocab_size=30_522,
            emb_dim=emb_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            position=LearnedPositionConfig(num_positions=512),
            num_token_types=2,
            epsilon=1e-12,
        ),
        objective=MaskedLMConfig(),
        data=DataConfig(seq_len=512),
        optimizer=AdamWConfig(
            learning_rate=1e-4,
            b2=0.999,
            epsilon=1e-6,
            weight_decay=0.01,
            # Decay from the end of warm-up to the last step is linear decay.
            schedule=WarmupStableDecayConfig(warmup_steps=10_000, decay_fraction=0.99),
        ),
        training=_training(num_steps=1_000_000, batch_size=256, num_microbatches=8),
    )


def _roberta(
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
        model=_model(
            vocab_size=50_265,
            emb_dim=emb_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            position=LearnedPositionConfig(num_positions=514, offset=1),
            num_token_types=1,
            epsilon=1e-5,
        ),
        objective=MaskedLMConfig(),
        data=DataConfig(seq_len=512, packing=ConcatenateConfig(documents="joined")),
        optimizer=AdamWConfig(
            learning_rate=learning_rate,
            b2=0.98,
            epsilon=1e-6,
            weight_decay=0.01,
            clip_norm=0.0,
            schedule=WarmupStableDecayConfig(
                warmup_steps=warmup_steps, decay_fraction=1 - warmup_steps / num_steps
            ),
        ),
        training=_training(num_steps=num_steps, batch_size=8192, num_microbatches=256),
    )


def _model(
    *,
    vocab_size: int,
    emb_dim: int,
    num_layers: int,
    num_heads: int,
    position: LearnedPositionConfig,
    num_token_types: int,
    epsilon: float,
) -> ModelConfig:
    return ModelConfig(
        architecture="encoder_only",
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_layers=num_layers,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=64,
            use_qkv_bias=True,
            use_out_bias=True,
        ),
        position=position,
        norm=LayerNormConfig(epsilon=epsilon),
        norm_placement="post",
        mlp=GELUConfig(mlp_dim=4 * emb_dim, gelu="exact"),
        embedding=EmbeddingConfig(num_token_types=num_token_types, use_norm=True),
        head=MaskedLMHeadConfig(gelu="exact"),
        init=NormalInitConfig(stddev=0.02, scale_residual=False),
        compute_dtype="bfloat16",
        remat="full",
    )


def _training(*, num_steps: int, batch_size: int, num_microbatches: int) -> TrainingConfig:
    return TrainingConfig(
        num_steps=num_steps,
        batch_size=batch_size,
        num_microbatches=num_microbatches,
        z_loss=0.0,
        eval_every=5000,
        eval_tokens=1_048_576,
        checkpoint_every=5000,
        keep_every=100_000,
    )
