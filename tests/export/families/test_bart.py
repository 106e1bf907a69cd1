"""BART: sides of different depth, one table for both and the head, a bias on the logits."""

from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from configs.mlp_config import GELUConfig, ReLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    LinearHeadConfig,
    ModelConfig,
)
from configs.position_config import LearnedPositionConfig
from configs.presets import PRESETS
from export.express import express, first_difference
from export.families.bart import BART
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

# The released config.json of BART-large.
RELEASED: dict[str, Any] = {
    "activation_dropout": 0.1,
    "activation_function": "gelu",
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "architectures": ["BartModel"],
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "classif_dropout": 0.1,
    "classifier_dropout": 0.0,
    "d_model": 1024,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 12,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
    "early_stopping": True,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 12,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "forced_bos_token_id": 0,
    "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0"},
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "label2id": {"LABEL_0": 0},
    "max_position_embeddings": 1024,
    "model_type": "bart",
    "no_repeat_ngram_size": 3,
    "normalize_before": False,
    "num_beams": 4,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "scale_embedding": False,
    "task_specific_params": {"summarization": {"length_penalty": 1.0}},
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 50265,
}


def bart(class_name: str = "BartForConditionalGeneration", **changes: Any) -> Any:
    import torch
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "d_model": 24,
        "encoder_layers": 3,
        "decoder_layers": 2,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 3,
        "encoder_ffn_dim": 40,
        "decoder_ffn_dim": 40,
        "max_position_embeddings": 36,
        "attn_implementation": "eager",
    }
    config = transformers.BartConfig(**(sizes | changes))
    model = perturb(getattr(transformers, class_name)(config))
    if class_name != "BartModel":  # a buffer, which `perturb` does not move
        model.final_logits_bias.copy_(torch.arange(97)[None] / 64 - 1)
    return model


def our_bart(**changes: Any) -> ModelConfig:
    fields: dict[str, Any] = {
        "architecture": "encoder_decoder",
        "vocab_size": VOCAB_SIZE,
        "emb_dim": 24,
        "num_layers": 3,
        "num_encoder_layers": 2,
        "attention": AttentionConfig(
            num_heads=3, num_kv_heads=3, head_dim=8, use_qkv_bias=True, use_out_bias=True
        ),
        "position": LearnedPositionConfig(num_positions=82, offset=2),
        "norm": LayerNormConfig(),
        "norm_placement": "post",
        "mlp": GELUConfig(mlp_dim=40, gelu="exact"),
        "embedding": EmbeddingConfig(use_norm=True),
        "head": LinearHeadConfig(use_bias=True),
    }
    return ModelConfig(**(fields | changes))


def test_the_released_config_is_read_as_the_preset():
    config, seq_len = BART.from_config(RELEASED)
    assert first_difference(config, PRESETS["encoder_decoder/bart_large"]().model) is None
    assert seq_len == 1024


def test_an_imported_model_gives_their_logits(tmp_path):
    check_import(bart(scale_embedding=True, activation_function="gelu_new"), tmp_path)


@pytest.mark.parametrize("changes", [{}, {"scale_embedding": True, "activation_function": "relu"}])
def test_imported_and_written_again_it_is_the_same(changes, tmp_path):
    imported = check_round_trip(bart(**changes), tmp_path)
    assert (imported.config.num_encoder_layers, imported.config.num_layers) == (3, 2)
    assert imported.config.embedding.scale_by_width == bool(changes)
    assert imported.seq_len == 36
    np.testing.assert_array_equal(
        imported.params["head"]["bias"], np.arange(97, dtype=np.float32) / 64 - 1
    )


@pytest.mark.slow
def test_an_exported_model_is_loaded_whole_and_gives_our_logits(tokenizer, tmp_path):
    check_export(our_bart(), "bart", tokenizer, tmp_path / "x")


def test_a_model_saved_without_its_head_is_read_with_it(tmp_path):
    model = bart("BartModel")
    model.save_pretrained(str(tmp_path))
    params = import_folder(tmp_path).params
    np.testing.assert_array_equal(params["head"]["bias"], np.zeros(97, np.float32))
    np.testing.assert_array_equal(
        params["token_embedding"]["embedding"], model.shared.weight.detach().numpy()
    )


def test_tables_stored_once_more_are_read_and_must_agree(tmp_path):
    bart().save_pretrained(str(tmp_path))
    expected = import_folder(tmp_path).params
    tensors = read_tensors(tmp_path)
    copies = BART.copies(import_folder(tmp_path).config)
    (tmp_path / SINGLE).unlink()
    write_tensors(tensors | dict.fromkeys(copies, tensors["model.shared.weight"]), tmp_path)
    np.testing.assert_equal(import_folder(tmp_path).params, expected)
    tensors["lm_head.weight"] = tensors["model.shared.weight"] + 1
    write_tensors(tensors, tmp_path)
    with pytest.raises(InputError, match="^lm_head.weight: got numbers that differ"):
        import_folder(tmp_path)


def test_decoding_begins_with_the_token_that_training_began_with():
    theirs = BART.to_config(our_bart(), 64, IDS)
    assert theirs["decoder_start_token_id"] == IDS.bos
    assert theirs["forced_eos_token_id"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("decoder_attention_heads", 2),
        ("decoder_ffn_dim", 48),
        ("d_model", 25),
        ("num_hidden_layers", 7),
        ("tie_word_embeddings", False),
        ("activation_function", "tanh"),
        ("normalize_before", True),
        ("normalize_embedding", False),
        ("static_position_embeddings", True),
        ("do_blenderbot_90_layernorm", True),
        ("is_encoder_decoder", False),
        ("architectures", ["BartForSequenceClassification"]),
    ],
)
def test_what_our_model_cannot_express_is_refused_by_field(field, value):
    from export.families import family_of

    theirs = BART.to_config(our_bart(), 64, IDS) | {field: value}
    with pytest.raises(InputError, match=f"^{field}: got") as caught:
        family_of(theirs).from_config(theirs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"norm": LayerNormConfig(epsilon=1e-6)}, "model.norm.epsilon"),
        ({"norm_placement": "pre"}, "model.norm_placement"),
        ({"head": LinearHeadConfig()}, "model.head.use_bias"),
        ({"position": LearnedPositionConfig(num_positions=80)}, "model.position.offset"),
        ({"embedding": EmbeddingConfig()}, "model.embedding.use_norm"),
        ({"tie_embeddings": False}, "tie_word_embeddings"),
        ({"mlp": ReLUConfig(mlp_dim=40)}, "model.mlp.use_bias"),
    ],
)
def test_what_bart_cannot_express_is_refused_by_field(changes, field):
    with pytest.raises(InputError, match=f"^{field}: got"):
        express(our_bart(**changes), BART, 64, IDS)
