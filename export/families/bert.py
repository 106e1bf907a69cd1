"""BERT (Devlin et al. 2019, arXiv 1810.04805): layer norm after each sublayer, learned positions,
token types, biases everywhere; with its masked-LM head, or without one (sentence encoders).

RoBERTa has the same layers, so its table and its config begin here.
"""

from collections.abc import Mapping
from typing import Any

from configs.errors import require
from configs.mlp_config import Gelu, GELUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    HeadConfig,
    LayerNormConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    NoHeadConfig,
)
from configs.position_config import LearnedPositionConfig
from export.families.family import Entry, Family, SpecialIds, entries_of
from export.families.fields import Fields

# Their word for GELU -> ours; the first of each is written.
GELUS: dict[str, Gelu] = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}

# Before BertModel's layers were saved as such, their scales were called gamma and beta.
OLD_NAMES = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
LEFT_OUT = {
    r".*embeddings\.position_ids": "counts 0, 1, 2, ...",
    r"(bert\.|roberta\.)?pooler\.dense\.(weight|bias)": "reads one place of the last layer",
    r"cls\.seq_relationship\.(weight|bias)": "tells whether two sentences follow one another",
}

_FIXED = {
    "is_decoder": (False, "this family is an encoder here"),
    "add_cross_attention": (False, "this family is an encoder here"),
    "position_embedding_type": ("absolute", "we add positions to the embedding"),
}
# Of parts that are left out.
_UNUSED = (
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
)
BLOCKS = {
    "norm": LayerNormConfig,
    "position": LearnedPositionConfig,
    "mlp": GELUConfig,
    "head": (MaskedLMHeadConfig, NoHeadConfig),
}


def encoder_entries(prefix: str) -> tuple[Entry, ...]:
    """Embeddings and layers; `prefix` is "bert." where a head stands beside them, else ""."""
    ours, theirs = "encoder/layers", f"{prefix}encoder.layer.{{layer}}"
    embeddings = f"{prefix}embeddings"
    attention, self_attention = f"{ours}/attention", f"{theirs}.attention.self"
    return entries_of(
        ("token_embedding/embedding", f"{embeddings}.word_embeddings.weight", "V D", "V D"),
        (
            "encoder_embedding/position/embedding",
            f"{embeddings}.position_embeddings.weight",
            "P D",
            "P D",
        ),
        (
            "encoder_embedding/token_type/embedding",
            f"{embeddings}.token_type_embeddings.weight",
            "T D",
            "T D",
        ),
        ("encoder_embedding/norm/scale", f"{embeddings}.LayerNorm.weight", "D", "D"),
        ("encoder_embedding/norm/bias", f"{embeddings}.LayerNorm.bias", "D", "D"),
        (f"{attention}/query/kernel", f"{self_attention}.query.weight", "D H C", "(H C) D"),
        (f"{attention}/query/bias", f"{self_attention}.query.bias", "H C", "(H C)"),
        (f"{attention}/key/kernel", f"{self_attention}.key.weight", "D K C", "(K C) D"),
        (f"{attention}/key/bias", f"{self_attention}.key.bias", "K C", "(K C)"),
        (f"{attention}/value/kernel", f"{self_attention}.value.weight", "D K C", "(K C) D"),
        (f"{attention}/value/bias", f"{self_attention}.value.bias", "K C", "(K C)"),
        (f"{attention}/out/kernel", f"{theirs}.attention.output.dense.weight", "H C D", "D (H C)"),
        (f"{attention}/out/bias", f"{theirs}.attention.output.dense.bias", "D", "D"),
        (f"{ours}/attention_norm/scale", f"{theirs}.attention.output.LayerNorm.weight", "D", "D"),
        (f"{ours}/attention_norm/bias", f"{theirs}.attention.output.LayerNorm.bias", "D", "D"),
        (f"{ours}/mlp/up/kernel", f"{theirs}.intermediate.dense.weight", "D F", "F D"),
        (f"{ours}/mlp/up/bias", f"{theirs}.intermediate.dense.bias", "F", "F"),
        (f"{ours}/mlp/down/kernel", f"{theirs}.output.dense.weight", "F D", "D F"),
        (f"{ours}/mlp/down/bias", f"{theirs}.output.dense.bias", "D", "D"),
        (f"{ours}/mlp_norm/scale", f"{theirs}.output.LayerNorm.weight", "D", "D"),
        (f"{ours}/mlp_norm/bias", f"{theirs}.output.LayerNorm.bias", "D", "D"),
    )


HEAD = entries_of(
    ("head/dense/kernel", "cls.predictions.transform.dense.weight", "D O", "O D"),
    ("head/dense/bias", "cls.predictions.transform.dense.bias", "D", "D"),
    ("head/norm/scale", "cls.predictions.transform.LayerNorm.weight", "D", "D"),
    ("head/norm/bias", "cls.predictions.transform.LayerNorm.bias", "D", "D"),
    ("head/bias", "cls.predictions.bias", "V", "V"),
)


def entries(config: ModelConfig) -> tuple[Entry, ...]:
    """The table: a model without a head is saved without the prefix."""
    has_head = isinstance(config.head, MaskedLMHeadConfig)
    return (*encoder_entries("bert."), *HEAD) if has_head else encoder_entries("")


def copies(config: ModelConfig) -> dict[str, str]:
    """The tied head's table and bias, under the names of the layer that applies them."""
    return {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }


def write_gelu(gelu: Gelu) -> str:
    """Their word for a GELU."""
    return next(name for name, ours in GELUS.items() if ours == gelu)


def whole_head_dim(fields: Fields, name: str, num_heads: int) -> int:
    """The width that the key `name` gives, shared out to the heads.

    Raises:
      InputError: it does not divide; transformers refuses that too.
    """
    width = fields.whole(name)
    require(width % num_heads == 0, name, width, f"a multiple of the number of heads ({num_heads})")
    return width // num_heads


def write_encoder(config: ModelConfig, ids: SpecialIds) -> dict[str, Any]:
    """What BERT's and RoBERTa's config.json have alike, for a model without dropout.

    `dtype` is twice there, for transformers 4 and 5.
    """
    assert isinstance(config.position, LearnedPositionConfig)
    assert isinstance(config.mlp, GELUConfig)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.emb_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.attention.num_heads,
        "intermediate_size": config.mlp.mlp_dim,
        "hidden_act": write_gelu(config.mlp.gelu),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": config.position.num_positions,
        "type_vocab_size": max(config.embedding.num_token_types, 1),
        "layer_norm_eps": config.norm.epsilon,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": ids.pad,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def read_encoder(fields: Fields, *, offset: int, head: HeadConfig) -> ModelConfig:
    """Inverse of `write_encoder`.

    Args:
      fields: their config.json.
      offset: of the position table.
      head: what stands on the encoder.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields.fixed(_FIXED)
    for name in _UNUSED:
        fields.get(name)
    if not isinstance(head, NoHeadConfig):
        fields.fixed({"tie_word_embeddings": (True, "its head is the embedding table")})
    num_heads = fields.whole("num_attention_heads")
    return ModelConfig(
        architecture="encoder_only",
        vocab_size=fields.whole("vocab_size"),
        emb_dim=fields.whole("hidden_size"),
        num_layers=fields.whole("num_hidden_layers"),
        attention=AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=whole_head_dim(fields, "hidden_size", num_heads),
            use_qkv_bias=True,
            use_out_bias=True,
        ),
        position=LearnedPositionConfig(
            num_positions=fields.whole("max_position_embeddings", 512), offset=offset
        ),
        norm=LayerNormConfig(epsilon=fields.number("layer_norm_eps", 1e-12)),
        norm_placement="post",
        mlp=GELUConfig(
            mlp_dim=fields.whole("intermediate_size"),
            gelu=fields.choice("hidden_act", GELUS, "gelu"),
        ),
        embedding=EmbeddingConfig(
            num_token_types=fields.whole("type_vocab_size", 2), use_norm=True
        ),
        head=head,
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        init=fields.normal_init(),
    )


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json; the longest context is the table of positions, whatever `seq_len`."""
    has_head = isinstance(config.head, MaskedLMHeadConfig)
    return {
        "architectures": ["BertForMaskedLM" if has_head else "BertModel"],
        "model_type": "bert",
        **write_encoder(config, ids),
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a BERT config.json.

    Of BertForPreTraining the masked-LM head is read; BertModel has none. Its head's activation is
    that of the layers.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    head: HeadConfig = NoHeadConfig()
    if theirs.get("architectures") != ["BertModel"]:
        head = MaskedLMHeadConfig(gelu=fields.choice("hidden_act", GELUS, "gelu"))
    config = read_encoder(fields, offset=0, head=head)
    fields.finish()
    return config, fields.whole("max_position_embeddings", 512)


BERT = Family(
    name="bert",
    model_type="bert",
    architectures=("BertForMaskedLM", "BertForPreTraining", "BertModel"),
    architecture="encoder_only",
    blocks=BLOCKS,
    entries=entries,
    to_config=to_config,
    from_config=from_config,
    renames=lambda config: OLD_NAMES,
    left_out=LEFT_OUT,
    copies=copies,
)
