"""BERT: token types, both GELUs, with its head, with more than its head, and without one."""

from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from configs.mlp_config import GELUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    LinearHeadConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    NoHeadConfig,
)
from configs.position_config import LearnedPositionConfig
from configs.presets import PRESETS
from export.express import express, first_difference
from export.families.bert import BERT
from export.import_ import import_folder
from export.tensors import SINGLE, read_tensors, write_tensors
from tests.export.families.parity import (
    IDS,
    check_export,
    check_import,
    check_round_trip,
    perturb,
)
from tests.export.samples import VOCAB_SIZE

THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "masked LM, tanh GELU": ("BertForMaskedLM", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    "pretraining's two heads": ("BertForPreTraining", {"type_vocab_size": 3}),
    "no head but a pooler": ("BertModel", {}),
}
# The released config.json of BERT-base, with the keys that its multilingual kin has besides.
RELEASED: dict[str, Any] = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 30522,
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
}


def bert(class_name: str, **changes: Any) -> Any:
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 36,
        "intermediate_size": 52,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
        "attn_implementation": "eager",
    }
    config = transformers.BertConfig(**(sizes | changes))
    return perturb(getattr(transformers, class_name)(config))


def our_bert(**changes: Any) -> ModelConfig:
    fields: dict[str, Any] = {
        "architecture": "encoder_only",
        "vocab_size": VOCAB_SIZE,
        "emb_dim": 32,
        "num_layers": 3,
        "attention": AttentionConfig(
            num_heads=4, num_kv_heads=4, head_dim=8, use_qkv_bias=True, use_out_bias=True
        ),
        "position": LearnedPositionConfig(num_positions=70),
        "norm": LayerNormConfig(epsilon=1e-7),
        "norm_placement": "post",
        "mlp": GELUConfig(mlp_dim=56, gelu="exact"),
        "embedding": EmbeddingConfig(num_token_types=2, use_norm=True),
        "head": MaskedLMHeadConfig(),
    }
    return ModelConfig(**(fields | changes))


def test_the_released_config_is_read_as_the_preset():
    config, seq_len = BERT.from_config(RELEASED)
    assert first_difference(config, PRESETS["encoder_only/bert_base"]().model) is None
    assert seq_len == 512


@pytest.mark.parametrize("name", ["masked LM, tanh GELU", "no head but a pooler"])
def test_an_imported_model_gives_their_outputs(name, tmp_path):
    class_name, changes = THEIRS[name]
    check_import(bert(class_name, **changes), tmp_path)


@pytest.mark.parametrize("name", THEIRS)
def test_imported_and_written_again_it_is_the_same(name, tmp_path):
    class_name, changes = THEIRS[name]
    imported = check_round_trip(bert(class_name, **changes), tmp_path)
    assert isinstance(imported.config.head, NoHeadConfig) == (class_name == "BertModel")
    assert imported.seq_len == 40


@pytest.mark.parametrize("head", [MaskedLMHeadConfig(), NoHeadConfig()], ids=lambda head: head.kind)
def test_an_exported_model_is_loaded_whole_and_gives_our_outputs(head, tokenizer, tmp_path):
    check_export(our_bert(head=head), "bert", tokenizer, tmp_path / "x")


def test_old_names_and_stored_copies_of_the_head_are_read(tmp_path):
    bert("BertForMaskedLM").save_pretrained(str(tmp_path))
    expected = import_folder(tmp_path).params
    tensors = read_tensors(tmp_path)
    embedding = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.weight"] = embedding
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    tensors["bert.embeddings.position_ids"] = np.arange(40, dtype=np.float32)[None]
    for name in list(tensors):
        if "LayerNorm" in name:
            old = name.replace(".weight", ".gamma").replace(".bias", ".beta")
            tensors[old] = tensors.pop(name)
    (tmp_path / SINGLE).unlink()
    write_tensors(tensors, tmp_path)
    np.testing.assert_equal(import_folder(tmp_path).params, expected)
    tensors["cls.predictions.decoder.weight"] = embedding + 1
    write_tensors(tensors, tmp_path)
    with pytest.raises(InputError, match="^cls.predictions.decoder.weight: got numbers that"):
        import_folder(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architectures", ["BertForSequenceClassification"]),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("tie_word_embeddings", False),
        ("hidden_act", "relu"),
        ("type_vocab_size", 0),
        ("embedding_size", 128),
        ("hidden_size", 33),
    ],
)
def test_what_our_model_cannot_express_is_refused_by_field(field, value):
    from export.families import family_of

    theirs = BERT.to_config(our_bert(), 70, IDS) | {field: value}
    with pytest.raises(InputError, match=f"^{field}: got") as caught:
        family_of(theirs).from_config(theirs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"norm_placement": "pre"}, "model.norm_placement"),
        ({"norm": LayerNormConfig(use_bias=False)}, "model.norm.use_bias"),
        ({"position": LearnedPositionConfig(num_positions=70, offset=2)}, "model.position.offset"),
        ({"embedding": EmbeddingConfig(use_norm=True)}, "model.embedding.num_token_types"),
        ({"embedding": EmbeddingConfig(num_token_types=2)}, "model.embedding.use_norm"),
        ({"mlp": GELUConfig(mlp_dim=56, gelu="tanh")}, "model.head.gelu"),
        ({"head": MaskedLMHeadConfig(use_dense_bias=False)}, "model.head.use_dense_bias"),
        ({"head": LinearHeadConfig()}, "model.head.kind"),
        ({"tie_embeddings": False}, "tie_word_embeddings"),
        ({"architecture": "decoder_only"}, "model.architecture"),
    ],
)
def test_what_bert_cannot_express_is_refused_by_field(changes, field):
    with pytest.raises(InputError, match=f"^{field}: got"):
        express(our_bert(**changes), BERT, 70, IDS)
