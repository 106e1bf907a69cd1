"""Llama 1 to 3 (arXiv 2302.13971, 2307.09288, 2407.21783): RMSNorm, RoPE by halves, grouped-query
attention, SwiGLU."""

from collections.abc import Mapping
from typing import Any

from configs.mlp_config import GEGLUConfig, SwiGLUConfig
from configs.model_config import AttentionConfig, LinearHeadConfig, ModelConfig, RMSNormConfig
from configs.position_config import RopeConfig
from export.families import llama_layout
from export.families.family import Family, SpecialIds
from export.families.fields import Fields
from export.families.rope import read_rope, write_rope

TABLE = (
    *llama_layout.EMBEDDING,
    *llama_layout.PRE_NORMS,
    *llama_layout.ATTENTION,
    *llama_layout.MLP,
    *llama_layout.HEAD,
)

_FIXED = {**llama_layout.FIXED, "pretraining_tp": (1, "we keep each matrix whole")}


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json for a model trained on rows of `seq_len` tokens.

    Raises:
      InputError: a width that transformers would refuse to load.
    """
    llama_layout.require_whole_heads(config)
    assert isinstance(config.position, RopeConfig)
    assert isinstance(config.mlp, SwiGLUConfig | GEGLUConfig)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **llama_layout.write_common(config, seq_len, ids),
        **write_rope(config.position),
        "hidden_act": llama_layout.write_activation(config.mlp),
        "attention_bias": config.attention.use_qkv_bias,
        "mlp_bias": config.mlp.use_bias,
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a Llama config.json.

    Fields that say how to compute rather than what (compute dtype, scanned layers, remat, causal
    blocks) take our defaults.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    fields.fixed(_FIXED)
    has_bias = fields.flag("attention_bias", False)
    config = ModelConfig(
        **llama_layout.read_common(fields),
        attention=AttentionConfig(
            **llama_layout.read_heads(fields), use_qkv_bias=has_bias, use_out_bias=has_bias
        ),
        position=read_rope(fields),
        norm=RMSNormConfig(epsilon=fields.number("rms_norm_eps", 1e-6)),
        mlp=llama_layout.read_mlp(
            fields, "hidden_act", "silu", use_bias=fields.flag("mlp_bias", False)
        ),
    )
    seq_len = fields.whole("max_position_embeddings", 2048)
    fields.finish()
    return config, seq_len


LLAMA = Family(
    name="llama",
    model_type="llama",
    architectures=("LlamaForCausalLM",),
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
