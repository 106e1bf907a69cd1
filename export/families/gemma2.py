"""Gemma 2 (arXiv 2408.00118): norms before and after each sublayer, soft caps, every other layer
with a window, embeddings scaled by the width, GEGLU."""

from collections.abc import Mapping
from typing import Any

from configs.mlp_config import GEGLUConfig, SwiGLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LinearHeadConfig,
    ModelConfig,
    RMSNormConfig,
)
from configs.position_config import RopeConfig
from export.families import llama_layout
from export.families.family import Family, SpecialIds
from export.families.fields import Fields
from export.families.layer_types import read_layer_types, write_layer_types
from export.families.rope import read_rope, write_rope

TABLE = (
    *llama_layout.EMBEDDING,
    *llama_layout.SANDWICH_NORMS,
    *llama_layout.ATTENTION,
    *llama_layout.MLP,
    *llama_layout.HEAD,
)

FIXED = {
    **llama_layout.FIXED,
    "use_bidirectional_attention": (False, "our decoder is causal"),
}


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json for a model trained on rows of `seq_len` tokens.

    Raises:
      InputError: a width that transformers would refuse to load.
    """
    assert isinstance(config.position, RopeConfig)
    assert isinstance(config.head, LinearHeadConfig)
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        **write_gemma(config, seq_len, ids),
        **write_rope(config.position),
        "attn_logit_softcapping": config.attention.logit_softcap or None,
        "final_logit_softcapping": config.head.logit_softcap or None,
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a Gemma 2 config.json.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    fields.fixed(FIXED)
    # Named by some releases; transformers reads hidden_activation and sliding_window.
    fields.ignore("hidden_act", "sliding_window_size")
    config = ModelConfig(
        **read_gemma(fields),
        attention=AttentionConfig(
            **read_gemma_attention(fields, every=2),
            logit_softcap=fields.softcap("attn_logit_softcapping", 50.0),
        ),
        position=read_rope(fields),
        head=LinearHeadConfig(logit_softcap=fields.softcap("final_logit_softcapping", 30.0)),
    )
    seq_len = fields.whole("max_position_embeddings", 8192)
    fields.finish()
    return config, seq_len


def write_gemma(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """What Gemma 2's and 3's config.json have alike.

    Raises:
      InputError: a width that transformers would refuse to load.
    """
    llama_layout.require_whole_heads(config)
    assert isinstance(config.mlp, SwiGLUConfig | GEGLUConfig)
    attention = config.attention
    return {
        **llama_layout.write_common(config, seq_len, ids),
        "hidden_activation": llama_layout.write_activation(config.mlp),
        "attention_bias": attention.use_qkv_bias,
        "query_pre_attn_scalar": max(1, round(attention.score_scale**-2)),
        "sliding_window": attention.window or None,
        "layer_types": write_layer_types(attention, config.num_layers),
        "use_bidirectional_attention": False,
    }


def read_gemma(fields: Fields) -> dict[str, Any]:
    """Fields of ModelConfig that Gemma 2 and 3 have alike."""
    return {
        **llama_layout.read_common(fields, tied=True),
        "norm": RMSNormConfig(epsilon=fields.number("rms_norm_eps", 1e-6), scale_offset=1.0),
        "norm_placement": "sandwich",
        "mlp": llama_layout.read_mlp(fields, "hidden_activation", "gelu_pytorch_tanh"),
        "embedding": EmbeddingConfig(scale_by_width=True),
    }


def read_gemma_attention(fields: Fields, *, every: int) -> dict[str, Any]:
    """Fields of AttentionConfig that Gemma 2 and 3 have alike.

    Args:
      fields: their config.json.
      every: without `layer_types`, each layer whose number this divides, from 1, is full.
    """
    num_layers = fields.whole("num_hidden_layers")
    words = fields.get("layer_types")
    if words is None:
        words = [
            "sliding_attention" if (layer + 1) % every else "full_attention"
            for layer in range(num_layers)
        ]
    pattern = read_layer_types(words, num_layers)
    window = fields.whole("sliding_window", 4096)
    has_bias = fields.flag("attention_bias", False)
    heads = llama_layout.read_heads(fields, head_dim=256, num_kv_heads=4)
    scalar = fields.number("query_pre_attn_scalar", 256)
    return {
        **heads,
        "layer_pattern": pattern,
        "window": window if "window" in pattern else 0,
        "query_scale": 0.0 if scalar == heads["head_dim"] else scalar**-0.5,
        "use_qkv_bias": has_bias,
        "use_out_bias": has_bias,
    }


GEMMA2 = Family(
    name="gemma2",
    model_type="gemma2",
    architectures=("Gemma2ForCausalLM",),
    architecture="decoder_only",
    blocks={
        "norm": RMSNormConfig,
        "position": RopeConfig,
        "mlp": (GEGLUConfig, SwiGLUConfig),
        "head": LinearHeadConfig,
    },
    entries=lambda config: TABLE,
    to_config=to_config,
    from_config=from_config,
    left_out=llama_layout.LEFT_OUT,
    copies=llama_layout.copies,
)
