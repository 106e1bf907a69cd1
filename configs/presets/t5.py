"""T5 v1.1 (Raffel et al. 2020, arXiv 1910.10683; gated MLP of Shazeer 2020, arXiv 2002.05202).

Shapes are the released checkpoints'. Span corruption, batches of 2,048 rows of 512, 1M steps, and
Adafactor with relative steps of 1/√max(step, 10,000) (section 3.1.2), are the paper's for its final
models (section 3.7); the z-loss is the released code's.
"""

from configs.data_config import DataConfig
from configs.mlp_config import GEGLUConfig
from configs.model_config import AttentionConfig, ModelConfig, RMSNormConfig, T5InitConfig
from configs.objective_config import SpanCorruptionConfig
from configs.optimizer_config import AdafactorConfig, InverseSquareRootConfig
from configs.position_config import RelativeBiasConfig
from configs.schema import RunConfig, TrainingConfig


def t5_small() -> RunConfig:
    """77M parameters, 1M steps of 2,048 rows: 1.2T tokens.

    Command: `isoflop train encoder_decoder/t5_small --data.corpus PATH`; on eight hosts
    `--mesh.data 64 --training.num-microbatches 1`.
    Hardware: one 80 GB accelerator holds it; about 480 A100-hours. Source: google/t5-v1_1-small.
    """
    return _t5("t5_small", emb_dim=512, num_layers=8, num_heads=6, mlp_dim=1024)


def t5_base() -> RunConfig:
    """248M parameters, 1M steps of 2,048 rows: 1.2T tokens.

    Command: `isoflop train encoder_decoder/t5_base --data.corpus PATH`; on eight hosts
    `--mesh.data 64 --training.num-microbatches 1`.
    Hardware: one 80 GB accelerator holds it; about 1,900 A100-hours. Source: google/t5-v1_1-base.
    """
    return _t5("t5_base", emb_dim=768, num_layers=12, num_heads=12, mlp_dim=2048)


def t5_large() -> RunConfig:
    """783M parameters, 1M steps of 2,048 rows: 1.2T tokens.

    Command: `isoflop train encoder_decoder/t5_large --data.corpus PATH`; on eight hosts
    `--mesh.data 64 --training.num-microbatches 2`.
    Hardware: one 80 GB accelerator holds it; about 6,700 A100-hours.
    Source: google/t5-v1_1-large.
    """
    return _t5("t5_large", emb_dim=1024, num_layers=24, num_heads=16, mlp_dim=2816)


def _t5(
    name: str,
    *,
    emb_dim: int,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
) -> RunConfig:
    return RunConfig(
        name=name,
        model=ModelConfig(
            architecture="encoder_decoder",
            vocab_size=32_128,
            emb_dim=emb_dim,
            num_layers=num_layers,
            num_encoder_layers=num_layers,
            attention=AttentionConfig(
                num_heads=num_heads, num_kv_heads=num_heads, head_dim=64, query_scale=1.0
            ),
            position=RelativeBiasConfig(num_buckets=32, max_distance=128),
            norm=RMSNormConfig(epsilon=1e-6),
            mlp=GEGLUConfig(mlp_dim=mlp_dim, gelu="tanh"),
            tie_embeddings=False,
            init=T5InitConfig(),
            compute_dtype="bfloat16",
            remat="full",
        ),
        objective=SpanCorruptionConfig(density=0.15, mean_span=3.0),
        data=DataConfig(seq_len=512),
        optimizer=AdafactorConfig(schedule=InverseSquareRootConfig(cooldown_fraction=0.0)),
        training=TrainingConfig(
            num_steps=1_000_000,
            batch_size=2048,
            num_microbatches=128,
            z_loss=1e-4,
            eval_every=5000,
            eval_tokens=1_048_576,
            checkpoint_every=5000,
            keep_every=100_000,
        ),
    )
