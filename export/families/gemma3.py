"""Gemma 3's text models (arXiv 2503.19786): Gemma 2 with normed queries and keys in place of the
scores' soft cap, five window layers to a full one, and a rotation of their own for the windows."""

from collections.abc import Mapping
from typing import Any

from configs.mlp_config import GEGLUConfig, SwiGLUConfig
from configs.model_config import AttentionConfig, LinearHeadConfig, ModelConfig, RMSNormConfig
from configs.position_config import RopeConfig
from export.families import gemma2, llama_layout
from export.families.family import Family, SpecialIds
from export.families.fields import Fields
from export.families.rope import read_rope_by_layer, write_rope_by_layer

_FIXED = {
    **gemma2.FIXED,
    "attn_logit_softcapping": (None, "transformers reads it and does not apply it"),
}


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json for a model trained on rows of `seq_len` tokens.

    Raises:
      InputError: a width that transformers would refuse to load.
    """
    assert isinstance(config.position, RopeConfig)
    assert isinstance(config.head, LinearHeadConfig)
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **gemma2.write_gemma(config, seq_len, ids),
        "rope_parameters": write_rope_by_layer(config.position),
        "attn_logit_softcapping": None,
        "final_logit_softcapping": config.head.logit_softcap or None,
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a Gemma 3 text model's config.json.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    fields.fixed(_FIXED)
    attention = AttentionConfig(
        **gemma2.read_gemma_attention(fields, every=fields.whole("sliding_window_pattern", 6)),
        qk_norm=True,
    )
    config = ModelConfig(
        **gemma2.read_gemma(fields),
        attention=attention,
        position=read_rope_by_layer(
            fields,
            has_windows=attention.window > 0,
            theta=fields.number("rope_theta", 1e6),
            local_theta=fields.number("rope_local_base_freq", 1e4),
        ),
        head=LinearHeadConfig(logit_softcap=fields.softcap("final_logit_softcapping")),
    )
    seq_len = fields.whole("max_position_embeddings", 131_072)
    fields.finish()
    return config, seq_len


GEMMA3 = Family(
    name="gemma3",
    model_type="gemma3_text",
    architectures=("Gemma3ForCausalLM",),
    architecture="decoder_only",
    blocks={
        "norm": RMSNormConfig,
        "position": RopeConfig,
        "mlp": (GEGLUConfig, SwiGLUConfig),
        "head": LinearHeadConfig,
    },
    entries=lambda config: gemma2.TABLE,
    to_config=to_config,
    from_config=from_config,
    left_out=llama_layout.LEFT_OUT,
    copies=llama_layout.copies,
)
