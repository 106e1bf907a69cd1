"""T5 (Raffel et al. 2020, arXiv 1910.10683): relative position biases, RMSNorm, no biases, scores
that are not scaled.

1.0 has a ReLU MLP and a head tied to the embedding, whose input is scaled by 1/sqrt(width); 1.1 has
a gated GELU and a head of its own. `tie_word_embeddings` tells which in the released files. What
transformers 5 saves says true there always, and false in `scale_decoder_outputs` for 1.1.
"""

from collections.abc import Mapping
from typing import Any

from configs.errors import InputError
from configs.mlp_config import GEGLUConfig, GELUConfig, MLPConfig, ReLUConfig, SwiGLUConfig
from configs.model_config import (
    AttentionConfig,
    LinearHeadConfig,
    ModelConfig,
    RMSNormConfig,
    T5InitConfig,
)
from configs.position_config import RelativeBiasConfig
from export.families.family import Entry, Family, SpecialIds, entries_of
from export.families.fields import Fields

# Their word for an MLP -> (ours, what it is made with, their word for its activation).
_MLPS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "relu": (ReLUConfig, {}, "relu"),
    "gated-gelu": (GEGLUConfig, {"gelu": "tanh"}, "gelu_new"),
    "gated-silu": (SwiGLUConfig, {}, "silu"),
    "gelu": (GELUConfig, {"gelu": "exact", "use_bias": False}, "gelu"),
    "gelu_new": (GELUConfig, {"gelu": "tanh", "use_bias": False}, "gelu_new"),
}
_FIXED = {
    "is_encoder_decoder": (True, "this family has both sides here"),
    "is_decoder": (False, "this family has both sides here"),
}


def _attention(ours: str, theirs: str) -> tuple[Entry, ...]:
    return entries_of(
        (f"{ours}/query/kernel", f"{theirs}.q.weight", "D H C", "(H C) D"),
        (f"{ours}/key/kernel", f"{theirs}.k.weight", "D K C", "(K C) D"),
        (f"{ours}/value/kernel", f"{theirs}.v.weight", "D K C", "(K C) D"),
        (f"{ours}/out/kernel", f"{theirs}.o.weight", "H C D", "D (H C)"),
    )


def _side(side: str, mlp_at: int) -> tuple[Entry, ...]:
    """One side's layers; `mlp_at`: which of their sublayers is the MLP."""
    ours, theirs = f"{side}/layers", f"{side}.block.{{layer}}.layer"
    mlp = f"{theirs}.{mlp_at}.DenseReluDense"
    return (
        *entries_of(
            (
                f"{side}/relative_bias/embedding",
                f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                "R H",
                "R H",
            ),
            (f"{ours}/attention_norm/scale", f"{theirs}.0.layer_norm.weight", "D", "D"),
        ),
        *_attention(f"{ours}/attention", f"{theirs}.0.SelfAttention"),
        *entries_of(
            (f"{ours}/mlp_norm/scale", f"{theirs}.{mlp_at}.layer_norm.weight", "D", "D"),
            (f"{ours}/mlp/down/kernel", f"{mlp}.wo.weight", "F D", "D F"),
            (f"{side}/final_norm/scale", f"{side}.final_layer_norm.weight", "D", "D"),
        ),
    )


def _up(side: str, mlp_at: int, is_gated: bool) -> tuple[Entry, ...]:
    ours = f"{side}/layers/mlp"
    theirs = f"{side}.block.{{layer}}.layer.{mlp_at}.DenseReluDense"
    if not is_gated:
        return entries_of((f"{ours}/up/kernel", f"{theirs}.wi.weight", "D F", "F D"))
    return entries_of(
        (f"{ours}/gate/kernel", f"{theirs}.wi_0.weight", "D F", "F D"),
        (f"{ours}/up/kernel", f"{theirs}.wi_1.weight", "D F", "F D"),
    )


TABLE = (
    *entries_of(("token_embedding/embedding", "shared.weight", "V D", "V D")),
    *_side("encoder", 1),
    *_side("decoder", 2),
    *entries_of(
        (
            "decoder/layers/cross_attention_norm/scale",
            "decoder.block.{layer}.layer.1.layer_norm.weight",
            "D",
            "D",
        )
    ),
    *_attention("decoder/layers/cross_attention", "decoder.block.{layer}.layer.1.EncDecAttention"),
    *entries_of(("head/kernel", "lm_head.weight", "D V", "V D")),
)
LEFT_OUT = {
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight": (
        "cross-attention has no positions"
    ),
}


def entries(config: ModelConfig) -> tuple[Entry, ...]:
    """The table: a gated MLP names its first matrices otherwise."""
    is_gated = isinstance(config.mlp, GEGLUConfig | SwiGLUConfig)
    return (*TABLE, *_up("encoder", 1, is_gated), *_up("decoder", 2, is_gated))


def copies(config: ModelConfig) -> dict[str, str]:
    """The one table that both sides look tokens up in, and a tied head."""
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    if config.tie_embeddings:
        names.append("lm_head.weight")
    return dict.fromkeys(names, "shared.weight")


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json; `n_positions` is a note of the length trained with, T5 has no limit.

    Decoding begins with <s>, as it did in training.
    """
    attention, position = config.attention, config.position
    assert isinstance(position, RelativeBiasConfig)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.emb_dim,
        "d_kv": attention.head_dim,
        "d_ff": config.mlp.mlp_dim,
        "num_heads": attention.num_heads,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_layers,
        "feed_forward_proj": _write_mlp(config.mlp),
        "relative_attention_num_buckets": position.num_buckets,
        "relative_attention_max_distance": position.max_distance,
        "layer_norm_epsilon": config.norm.epsilon,
        "n_positions": seq_len,
        "dropout_rate": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": ids.pad,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "decoder_start_token_id": ids.bos,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, length trained with, 512 if it is not said) of a T5 config.json.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    fields.fixed(_FIXED)
    emb_dim, num_heads = fields.whole("d_model"), fields.whole("num_heads")
    num_layers = fields.whole("num_layers")
    is_tied = _read_tied(fields)
    config = ModelConfig(
        architecture="encoder_decoder",
        vocab_size=fields.whole("vocab_size"),
        emb_dim=emb_dim,
        num_layers=fields.whole("num_decoder_layers", num_layers),
        num_encoder_layers=num_layers,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=fields.whole("d_kv", 64),
            query_scale=1.0,
        ),
        position=RelativeBiasConfig(
            num_buckets=fields.whole("relative_attention_num_buckets", 32),
            max_distance=fields.whole("relative_attention_max_distance", 128),
        ),
        norm=RMSNormConfig(epsilon=fields.number("layer_norm_epsilon", 1e-6)),
        mlp=_read_mlp(fields),
        head=LinearHeadConfig(logit_scale=emb_dim**-0.5 if is_tied else 1.0),
        tie_embeddings=is_tied,
        init=T5InitConfig(),
    )
    seq_len = fields.whole("n_positions", 512)
    fields.finish()
    return config, seq_len


def _write_mlp(mlp: MLPConfig) -> str:
    """Their word for the MLP; for one that has none, the word for the most alike."""
    alike = [word for word, (variant, _, _) in _MLPS.items() if isinstance(mlp, variant)]
    exact = (word for word in alike if mlp == _MLPS[word][0](mlp_dim=mlp.mlp_dim, **_MLPS[word][1]))
    return next(exact, alike[0])


def _read_mlp(fields: Fields) -> MLPConfig:
    variant, changes, activation = fields.choice(
        "feed_forward_proj", {word: mlp for word, mlp in _MLPS.items()}, "relu"
    )
    is_gated = variant in (GEGLUConfig, SwiGLUConfig)
    fields.fixed(
        {
            "dense_act_fn": (activation, "as feed_forward_proj says"),
            "is_gated_act": (is_gated, "as feed_forward_proj says"),
        }
    )
    return variant(mlp_dim=fields.whole("d_ff"), **changes)


def _read_tied(fields: Fields) -> bool:
    says_tied = fields.flag("tie_word_embeddings", True)
    is_scaled = fields.flag("scale_decoder_outputs", says_tied)
    if is_scaled and not says_tied:
        raise InputError(
            "scale_decoder_outputs: got True, expected False where tie_word_embeddings is"
        )
    return is_scaled


T5 = Family(
    name="t5",
    model_type="t5",
    architectures=("T5ForConditionalGeneration",),
    architecture="encoder_decoder",
    blocks={
        "norm": RMSNormConfig,
        "position": RelativeBiasConfig,
        "mlp": (ReLUConfig, GEGLUConfig, SwiGLUConfig, GELUConfig),
        "head": LinearHeadConfig,
    },
    entries=entries,
    to_config=to_config,
    from_config=from_config,
    left_out=LEFT_OUT,
    copies=copies,
)
