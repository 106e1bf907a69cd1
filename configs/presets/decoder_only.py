"""Decoder-only language models of ours: Llama's manner (arXiv 2302.13971) in three sizes, and a
small mixture of experts in Mixtral's (arXiv 2401.04088).

Parameters are counted in total. `small` and `base_1b` read about 20 tokens a parameter (Hoffmann
et al. 2022, arXiv 2203.15556); `isoflop plan` works out the numbers for a budget of yours. A
preset names no corpus: `isoflop prepare` writes one, `--data.corpus PATH` says where it is.
"""

from configs.data_config import DataConfig
from configs.mlp_config import MoEConfig, SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig
from configs.optimizer_config import AdamWConfig, CosineConfig, MuonConfig, WarmupStableDecayConfig
from configs.position_config import RopeConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig


def tiny() -> RunConfig:
    """0.54M parameters, 0.4M tokens: for tests and a first look, not for good text.

    Command: `isoflop train decoder_only/tiny --data.corpus PATH`.
    Hardware: any CPU, one device. The corpus's tokenizer needs a vocabulary of 1,024.
    """
    return RunConfig(
        name="tiny",
        model=ModelConfig(
            vocab_size=1024,
            emb_dim=96,
            num_layers=4,
            attention=AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=24),
            mlp=SwiGLUConfig(mlp_dim=256),
            scan_layers=False,
        ),
        data=DataConfig(seq_len=128),
        optimizer=MuonConfig(schedule=CosineConfig(warmup_steps=20, final_fraction=0.0)),
        training=TrainingConfig(num_steps=200, batch_size=16, log_every=10),
    )


def small() -> RunConfig:
    """124M parameters, 2.5B tokens in batches of 0.5M.

    Learning rate and batch follow GPT-3 125M (Brown et al. 2020, arXiv 2005.14165, table 2.1).

    Command: `isoflop train decoder_only/small --data.corpus PATH`; on eight devices add
    `--mesh.data 8 --training.num-microbatches 4`.
    Hardware: one accelerator with 40 GB or more and bf16 matrix units.
    """
    return RunConfig(
        name="small",
        model=ModelConfig(
            vocab_size=32_768,
            emb_dim=768,
            num_layers=12,
            attention=AttentionConfig(num_heads=12, num_kv_heads=12, head_dim=64),
            mlp=SwiGLUConfig(mlp_dim=2560),
            compute_dtype="bfloat16",
            remat="full",
        ),
        data=DataConfig(seq_len=1024),
        optimizer=AdamWConfig(learning_rate=6e-4, schedule=CosineConfig(warmup_steps=200)),
        training=TrainingConfig(
            num_steps=4750,
            batch_size=512,
            num_microbatches=32,
            eval_every=500,
            eval_tokens=1_048_576,
            checkpoint_every=500,
        ),
    )


def base_1b() -> RunConfig:
    """1.04B parameters in the shape of Llama 3.2 1B, 20.8B tokens in batches of 1M.

    Warm up, hold, decay over the last fifth: checkpoints of the constant part can be trained on.

    Command: `isoflop train decoder_only/base_1b --data.corpus PATH`.
    Hardware: one host of eight accelerators with 80 GB or more each (mesh fsdp=8); other counts
    by `--mesh.fsdp`.
    """
    return RunConfig(
        name="base_1b",
        model=ModelConfig(
            vocab_size=32_768,
            emb_dim=2048,
            num_layers=16,
            attention=AttentionConfig(num_heads=32, num_kv_heads=8, head_dim=64),
            position=RopeConfig(theta=500_000.0),
            mlp=SwiGLUConfig(mlp_dim=8192),
            compute_dtype="bfloat16",
            remat="full",
        ),
        data=DataConfig(seq_len=2048),
        optimizer=AdamWConfig(
            learning_rate=3e-4, schedule=WarmupStableDecayConfig(warmup_steps=1000)
        ),
        mesh=MeshConfig(fsdp=8),
        training=TrainingConfig(
            num_steps=19_850,
            batch_size=512,
            num_microbatches=8,
            eval_every=1000,
            eval_tokens=1_048_576,
            checkpoint_every=1000,
            keep_every=5000,
        ),
    )


def tiny_moe() -> RunConfig:
    """0.84M parameters of which a token uses 0.54M, 0.4M tokens: for tests and a first look.

    A token meets two of four experts, together as wide as the MLP of `tiny`, so both cost alike.

    Command: `isoflop train decoder_only/tiny_moe --data.corpus PATH`.
    Hardware: any CPU, one device; `--mesh.expert 4` for four. The corpus's tokenizer needs a
    vocabulary of 1,024.
    """
    return RunConfig(
        name="tiny_moe",
        model=ModelConfig(
            vocab_size=1024,
            emb_dim=96,
            num_layers=4,
            attention=AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=24),
            mlp=MoEConfig(mlp_dim=128, num_experts=4, experts_per_token=2),
            scan_layers=False,
        ),
        data=DataConfig(seq_len=128),
        optimizer=MuonConfig(schedule=CosineConfig(warmup_steps=20, final_fraction=0.0)),
        training=TrainingConfig(num_steps=200, batch_size=16, log_every=10),
    )
