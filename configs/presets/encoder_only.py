"""Encoder-only models of ours in two sizes, trained to recover masked tokens.

`tiny` has BERT's shape (arXiv 1810.04805), `small` ModernBERT's (arXiv 2412.13663); either is
exported to the family of its shape. A preset names no corpus: `isoflop prepare` writes one,
`--data.corpus PATH` says where it is.
"""

from configs.data_config import DataConfig
from configs.mlp_config import GEGLUConfig, GELUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    MaskedLMHeadConfig,
    ModelConfig,
)
from configs.objective_config import MaskedLMConfig
from configs.optimizer_config import AdamWConfig, CosineConfig, MuonConfig
from configs.position_config import LearnedPositionConfig, RopeConfig
from configs.schema import RunConfig, TrainingConfig


def tiny() -> RunConfig:
    """0.56M parameters in the shape of BERT, 0.4M tokens: for tests and a first look.

    Rows are short, positions begin as sines and twice BERT's share of tokens is masked: in rows of
    256 at 15% a model this small does not learn to look at neighbours within minutes.

    Command: `isoflop train encoder_only/tiny --data.corpus PATH`.
    Hardware: any CPU, one device. The corpus's tokenizer needs a vocabulary of 1,024.
    """
    return RunConfig(
        name="tiny",
        model=ModelConfig(
            architecture="encoder_only",
            vocab_size=1024,
            emb_dim=96,
            num_layers=4,
            attention=AttentionConfig(
                num_heads=4, num_kv_heads=4, head_dim=24, use_qkv_bias=True, use_out_bias=True
            ),
            position=LearnedPositionConfig(num_positions=64, start="sinusoidal"),
            norm=LayerNormConfig(epsilon=1e-12),
            norm_placement="post",
            mlp=GELUConfig(mlp_dim=384, gelu="exact"),
            embedding=EmbeddingConfig(num_token_types=2, use_norm=True),
            head=MaskedLMHeadConfig(gelu="exact"),
            scan_layers=False,
        ),
        objective=MaskedLMConfig(mask_rate=0.3),
        data=DataConfig(seq_len=64),
        optimizer=MuonConfig(schedule=CosineConfig(warmup_steps=20, final_fraction=0.0)),
        training=TrainingConfig(num_steps=200, batch_size=32, log_every=10),
    )


def small() -> RunConfig:
    """111M parameters in the shape of ModernBERT, 2.2B tokens in batches of 0.5M.

    Mask rate and learning rate are ModernBERT-base's; 20 tokens a parameter is borrowed from
    causal models (Hoffmann et al. 2022, arXiv 2203.15556): no such law is known for masked ones.

    Command: `isoflop train encoder_only/small --data.corpus PATH`; on eight devices add
    `--mesh.data 8 --training.num-microbatches 4`.
    Hardware: one accelerator with 40 GB or more and bf16 matrix units.
    """
    return RunConfig(
        name="small",
        model=ModelConfig(
            architecture="encoder_only",
            vocab_size=32_768,
            emb_dim=768,
            num_layers=12,
            attention=AttentionConfig(
                num_heads=12,
                num_kv_heads=12,
                head_dim=64,
                window=65,
                layer_pattern=("full", "window", "window"),
            ),
            position=RopeConfig(theta=160_000.0, local_theta=10_000.0),
            norm=LayerNormConfig(epsilon=1e-5, use_bias=False),
            skip_first_norm=True,
            mlp=GEGLUConfig(mlp_dim=2048, gelu="exact"),
            embedding=EmbeddingConfig(use_norm=True),
            head=MaskedLMHeadConfig(use_dense_bias=False, gelu="exact"),
            compute_dtype="bfloat16",
            remat="full",
        ),
        objective=MaskedLMConfig(mask_rate=0.3),
        data=DataConfig(seq_len=1024),
        optimizer=AdamWConfig(learning_rate=8e-4, schedule=CosineConfig(warmup_steps=200)),
        training=TrainingConfig(
            num_steps=4230,
            batch_size=512,
            num_microbatches=32,
            eval_every=500,
            eval_tokens=1_048_576,
            checkpoint_every=500,
        ),
    )
