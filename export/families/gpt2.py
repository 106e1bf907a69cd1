"""GPT-2 (Radford et al. 2019): layer norms with biases, learned positions, GELU, biases all over.

Their linear layers are stored as (in, out), as ours, with query, key and value in one.
"""

from collections.abc import Mapping
from typing import Any

from configs.mlp_config import Gelu, GELUConfig
from configs.model_config import AttentionConfig, LayerNormConfig, LinearHeadConfig, ModelConfig
from configs.position_config import LearnedPositionConfig
from export.families.family import Entry, Family, SpecialIds, entries_of
from export.families.fields import Fields

_OURS = "decoder/layers"
_THEIRS = "transformer.h.{layer}"

TABLE = (
    *entries_of(
        ("token_embedding/embedding", "transformer.wte.weight", "V D", "V D"),
        ("decoder_embedding/position/embedding", "transformer.wpe.weight", "P D", "P D"),
        (f"{_OURS}/attention_norm/scale", f"{_THEIRS}.ln_1.weight", "D", "D"),
        (f"{_OURS}/attention_norm/bias", f"{_THEIRS}.ln_1.bias", "D", "D"),
    ),
    *(
        Entry(
            ours=f"{_OURS}/attention/{name}/{leaf}",
            theirs=f"{_THEIRS}.attn.c_attn.{their_leaf}",
            our_axes=our_axes,
            their_axes=their_axes,
            part=part,
        )
        for part, (name, heads) in enumerate((("query", "H"), ("key", "K"), ("value", "K")))
        for leaf, their_leaf, our_axes, their_axes in (
            ("kernel", "weight", f"D {heads} C", f"D (3 {heads} C)"),
            ("bias", "bias", f"{heads} C", f"(3 {heads} C)"),
        )
    ),
    *entries_of(
        (f"{_OURS}/attention/out/kernel", f"{_THEIRS}.attn.c_proj.weight", "H C D", "(H C) D"),
        (f"{_OURS}/attention/out/bias", f"{_THEIRS}.attn.c_proj.bias", "D", "D"),
        (f"{_OURS}/mlp_norm/scale", f"{_THEIRS}.ln_2.weight", "D", "D"),
        (f"{_OURS}/mlp_norm/bias", f"{_THEIRS}.ln_2.bias", "D", "D"),
        (f"{_OURS}/mlp/up/kernel", f"{_THEIRS}.mlp.c_fc.weight", "D F", "D F"),
        (f"{_OURS}/mlp/up/bias", f"{_THEIRS}.mlp.c_fc.bias", "F", "F"),
        (f"{_OURS}/mlp/down/kernel", f"{_THEIRS}.mlp.c_proj.weight", "F D", "F D"),
        (f"{_OURS}/mlp/down/bias", f"{_THEIRS}.mlp.c_proj.bias", "D", "D"),
        ("decoder/final_norm/scale", "transformer.ln_f.weight", "D", "D"),
        ("decoder/final_norm/bias", "transformer.ln_f.bias", "D", "D"),
        ("head/kernel", "lm_head.weight", "D V", "V D"),
    ),
)

_GELUS: dict[str, Gelu] = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "exact"}

_FIXED = {
    "scale_attn_weights": (True, "we scale scores by the head's width"),
    "scale_attn_by_inverse_layer_idx": (False, "our layers scale their scores alike"),
    "add_cross_attention": (False, "our decoder-only model has no encoder"),
    "quantization_config": (None, "our parameters are fp32"),
}
# reorder_and_upcast_attn is about rounding in training; n_ctx is an old copy of n_positions;
# summary_* belong to a head for classification.
_UNUSED = (
    "reorder_and_upcast_attn",
    "n_ctx",
    "summary_type",
    "summary_use_proj",
    "summary_activation",
    "summary_proj_to_labels",
)


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json; the longest context is the number of positions, whatever `seq_len` is."""
    assert isinstance(config.position, LearnedPositionConfig)
    assert isinstance(config.mlp, GELUConfig)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.position.num_positions,
        "n_embd": config.emb_dim,
        "n_layer": config.num_layers,
        "n_head": config.attention.num_heads,
        "n_inner": config.mlp.mlp_dim,
        "activation_function": "gelu" if config.mlp.gelu == "exact" else "gelu_new",
        "layer_norm_epsilon": config.norm.epsilon,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": ids.pad,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "use_cache": True,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a GPT-2 config.json.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    fields.fixed(_FIXED)
    fields.ignore(*_UNUSED)
    emb_dim, num_heads = fields.whole("n_embd"), fields.whole("n_head")
    num_positions = fields.whole("n_positions", 1024)
    config = ModelConfig(
        vocab_size=fields.whole("vocab_size"),
        emb_dim=emb_dim,
        num_layers=fields.whole("n_layer"),
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=emb_dim // num_heads,
            use_qkv_bias=True,
            use_out_bias=True,
        ),
        position=LearnedPositionConfig(num_positions=num_positions),
        norm=LayerNormConfig(epsilon=fields.number("layer_norm_epsilon", 1e-5)),
        mlp=GELUConfig(
            mlp_dim=fields.whole("n_inner", 4 * emb_dim),
            gelu=fields.choice("activation_function", _GELUS, "gelu_new"),
        ),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        init=fields.normal_init(scale_residual=True),
    )
    fields.finish()
    return config, num_positions


GPT2 = Family(
    name="gpt2",
    model_type="gpt2",
    architectures=("GPT2LMHeadModel",),
    architecture="decoder_only",
    blocks={
        "norm": LayerNormConfig,
        "position": LearnedPositionConfig,
        "mlp": GELUConfig,
        "head": LinearHeadConfig,
    },
    entries=lambda config: TABLE,
    to_config=to_config,
    from_config=from_config,
    # OpenAI's own checkpoints lack the prefix, and hold causal masks.
    renames=lambda config: ((r"^(?=(wte|wpe|h|ln_f)\.)", "transformer."),),
    left_out={r"transformer\.h\.\d+\.attn\.(bias|masked_bias)": "a causal mask, not a parameter"},
    copies=lambda config: (
        {"lm_head.weight": "transformer.wte.weight"} if config.tie_embeddings else {}
    ),
)
