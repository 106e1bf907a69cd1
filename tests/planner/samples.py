"""Random models of every variant, and hardware to plan for."""

import random
from typing import Any

from configs.mlp_config import (
    GEGLUConfig,
    GELUConfig,
    MoEConfig,
    ReLUConfig,
    SquaredReLUConfig,
    SwiGLUConfig,
)
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    LinearHeadConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    NoHeadConfig,
    RMSNormConfig,
    SequenceClassificationHeadConfig,
    TokenClassificationHeadConfig,
)
from configs.position_config import (
    AlibiConfig,
    LearnedPositionConfig,
    NoPositionConfig,
    RelativeBiasConfig,
    RopeConfig,
    SinusoidalPositionConfig,
)
from planner.hardware import Hardware

CPU = Hardware(
    device="cpu",
    num_devices=1,
    flops_per_second=6e10,
    peak_flops_per_second=2e11,
    memory_bytes=24e9,
    source="assumed",
    is_accelerator=False,
)
GPUS = Hardware(
    device="NVIDIA H200",
    num_devices=8,
    flops_per_second=8 * 4e14,
    peak_flops_per_second=8 * 989e12,
    memory_bytes=141e9,
    source="assumed",
    is_accelerator=True,
)

DENSE = (SwiGLUConfig, GEGLUConfig, GELUConfig, ReLUConfig, SquaredReLUConfig)
POSITIONS = (
    RopeConfig,
    LearnedPositionConfig,
    SinusoidalPositionConfig,
    RelativeBiasConfig,
    AlibiConfig,
    NoPositionConfig,
)
HEADS = (
    LinearHeadConfig,
    MaskedLMHeadConfig,
    NoHeadConfig,
    SequenceClassificationHeadConfig,
    TokenClassificationHeadConfig,
)


def random_model(seed: int, **fields: Any) -> ModelConfig:
    """A valid model whose every choice is drawn: 60 seeds in a row meet each member of each union.

    Args:
      fields: of the model, instead of those drawn.
    """
    draw = random.Random(seed)
    architecture = ("decoder_only", "encoder_only", "encoder_decoder")[seed % 3]
    num_kv_heads, has_window = draw.randint(1, 4), draw.random() < 0.3
    attention = AttentionConfig(
        num_heads=num_kv_heads * draw.randint(1, 4),
        num_kv_heads=num_kv_heads,
        head_dim=2 * draw.randint(1, 20),
        window=draw.randint(1, 9) if has_window else 0,
        layer_pattern=draw.choice([("window",), ("full", "window")]) if has_window else ("full",),
        qk_norm=draw.random() < 0.3,
        logit_softcap=draw.choice([0.0, 30.0]),
        use_qkv_bias=draw.random() < 0.5,
        use_out_bias=draw.random() < 0.5,
    )
    position = POSITIONS[seed // 3 % len(POSITIONS)]()
    if isinstance(position, LearnedPositionConfig):
        position = LearnedPositionConfig(num_positions=draw.randint(64, 900), offset=2)
    norm = draw.choice([RMSNormConfig(), LayerNormConfig(), LayerNormConfig(use_bias=False)])
    placement = draw.choice(["pre", "post", "sandwich"])
    mlp_dim = draw.randint(1, 300)
    mlp: Any = (*DENSE, MoEConfig)[seed // 3 % 6 if seed % 2 else draw.randrange(6)]
    if mlp is MoEConfig:
        num_experts = draw.randint(1, 5)
        experts = draw.randint(1, num_experts)
        mlp_config = MoEConfig(mlp_dim=mlp_dim, num_experts=num_experts, experts_per_token=experts)
    else:
        mlp_config = mlp(mlp_dim=mlp_dim, use_bias=draw.random() < 0.5)
    drawn: dict[str, Any] = dict(
        architecture=architecture,
        vocab_size=draw.randint(2, 9000),
        emb_dim=draw.randint(1, 300),
        num_layers=draw.randint(1, 9),
        num_encoder_layers=draw.randint(1, 9) if architecture == "encoder_decoder" else 0,
        attention=attention,
        position=position,
        norm=norm,
        norm_placement=placement,
        skip_first_norm=placement != "post" and draw.random() < 0.2,
        mlp=mlp_config,
        embedding=EmbeddingConfig(
            scale_by_width=draw.random() < 0.3,
            num_token_types=draw.choice([0, 0, 2]),
            use_norm=draw.random() < 0.4,
        ),
        head=_head(draw),
        tie_embeddings=draw.random() < 0.5,
        scan_layers=draw.random() < 0.5,
        remat=draw.choice(["none", "full"]),
    )
    return ModelConfig(**(drawn | fields))


def _head(draw: random.Random) -> Any:
    head: Any = draw.choice(HEADS)
    if head is NoHeadConfig:
        return head()
    if head in (LinearHeadConfig, MaskedLMHeadConfig):
        return head(use_bias=draw.random() < 0.5)
    return head(num_labels=draw.randint(2, 9))
