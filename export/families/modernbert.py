"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): layer norm before each sublayer but the first,
gated MLPs, rotary positions with a base of their own in window layers.

Query, key and value lie in one tensor, and so do the MLP's gate, to which the activation is
applied, and up, in this order.
"""

from collections.abc import Mapping
from typing import Any

from configs.mlp_config import GEGLUConfig, SwiGLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    HeadConfig,
    LayerNormConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    NoHeadConfig,
)
from configs.position_config import RopeConfig
from export.families import llama_layout
from export.families.bert import GELUS, whole_head_dim, write_gelu
from export.families.family import Entry, Family, SpecialIds, entries_of
from export.families.fields import Fields
from export.families.layer_types import read_layer_types, write_layer_types
from export.families.rope import read_rope_by_layer, write_rope_by_layer

HEAD = entries_of(
    ("head/dense/kernel", "head.dense.weight", "D O", "O D"),
    ("head/dense/bias", "head.dense.bias", "D", "D"),
    ("head/norm/scale", "head.norm.weight", "D", "D"),
    ("head/norm/bias", "head.norm.bias", "D", "D"),
    ("head/kernel", "decoder.weight", "D V", "V D"),
    ("head/bias", "decoder.bias", "V", "V"),
)

# What their config has for other heads, other runs, or for nothing.
_UNUSED = (
    "classifier_pooling",
    "deterministic_flash_attn",
    "initializer_cutoff_factor",
    "layer_norm_eps",
    "position_embedding_type",
    "reference_compile",
    "repad_logits_with_grad",
    "sparse_pred_ignore_index",
    "sparse_prediction",
)


def encoder_entries(prefix: str) -> tuple[Entry, ...]:
    """Embedding, layers and final norm; `prefix` is "model." where a head stands beside them."""
    ours, theirs = "encoder/layers", f"{prefix}layers.{{layer}}"
    return (
        *entries_of(
            (
                "token_embedding/embedding",
                f"{prefix}embeddings.tok_embeddings.weight",
                "V D",
                "V D",
            ),
            ("encoder_embedding/norm/scale", f"{prefix}embeddings.norm.weight", "D", "D"),
            ("encoder_embedding/norm/bias", f"{prefix}embeddings.norm.bias", "D", "D"),
            (f"{ours}/attention/out/kernel", f"{theirs}.attn.Wo.weight", "H C D", "D (H C)"),
            (f"{ours}/attention/out/bias", f"{theirs}.attn.Wo.bias", "D", "D"),
            (f"{ours}/mlp_norm/scale", f"{theirs}.mlp_norm.weight", "D", "D"),
            (f"{ours}/mlp_norm/bias", f"{theirs}.mlp_norm.bias", "D", "D"),
            (f"{ours}/mlp/down/kernel", f"{theirs}.mlp.Wo.weight", "F D", "D F"),
            (f"{ours}/mlp/down/bias", f"{theirs}.mlp.Wo.bias", "D", "D"),
            ("encoder/final_norm/scale", f"{prefix}final_norm.weight", "D", "D"),
            ("encoder/final_norm/bias", f"{prefix}final_norm.bias", "D", "D"),
        ),
        *(
            Entry(
                ours=f"{ours}/attention_norm/{leaf}",
                theirs=f"{theirs}.attn_norm.{their_leaf}",
                our_axes="D",
                their_axes="D",
                first_layer=1,
                fill=fill,
            )
            for leaf, their_leaf, fill in (("scale", "weight", 1.0), ("bias", "bias", 0.0))
        ),
        *_parts(
            f"{theirs}.attn.Wqkv",
            (f"{ours}/attention/query", "D H C", "(3 H C) D"),
            (f"{ours}/attention/key", "D K C", "(3 K C) D"),
            (f"{ours}/attention/value", "D K C", "(3 K C) D"),
        ),
        *_parts(
            f"{theirs}.mlp.Wi",
            (f"{ours}/mlp/gate", "D F", "(2 F) D"),
            (f"{ours}/mlp/up", "D F", "(2 F) D"),
        ),
    )


def entries(config: ModelConfig) -> tuple[Entry, ...]:
    """The table: a model without a head is saved without the prefix."""
    has_head = isinstance(config.head, MaskedLMHeadConfig)
    return (*encoder_entries("model."), *HEAD) if has_head else encoder_entries("")


def copies(config: ModelConfig) -> dict[str, str]:
    """A tied head's table under the name of the layer that applies it."""
    if not config.tie_embeddings:
        return {}
    return {"decoder.weight": "model.embeddings.tok_embeddings.weight"}


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json for a model trained on rows of `seq_len` tokens.

    Windows and bases are written as transformers 5 reads them, and where every n-th layer sees
    everything, also as 4 does.
    """
    attention, head, position = config.attention, config.head, config.position
    assert isinstance(position, RopeConfig)
    assert isinstance(config.mlp, SwiGLUConfig | GEGLUConfig)
    assert isinstance(config.norm, LayerNormConfig)
    has_head = isinstance(head, MaskedLMHeadConfig)
    return {
        "architectures": ["ModernBertForMaskedLM" if has_head else "ModernBertModel"],
        "model_type": "modernbert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.emb_dim,
        "intermediate_size": config.mlp.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": attention.num_heads,
        "hidden_activation": llama_layout.write_activation(config.mlp),
        "max_position_embeddings": seq_len,
        "norm_eps": config.norm.epsilon,
        "norm_bias": config.norm.use_bias,
        "attention_bias": attention.use_qkv_bias,
        "mlp_bias": config.mlp.use_bias,
        "layer_types": write_layer_types(attention, config.num_layers),
        "local_attention": max(2 * (attention.window - 1), 1),
        **_every_nth(config),
        "rope_parameters": write_rope_by_layer(position),
        "global_rope_theta": position.theta,
        "local_rope_theta": position.local_theta or position.theta,
        "classifier_activation": write_gelu(head.gelu) if has_head else "gelu",
        "classifier_bias": has_head and head.use_dense_bias,
        "decoder_bias": has_head and head.use_bias,
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": ids.pad,
        "bos_token_id": ids.bos,
        "cls_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "sep_token_id": ids.eos,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a ModernBERT config.json.

    A token sees those at most local_attention // 2 places away, both ways.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    for name in _UNUSED:
        fields.get(name)
    num_heads = fields.whole("num_attention_heads")
    num_layers = fields.whole("num_hidden_layers")
    has_bias = fields.flag("attention_bias", False)
    pattern = read_layer_types(_layer_types(fields, num_layers), num_layers)
    window = fields.whole("local_attention", 128) // 2 + 1
    has_windows = "window" in pattern
    config = ModelConfig(
        architecture="encoder_only",
        vocab_size=fields.whole("vocab_size"),
        emb_dim=fields.whole("hidden_size"),
        num_layers=num_layers,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=whole_head_dim(fields, "hidden_size", num_heads),
            window=window if has_windows else 0,
            layer_pattern=pattern,
            use_qkv_bias=has_bias,
            use_out_bias=has_bias,
        ),
        position=read_rope_by_layer(
            fields,
            has_windows=has_windows,
            theta=fields.number("global_rope_theta", 160_000.0),
            local_theta=fields.number("local_rope_theta", 10_000.0),
        ),
        norm=LayerNormConfig(
            epsilon=fields.number("norm_eps", 1e-5), use_bias=fields.flag("norm_bias", False)
        ),
        skip_first_norm=True,
        mlp=llama_layout.read_mlp(
            fields, "hidden_activation", "gelu", use_bias=fields.flag("mlp_bias", False)
        ),
        embedding=EmbeddingConfig(use_norm=True),
        head=_read_head(fields),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        init=fields.normal_init(scale_residual=True),
    )
    seq_len = fields.whole("max_position_embeddings", 8192)
    fields.finish()
    return config, seq_len


def _parts(theirs: str, *rows: tuple[str, str, str]) -> tuple[Entry, ...]:
    """Kernels, and their biases, that lie one after the other in one tensor of theirs.

    (ours, "D H C", "(3 H C) D") has a bias "H C", "(3 H C)".
    """
    return tuple(
        Entry(
            ours=f"{ours}/{leaf}",
            theirs=f"{theirs}.{their_leaf}",
            our_axes=our_axes.removeprefix("D ") if leaf == "bias" else our_axes,
            their_axes=their_axes.removesuffix(" D") if leaf == "bias" else their_axes,
            part=part,
        )
        for part, (ours, our_axes, their_axes) in enumerate(rows)
        for leaf, their_leaf in (("kernel", "weight"), ("bias", "bias"))
    )


def _every_nth(config: ModelConfig) -> dict[str, int]:
    windowed = list(config.attention.windowed_layers(config.num_layers))
    for n in range(1, config.num_layers + 1):
        if windowed == [layer % n != 0 for layer in range(config.num_layers)]:
            return {"global_attn_every_n_layers": n}
    return {}


def _layer_types(fields: Fields, num_layers: int) -> Any:
    every = fields.whole("global_attn_every_n_layers", 3)
    listed = fields.get("layer_types")
    if listed is not None:
        return listed
    return ["sliding_attention" if n % every else "full_attention" for n in range(num_layers)]


def _read_head(fields: Fields) -> HeadConfig:
    gelu = fields.choice("classifier_activation", GELUS, "gelu")
    use_dense_bias = fields.flag("classifier_bias", False)
    use_bias = fields.flag("decoder_bias", True)
    if fields.get("architectures") == ["ModernBertModel"]:
        return NoHeadConfig()
    return MaskedLMHeadConfig(use_bias=use_bias, use_dense_bias=use_dense_bias, gelu=gelu)


MODERNBERT = Family(
    name="modernbert",
    model_type="modernbert",
    architectures=("ModernBertForMaskedLM", "ModernBertModel"),
    architecture="encoder_only",
    blocks={
        "norm": LayerNormConfig,
        "position": RopeConfig,
        "mlp": (GEGLUConfig, SwiGLUConfig),
        "head": (MaskedLMHeadConfig, NoHeadConfig),
    },
    entries=entries,
    to_config=to_config,
    from_config=from_config,
    copies=copies,
)
