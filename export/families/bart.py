"""BART (Lewis et al. 2019, arXiv 1910.13461): layer norm after each sublayer, learned positions of
which the first two rows are never used, biases everywhere, one table for both sides and the head.

The bias of the logits is a buffer of theirs, zero in every released model, of shape (1, vocab).
"""

from collections.abc import Mapping
from typing import Any

from configs.mlp_config import GELUConfig, MLPConfig, ReLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    LinearHeadConfig,
    ModelConfig,
    NormalInitConfig,
)
from configs.position_config import LearnedPositionConfig
from export.families.bert import GELUS, whole_head_dim, write_gelu
from export.families.family import Entry, Family, SpecialIds, entries_of
from export.families.fields import Fields

_OFFSET = 2

_FIXED = {
    "is_encoder_decoder": (True, "this family has both sides here"),
    "is_decoder": (False, "this family has both sides here"),
    "add_cross_attention": (False, "this family has both sides here"),
    "tie_word_embeddings": (True, "both sides and the head share one table"),
    "tie_encoder_decoder": (False, "each side has layers of its own"),
    "normalize_before": (False, "this family norms after each sublayer"),
    "normalize_embedding": (True, "this family norms the embedding"),
    "add_final_layer_norm": (False, "this family norms after each sublayer"),
    "add_bias_logits": (False, "transformers does not read it"),
    "static_position_embeddings": (False, "positions are learned"),
    "do_blenderbot_90_layernorm": (False, "this family norms after each sublayer"),
    "extra_pos_embeddings": (_OFFSET, "as transformers has it"),
}
_MLPS: dict[str, Any] = {
    "relu": (ReLUConfig, {}),
    **{name: (GELUConfig, {"gelu": gelu}) for name, gelu in GELUS.items()},
}


def _attention(ours: str, theirs: str) -> tuple[Entry, ...]:
    return entries_of(
        (f"{ours}/query/kernel", f"{theirs}.q_proj.weight", "D H C", "(H C) D"),
        (f"{ours}/query/bias", f"{theirs}.q_proj.bias", "H C", "(H C)"),
        (f"{ours}/key/kernel", f"{theirs}.k_proj.weight", "D K C", "(K C) D"),
        (f"{ours}/key/bias", f"{theirs}.k_proj.bias", "K C", "(K C)"),
        (f"{ours}/value/kernel", f"{theirs}.v_proj.weight", "D K C", "(K C) D"),
        (f"{ours}/value/bias", f"{theirs}.v_proj.bias", "K C", "(K C)"),
        (f"{ours}/out/kernel", f"{theirs}.out_proj.weight", "H C D", "D (H C)"),
        (f"{ours}/out/bias", f"{theirs}.out_proj.bias", "D", "D"),
        (f"{ours}_norm/scale", f"{theirs}_layer_norm.weight", "D", "D"),
        (f"{ours}_norm/bias", f"{theirs}_layer_norm.bias", "D", "D"),
    )


def _side(side: str) -> tuple[Entry, ...]:
    ours, theirs = f"{side}/layers", f"model.{side}.layers.{{layer}}"
    embedding = f"{side}_embedding"
    return (
        *entries_of(
            (
                f"{embedding}/position/embedding",
                f"model.{side}.embed_positions.weight",
                "P D",
                "P D",
            ),
            (f"{embedding}/norm/scale", f"model.{side}.layernorm_embedding.weight", "D", "D"),
            (f"{embedding}/norm/bias", f"model.{side}.layernorm_embedding.bias", "D", "D"),
            (f"{ours}/mlp/up/kernel", f"{theirs}.fc1.weight", "D F", "F D"),
            (f"{ours}/mlp/up/bias", f"{theirs}.fc1.bias", "F", "F"),
            (f"{ours}/mlp/down/kernel", f"{theirs}.fc2.weight", "F D", "D F"),
            (f"{ours}/mlp/down/bias", f"{theirs}.fc2.bias", "D", "D"),
            (f"{ours}/mlp_norm/scale", f"{theirs}.final_layer_norm.weight", "D", "D"),
            (f"{ours}/mlp_norm/bias", f"{theirs}.final_layer_norm.bias", "D", "D"),
        ),
        *_attention(f"{ours}/attention", f"{theirs}.self_attn"),
    )


TABLE = (
    *entries_of(("token_embedding/embedding", "model.shared.weight", "V D", "V D")),
    *_side("encoder"),
    *_side("decoder"),
    *_attention("decoder/layers/cross_attention", "model.decoder.layers.{layer}.encoder_attn"),
    Entry(ours="head/bias", theirs="final_logits_bias", our_axes="V", their_axes="1 V", fill=0.0),
)
# BartModel's files have no head, but all that the head is made of.
RENAMES = ((r"^(shared|encoder|decoder)\.", r"model.\1."),)
LEFT_OUT = {r"model\.(encoder|decoder)\.version": "a mark of the format"}
COPIES: dict[str, str] = dict.fromkeys(
    ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"),
    "model.shared.weight",
)


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json; the longest context is the table of positions without its first rows.

    Decoding begins with <s>, as it did in training, and ends where the model says so.
    """
    position, num_heads = config.position, config.attention.num_heads
    assert isinstance(position, LearnedPositionConfig)
    assert isinstance(config.mlp, GELUConfig | ReLUConfig)
    return {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.emb_dim,
        "encoder_layers": config.num_encoder_layers,
        "decoder_layers": config.num_layers,
        "encoder_attention_heads": num_heads,
        "decoder_attention_heads": num_heads,
        "encoder_ffn_dim": config.mlp.mlp_dim,
        "decoder_ffn_dim": config.mlp.mlp_dim,
        "activation_function": _write_activation(config.mlp),
        "max_position_embeddings": position.num_positions - _OFFSET,
        "scale_embedding": config.embedding.scale_by_width,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": ids.pad,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "decoder_start_token_id": ids.bos,
        "forced_eos_token_id": None,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a BART config.json.

    BartModel, which has no head, is read as what `AutoModelForSeq2SeqLM` makes of it: its head is
    the embedding table.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    fields.get("force_bos_token_to_be_generated")  # how to generate, not what
    num_layers = fields.whole("encoder_layers")
    num_heads, mlp_dim = fields.whole("encoder_attention_heads"), fields.whole("encoder_ffn_dim")
    fields.fixed(
        {
            **_FIXED,
            "num_hidden_layers": (num_layers, "another name for encoder_layers"),
            "decoder_attention_heads": (num_heads, "our sides have as many heads"),
            "decoder_ffn_dim": (mlp_dim, "our sides have MLPs of one size"),
        }
    )
    context = fields.whole("max_position_embeddings", 1024)
    config = ModelConfig(
        architecture="encoder_decoder",
        vocab_size=fields.whole("vocab_size"),
        emb_dim=fields.whole("d_model"),
        num_layers=fields.whole("decoder_layers"),
        num_encoder_layers=num_layers,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=whole_head_dim(fields, "d_model", num_heads),
            use_qkv_bias=True,
            use_out_bias=True,
        ),
        position=LearnedPositionConfig(num_positions=context + _OFFSET, offset=_OFFSET),
        norm=LayerNormConfig(epsilon=1e-5),
        norm_placement="post",
        mlp=_read_mlp(fields, mlp_dim),
        embedding=EmbeddingConfig(
            scale_by_width=fields.flag("scale_embedding", False), use_norm=True
        ),
        head=LinearHeadConfig(use_bias=True),
        init=NormalInitConfig(stddev=fields.number("init_std", 0.02), scale_residual=False),
    )
    fields.finish()
    return config, context


def _write_activation(mlp: GELUConfig | ReLUConfig) -> str:
    return write_gelu(mlp.gelu) if isinstance(mlp, GELUConfig) else "relu"


def _read_mlp(fields: Fields, mlp_dim: int) -> MLPConfig:
    variant, changes = fields.choice("activation_function", _MLPS, "gelu")
    return variant(mlp_dim=mlp_dim, use_bias=True, **changes)


BART = Family(
    name="bart",
    model_type="bart",
    architectures=("BartForConditionalGeneration", "BartModel"),
    architecture="encoder_decoder",
    blocks={
        "norm": LayerNormConfig,
        "position": LearnedPositionConfig,
        "mlp": (GELUConfig, ReLUConfig),
        "head": LinearHeadConfig,
    },
    entries=lambda config: TABLE,
    to_config=to_config,
    from_config=from_config,
    renames=lambda config: RENAMES,
    left_out=LEFT_OUT,
    copies=lambda config: COPIES,
)
