"""GPT-2 (Radford et al. 2019) in its four published sizes.

Shapes are the released checkpoints'; the paper names neither steps nor learning rates. Batches of
0.5M tokens and 20 tokens a parameter (Hoffmann et al. 2022, arXiv 2203.15556) are ours, learning
rates are those of GPT-3 models of the same size (Brown et al. 2020, arXiv 2005.14165, table 2.1).
Rows run across documents, as theirs did. Dropout is left out.
"""

from configs.data_config import ConcatenateConfig, DataConfig
from configs.mlp_config import GELUConfig
from configs.model_config import AttentionConfig, LayerNormConfig, ModelConfig, NormalInitConfig
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.position_config import LearnedPositionConfig
from configs.schema import RunConfig, TrainingConfig


def gpt2() -> RunConfig:
    """124M parameters, 2.5B tokens.

    Command: `isoflop train decoder_only/gpt2 --data.corpus PATH`.
    Hardware: one 80 GB accelerator, about 4.4 A100-hours. Source: openai-community/gpt2.
    """
    return _gpt2(
        "gpt2", emb_dim=768, num_layers=12, num_heads=12, learning_rate=6e-4, num_steps=4_750
    )


def gpt2_medium() -> RunConfig:
    """355M parameters, 7.1B tokens.

    Command: `isoflop train decoder_only/gpt2_medium --data.corpus PATH`.
    Hardware: one 80 GB accelerator, about 36 A100-hours. Source: openai-community/gpt2-medium.
    """
    return _gpt2(
        "gpt2_medium",
        emb_dim=1024,
        num_layers=24,
        num_heads=16,
        learning_rate=3e-4,
        num_steps=13_540,
    )


def gpt2_large() -> RunConfig:
    """774M parameters, 15.5B tokens.

    Command: `isoflop train decoder_only/gpt2_large --data.corpus PATH`; on eight devices add
    `--mesh.data 8 --training.num-microbatches 4`.
    Hardware: one 80 GB accelerator, about 170 A100-hours. Source: openai-community/gpt2-large.
    """
    return _gpt2(
        "gpt2_large",
        emb_dim=1280,
        num_layers=36,
        num_heads=20,
        learning_rate=2.5e-4,
        num_steps=29_530,
    )


def gpt2_xl() -> RunConfig:
    """1.56B parameters, 31.2B tokens.

    Command: `isoflop train decoder_only/gpt2_xl --data.corpus PATH`; on eight devices add
    `--mesh.fsdp 8 --training.num-microbatches 4`.
    Hardware: one 80 GB accelerator, about 680 A100-hours. Source: openai-community/gpt2-xl.
    """
    return _gpt2(
        "gpt2_xl", emb_dim=1600, num_layers=48, num_heads=25, learning_rate=2e-4, num_steps=59_420
    )


def _gpt2(
    name: str,
    *,
    emb_dim: int,
    num_layers: int,
    num_heads: int,
    learning_rate: float,
    num_steps: int,
) -> RunConfig:
    return RunConfig(
        name=name,
        model=ModelConfig(
            vocab_size=50_257,
            emb_dim=emb_dim,
            num_layers=num_layers,
            attention=AttentionConfig(
                num_heads=num_heads,
                num_kv_heads=num_heads,
                head_dim=64,
                use_qkv_bias=True,
                use_out_bias=True,
            ),
            position=LearnedPositionConfig(num_positions=1024),
            norm=LayerNormConfig(epsilon=1e-5),
            mlp=GELUConfig(mlp_dim=4 * emb_dim, gelu="tanh"),
            init=NormalInitConfig(stddev=0.02, scale_residual=True),
            compute_dtype="bfloat16",
            remat="full",
        ),
        data=DataConfig(seq_len=1024, packing=ConcatenateConfig(documents="joined")),
        optimizer=AdamWConfig(
            learning_rate=learning_rate, schedule=CosineConfig(warmup_steps=num_steps // 25)
        ),
        training=TrainingConfig(
            num_steps=num_steps,
            batch_size=512,
            num_microbatches=32,
            z_loss=0.0,
            eval_every=500,
            eval_tokens=1_048_576,
            checkpoint_every=500,
        ),
    )
