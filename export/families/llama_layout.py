"""What Llama's descendants share: names of tensors, sizes in config.json, gated MLPs, windows.

Llama, Qwen 3, Gemma 2 and 3 and Mixtral call their parts alike; each family's own page says where
it differs.
"""

from typing import Any

from configs.errors import InputError
from configs.mlp_config import GEGLUConfig, MLPConfig, SwiGLUConfig
from configs.model_config import ModelConfig
from export.families.family import SpecialIds, entries_of
from export.families.fields import Fields

OURS = "decoder/layers"
THEIRS = "model.layers.{layer}"
_ATTENTION = f"{OURS}/attention"
_SELF_ATTN = f"{THEIRS}.self_attn"

ATTENTION = entries_of(
    (f"{_ATTENTION}/query/kernel", f"{_SELF_ATTN}.q_proj.weight", "D H C", "(H C) D"),
    (f"{_ATTENTION}/query/bias", f"{_SELF_ATTN}.q_proj.bias", "H C", "(H C)"),
    (f"{_ATTENTION}/key/kernel", f"{_SELF_ATTN}.k_proj.weight", "D K C", "(K C) D"),
    (f"{_ATTENTION}/key/bias", f"{_SELF_ATTN}.k_proj.bias", "K C", "(K C)"),
    (f"{_ATTENTION}/value/kernel", f"{_SELF_ATTN}.v_proj.weight", "D K C", "(K C) D"),
    (f"{_ATTENTION}/value/bias", f"{_SELF_ATTN}.v_proj.bias", "K C", "(K C)"),
    (f"{_ATTENTION}/query_norm/scale", f"{_SELF_ATTN}.q_norm.weight", "C", "C"),
    (f"{_ATTENTION}/key_norm/scale", f"{_SELF_ATTN}.k_norm.weight", "C", "C"),
    (f"{_ATTENTION}/out/kernel", f"{_SELF_ATTN}.o_proj.weight", "H C D", "D (H C)"),
    (f"{_ATTENTION}/out/bias", f"{_SELF_ATTN}.o_proj.bias", "D", "D"),
)
MLP = entries_of(
    (f"{OURS}/mlp/gate/kernel", f"{THEIRS}.mlp.gate_proj.weight", "D F", "F D"),
    (f"{OURS}/mlp/gate/bias", f"{THEIRS}.mlp.gate_proj.bias", "F", "F"),
    (f"{OURS}/mlp/up/kernel", f"{THEIRS}.mlp.up_proj.weight", "D F", "F D"),
    (f"{OURS}/mlp/up/bias", f"{THEIRS}.mlp.up_proj.bias", "F", "F"),
    (f"{OURS}/mlp/down/kernel", f"{THEIRS}.mlp.down_proj.weight", "F D", "D F"),
    (f"{OURS}/mlp/down/bias", f"{THEIRS}.mlp.down_proj.bias", "D", "D"),
)
PRE_NORMS = entries_of(
    (f"{OURS}/attention_norm/scale", f"{THEIRS}.input_layernorm.weight", "D", "D"),
    (f"{OURS}/mlp_norm/scale", f"{THEIRS}.post_attention_layernorm.weight", "D", "D"),
)
SANDWICH_NORMS = entries_of(
    (f"{OURS}/attention_norm/scale", f"{THEIRS}.input_layernorm.weight", "D", "D"),
    (f"{OURS}/attention_post_norm/scale", f"{THEIRS}.post_attention_layernorm.weight", "D", "D"),
    (f"{OURS}/mlp_norm/scale", f"{THEIRS}.pre_feedforward_layernorm.weight", "D", "D"),
    (f"{OURS}/mlp_post_norm/scale", f"{THEIRS}.post_feedforward_layernorm.weight", "D", "D"),
)
EMBEDDING = entries_of(("token_embedding/embedding", "model.embed_tokens.weight", "V D", "V D"))
HEAD = entries_of(
    ("decoder/final_norm/scale", "model.norm.weight", "D", "D"),
    ("head/kernel", "lm_head.weight", "D V", "V D"),
)
# Old checkpoints keep the frequencies of the rotation, which follow from the config.
LEFT_OUT = {r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq": "computed from rope_theta"}

FIXED = {"quantization_config": (None, "our parameters are fp32")}

# Their word for the activation -> our MLP, and what it is made with.
_GATED: dict[str, Any] = {
    "silu": (SwiGLUConfig, {}),
    "swish": (SwiGLUConfig, {}),
    "gelu": (GEGLUConfig, {"gelu": "exact"}),
    "gelu_pytorch_tanh": (GEGLUConfig, {"gelu": "tanh"}),
    "gelu_new": (GEGLUConfig, {"gelu": "tanh"}),
}


def copies(config: ModelConfig) -> dict[str, str]:
    """A tied head that a file stores all the same."""
    return {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_embeddings else {}


def write_common(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """What every descendant's config.json has. `dtype` is twice there, for transformers 4 and 5."""
    attention = config.attention
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.emb_dim,
        "intermediate_size": config.mlp.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "head_dim": attention.head_dim,
        "rms_norm_eps": config.norm.epsilon,
        "max_position_embeddings": seq_len,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": ids.pad,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "use_cache": True,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def read_common(fields: Fields, *, tied: bool = False) -> dict[str, Any]:
    """Fields of ModelConfig that every descendant's config.json gives."""
    return {
        "vocab_size": fields.whole("vocab_size"),
        "emb_dim": fields.whole("hidden_size"),
        "num_layers": fields.whole("num_hidden_layers"),
        "tie_embeddings": fields.flag("tie_word_embeddings", tied),
        "init": fields.normal_init(),
    }


def write_activation(mlp: MLPConfig) -> str:
    """Their word for a gated MLP's activation."""
    if isinstance(mlp, GEGLUConfig):
        return "gelu" if mlp.gelu == "exact" else "gelu_pytorch_tanh"
    return "silu"


def read_mlp(fields: Fields, name: str, default: str, *, use_bias: bool = False) -> MLPConfig:
    """The gated MLP whose activation the key `name` gives."""
    variant, changes = fields.choice(name, _GATED, default)
    return variant(mlp_dim=fields.whole("intermediate_size"), use_bias=use_bias, **changes)


def require_whole_heads(config: ModelConfig) -> None:
    """Raises InputError on a width that transformers refuses, whatever `head_dim` says."""
    if config.emb_dim % config.attention.num_heads:
        raise InputError(
            f"model.emb_dim: got {config.emb_dim}, expected a multiple of num_heads "
            f"({config.attention.num_heads}): transformers refuses to load any other"
        )


def read_heads(
    fields: Fields, *, head_dim: int | None = None, num_kv_heads: int | None = None
) -> dict[str, Any]:
    """Fields of AttentionConfig.

    Args:
      fields: their config.json.
      head_dim: where it has none; None: the width over the number of heads.
      num_kv_heads: where it has none; None: the number of heads, which null means in any case.
    """
    num_heads = fields.whole("num_attention_heads")
    is_null = fields.has("num_key_value_heads")
    return {
        "num_heads": num_heads,
        "num_kv_heads": fields.whole(
            "num_key_value_heads", num_heads if is_null or num_kv_heads is None else num_kv_heads
        ),
        "head_dim": fields.whole("head_dim", head_dim or fields.whole("hidden_size") // num_heads),
    }
