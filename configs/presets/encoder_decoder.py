"""Encoder-decoders of ours in two sizes, in the shape of T5 v1.1, trained on span corruption.

Shape and objective: Raffel et al. 2020, arXiv 1910.10683; Shazeer 2020, arXiv 2002.05202. Both
are exported to T5. A preset names no corpus: `isoflop prepare` writes one, `--data.corpus PATH`
says where it is.
"""

from configs.data_config import DataConfig
from configs.mlp_config import GEGLUConfig
from configs.model_config import AttentionConfig, ModelConfig, RMSNormConfig, T5InitConfig
from configs.objective_config import SpanCorruptionConfig
from configs.optimizer_config import AdamWConfig, CosineConfig, MuonConfig
from configs.position_config import RelativeBiasConfig
from configs.schema import RunConfig, TrainingConfig


def tiny() -> RunConfig:
    """0.71M parameters, 0.45M tokens: for tests and a first look.

    Command: `isoflop train encoder_decoder/tiny --data.corpus PATH`.
    Hardware: any CPU, one device. The corpus's tokenizer needs a vocabulary of 1,024, sentinels
    among it.
    """
    return RunConfig(
        name="tiny",
        model=ModelConfig(
            architecture="encoder_decoder",
            vocab_size=1024,
            emb_dim=96,
            num_layers=2,
            num_encoder_layers=2,
            attention=AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=24, query_scale=1.0),
            position=RelativeBiasConfig(num_buckets=32, max_distance=128),
            norm=RMSNormConfig(epsilon=1e-6),
            mlp=GEGLUConfig(mlp_dim=256, gelu="tanh"),
            tie_embeddings=False,
            init=T5InitConfig(),
            scan_layers=False,
        ),
        objective=SpanCorruptionConfig(),
        data=DataConfig(seq_len=128),
        optimizer=MuonConfig(schedule=CosineConfig(warmup_steps=20, final_fraction=0.0)),
        training=TrainingConfig(num_steps=200, batch_size=16, log_every=10),
    )


def small() -> RunConfig:
    """93M parameters, 1.9B tokens in batches of 0.6M.

    Learning rate and batch are ours; 20 tokens a parameter is borrowed from causal models
    (Hoffmann et al. 2022, arXiv 2203.15556): no such law is known for span corruption.

    Command: `isoflop train encoder_decoder/small --data.corpus PATH`; on eight devices add
    `--mesh.data 8 --training.num-microbatches 4`.
    Hardware: one accelerator with 40 GB or more and bf16 matrix units.
    """
    return RunConfig(
        name="small",
        model=ModelConfig(
            architecture="encoder_decoder",
            vocab_size=32_768,
            emb_dim=512,
            num_layers=8,
            num_encoder_layers=8,
            attention=AttentionConfig(num_heads=8, num_kv_heads=8, head_dim=64, query_scale=1.0),
            position=RelativeBiasConfig(num_buckets=32, max_distance=128),
            norm=RMSNormConfig(epsilon=1e-6),
            mlp=GEGLUConfig(mlp_dim=1408, gelu="tanh"),
            tie_embeddings=False,
            init=T5InitConfig(),
            compute_dtype="bfloat16",
            remat="full",
        ),
        objective=SpanCorruptionConfig(),
        data=DataConfig(seq_len=512),
        optimizer=AdamWConfig(learning_rate=1e-3, schedule=CosineConfig(warmup_steps=200)),
        training=TrainingConfig(
            num_steps=3200,
            batch_size=1024,
            num_microbatches=32,
            eval_every=500,
            eval_tokens=1_048_576,
            checkpoint_every=500,
        ),
    )
