"""Llama (arXiv 2302.13971, 2307.09288): RMSNorm, RoPE by halves, grouped-query attention, SwiGLU.

Axes: D model, H heads, K kv heads, C head dim, F mlp, V vocab. Their linear layers keep weights
as (out, in) and compute x W^T; ours keep (in, out), with heads as an axis of their own.
"""

from collections.abc import Mapping
from typing import Any

from configs.errors import InputError, require
from configs.model_config import AttentionConfig, ModelConfig, RMSNormConfig, SwiGLUConfig
from configs.position_config import RopeConfig
from export.families.family import Entry, Family, Sizes, SpecialIds

_LAYERS = "decoder/layers"
_LAYER = "model.layers.{layer}"

TABLE = tuple(
    Entry(ours=ours, theirs=theirs, our_axes=our_axes, their_axes=their_axes)
    for ours, theirs, our_axes, their_axes in (
        ("token_embedding/embedding", "model.embed_tokens.weight", "V D", "V D"),
        (f"{_LAYERS}/attention_norm/scale", f"{_LAYER}.input_layernorm.weight", "D", "D"),
        (
            f"{_LAYERS}/attention/query/kernel",
            f"{_LAYER}.self_attn.q_proj.weight",
            "D H C",
            "(H C) D",
        ),
        (
            f"{_LAYERS}/attention/key/kernel",
            f"{_LAYER}.self_attn.k_proj.weight",
            "D K C",
            "(K C) D",
        ),
        (
            f"{_LAYERS}/attention/value/kernel",
            f"{_LAYER}.self_attn.v_proj.weight",
            "D K C",
            "(K C) D",
        ),
        (
            f"{_LAYERS}/attention/out/kernel",
            f"{_LAYER}.self_attn.o_proj.weight",
            "H C D",
            "D (H C)",
        ),
        (f"{_LAYERS}/mlp_norm/scale", f"{_LAYER}.post_attention_layernorm.weight", "D", "D"),
        (f"{_LAYERS}/mlp/gate/kernel", f"{_LAYER}.mlp.gate_proj.weight", "D F", "F D"),
        (f"{_LAYERS}/mlp/up/kernel", f"{_LAYER}.mlp.up_proj.weight", "D F", "F D"),
        (f"{_LAYERS}/mlp/down/kernel", f"{_LAYER}.mlp.down_proj.weight", "F D", "D F"),
        ("decoder/final_norm/scale", "model.norm.weight", "D", "D"),
        ("head/kernel", "lm_head.weight", "D V", "V D"),
    )
)

# What their config may say only in one way, since our model has no such part. A missing key means
# the same as the value here.
_FIXED = {
    "hidden_act": ("silu", "our MLP is SwiGLU"),
    "attention_bias": (False, "our attention has no biases"),
    "mlp_bias": (False, "our MLP has no biases"),
    "attention_dropout": (0.0, "we train without dropout"),
    "rope_scaling": (None, "we rotate without scaling"),
    "partial_rotary_factor": (1.0, "we rotate the whole head"),
    "pretraining_tp": (1, "we keep each matrix whole"),
    "quantization_config": (None, "our parameters are fp32"),
}


def entries(config: ModelConfig) -> tuple[Entry, ...]:
    """The table without the head where it is tied to the embedding."""
    return tuple(e for e in TABLE if not (config.tie_embeddings and e.ours == "head/kernel"))


def sizes(config: ModelConfig) -> Sizes:
    """Axis letter -> length."""
    return {
        "V": config.vocab_size,
        "D": config.emb_dim,
        "H": config.attention.num_heads,
        "K": config.attention.num_kv_heads,
        "C": config.attention.head_dim,
        "F": config.mlp.mlp_dim,
    }


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json for a model trained on rows of `seq_len` tokens.

    RoPE's base is written twice: transformers 5 reads `rope_parameters`, 4 reads `rope_theta`.
    Likewise `dtype` and `torch_dtype`.

    Raises:
      InputError: transformers refuses a width its heads do not divide, whatever `head_dim` says.
    """
    attention = config.attention
    require(
        config.emb_dim % attention.num_heads == 0,
        "model.emb_dim",
        config.emb_dim,
        f"a multiple of num_heads ({attention.num_heads}): transformers refuses to load any "
        "other Llama",
    )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.emb_dim,
        "intermediate_size": config.mlp.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "head_dim": attention.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm.epsilon,
        "rope_theta": config.position.theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.position.theta},
        "max_position_embeddings": seq_len,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": ids.pad,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "use_cache": True,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, sequence length) of a Llama config.json.

    Fields that say how to compute rather than what (compute dtype, scanned layers, remat, causal
    blocks) take our defaults.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    require(theirs.get("model_type") == "llama", "model_type", theirs.get("model_type"), "'llama'")
    for name, (value, reason) in _FIXED.items():
        got = theirs.get(name, value)
        if name == "rope_scaling" and isinstance(got, Mapping):
            _require_default_rope(name, got)
        else:
            require(got == value, name, got, f"{value!r}: {reason}")
    emb_dim = _whole(theirs, "hidden_size")
    num_heads = _whole(theirs, "num_attention_heads")
    head_dim = emb_dim // num_heads
    config = ModelConfig(
        vocab_size=_whole(theirs, "vocab_size"),
        emb_dim=emb_dim,
        num_layers=_whole(theirs, "num_hidden_layers"),
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=_whole(theirs, "num_key_value_heads", num_heads),
            head_dim=_whole(theirs, "head_dim", head_dim),
        ),
        position=RopeConfig(theta=_rope_theta(theirs)),
        norm=RMSNormConfig(epsilon=_number(theirs, "rms_norm_eps", 1e-6)),
        mlp=SwiGLUConfig(mlp_dim=_whole(theirs, "intermediate_size")),
        tie_embeddings=_flag(theirs, "tie_word_embeddings", False),
    )
    return config, _whole(theirs, "max_position_embeddings", 2048)


def _rope_theta(theirs: Mapping[str, Any]) -> float:
    parameters = theirs.get("rope_parameters")
    if parameters is None:
        return _number(theirs, "rope_theta", 10_000.0)
    if not isinstance(parameters, Mapping):
        raise InputError(f"rope_parameters: got {parameters!r}, expected an object")
    _require_default_rope("rope_parameters", parameters)
    return _number({**theirs, **parameters}, "rope_theta", 10_000.0)


def _require_default_rope(field: str, parameters: Mapping[str, Any]) -> None:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    require(kind == "default", f"{field}.rope_type", kind, "'default': we rotate without scaling")
    factor = parameters.get("partial_rotary_factor", 1.0)
    require(factor == 1.0, f"{field}.partial_rotary_factor", factor, "1.0: we rotate whole heads")
    unknown = sorted(set(parameters) - {"rope_type", "type", "rope_theta", "partial_rotary_factor"})
    require(not unknown, field, unknown, "no keys but rope_type and rope_theta")


def _whole(theirs: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A whole number above 0; a missing or null one is `default`, or an error without one."""
    value = theirs.get(name)
    value = default if value is None else value
    fits = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if not fits:
        raise InputError(f"{name}: got {value!r}, expected a whole number above 0")
    assert isinstance(value, int)
    return value


def _number(theirs: Mapping[str, Any], name: str, default: float) -> float:
    value = theirs.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name}: got {value!r}, expected a number")
    return float(value)


def _flag(theirs: Mapping[str, Any], name: str, default: bool) -> bool:
    value = theirs.get(name, default)
    if not isinstance(value, bool):
        raise InputError(f"{name}: got {value!r}, expected true or false")
    return value


LLAMA = Family(
    name="llama",
    model_type="llama",
    entries=entries,
    sizes=sizes,
    to_config=to_config,
    from_config=from_config,
)
