"""Qwen 3 (arXiv 2505.09388): Llama with a norm on every query and key, and a head of any width."""

from collections.abc import Mapping
from typing import Any

from configs.mlp_config import GEGLUConfig, SwiGLUConfig
from configs.model_config import AttentionConfig, LinearHeadConfig, ModelConfig, RMSNormConfig
from configs.position_config import RopeConfig
from export.families import llama_layout
from export.families.family import Family, SpecialIds
from export.families.fields import Fields
from export.families.layer_types import read_layer_types, write_layer_types
from export.families.rope import read_rope, write_rope

TABLE = (
    *llama_layout.EMBEDDING,
    *llama_layout.PRE_NORMS,
    *llama_layout.ATTENTION,
    *llama_layout.MLP,
    *llama_layout.HEAD,
)


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json for a model trained on rows of `seq_len` tokens."""
    assert isinstance(config.position, RopeConfig)
    assert isinstance(config.mlp, SwiGLUConfig | GEGLUConfig)
    attention = config.attention
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **llama_layout.write_common(config, seq_len, ids),
        **write_rope(config.position),
        "hidden_act": llama_layout.write_activation(config.mlp),
        "attention_bias": attention.use_qkv_bias,
        "use_sliding_window": attention.window > 0,
        "sliding_window": attention.window or None,
        "layer_types": write_layer_types(attention, config.num_layers),
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a Qwen 3 config.json.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    fields.fixed(llama_layout.FIXED)
    has_bias = fields.flag("attention_bias", False)
    config = ModelConfig(
        **llama_layout.read_common(fields),
        attention=AttentionConfig(
            **llama_layout.read_heads(fields, head_dim=128, num_kv_heads=32),
            **_windows(fields, fields.whole("num_hidden_layers")),
            qk_norm=True,
            use_qkv_bias=has_bias,
            use_out_bias=has_bias,
        ),
        position=read_rope(fields),
        norm=RMSNormConfig(epsilon=fields.number("rms_norm_eps", 1e-6)),
        mlp=llama_layout.read_mlp(fields, "hidden_act", "silu"),
    )
    seq_len = fields.whole("max_position_embeddings", 32768)
    fields.finish()
    return config, seq_len


def _windows(fields: Fields, num_layers: int) -> dict[str, Any]:
    """Without `layer_types`, the layers from `max_window_layers` on have the window."""
    is_used = fields.flag("use_sliding_window", False)
    window, first = fields.whole("sliding_window", 4096), fields.get("max_window_layers")
    words = fields.get("layer_types")
    if words is None:
        first = 28 if first is None else first
        words = [
            "sliding_attention" if is_used and layer >= first else "full_attention"
            for layer in range(num_layers)
        ]
    pattern = read_layer_types(words, num_layers)
    if "window" in pattern:
        # Without the flag transformers takes the window away, and its layers with it fail.
        fields.fixed({"use_sliding_window": (True, "layer_types has layers with a window")})
    return {"layer_pattern": pattern, "window": window if "window" in pattern else 0}


QWEN3 = Family(
    name="qwen3",
    model_type="qwen3",
    architectures=("Qwen3ForCausalLM",),
    architecture="decoder_only",
    blocks={
        "norm": RMSNormConfig,
        "position": RopeConfig,
        "mlp": (SwiGLUConfig, GEGLUConfig),
        "head": LinearHeadConfig,
    },
    entries=lambda config: TABLE,
    to_config=to_config,
    from_config=from_config,
    left_out=llama_layout.LEFT_OUT,
    copies=llama_layout.copies,
)
