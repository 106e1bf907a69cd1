"""ModernBERT: windows both ways, two rotations, fused projections, a first layer without norm."""

from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from configs.mlp_config import GEGLUConfig, SwiGLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    MaskedLMHeadConfig,
    ModelConfig,
)
from configs.position_config import LinearScalingConfig, RopeConfig
from configs.presets import PRESETS
from export.express import express, first_difference
from export.families.modernbert import MODERNBERT
from tests.export.families.parity import (
    IDS,
    check_export,
    check_import,
    check_round_trip,
    perturb,
)
from tests.export.samples import VOCAB_SIZE

# Windows of 5 and of 4 places each way, shorter than the texts.
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "no biases, every third layer full": ("ModernBertForMaskedLM", {"local_attention": 10}),
    "all biases, untied, odd layers, scaled": (
        "ModernBertForMaskedLM",
        {
            "local_attention": 9,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_bias": True,
            "decoder_bias": False,
            "tie_word_embeddings": False,
            "hidden_activation": "gelu_pytorch_tanh",
            "classifier_activation": "gelu_pytorch_tanh",
            "norm_eps": 1e-3,
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 900.0, "factor": 3.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
    ),
    "no head": ("ModernBertModel", {"local_attention": 10, "layer_types": ["full_attention"] * 4}),
}
# The released config.json of ModernBERT-base.
RELEASED: dict[str, Any] = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 50281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 50282,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "sep_token_id": 50282,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": 50368,
}


def modernbert(class_name: str, **changes: Any) -> Any:
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 40,
        "intermediate_size": 52,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 48,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "cls_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 900.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
        "attn_implementation": "eager",
    }
    config = transformers.ModernBertConfig(**(sizes | changes))
    return perturb(getattr(transformers, class_name)(config))


def our_modernbert(**changes: Any) -> ModelConfig:
    fields: dict[str, Any] = {
        "architecture": "encoder_only",
        "vocab_size": VOCAB_SIZE,
        "emb_dim": 32,
        "num_layers": 5,
        "attention": AttentionConfig(
            num_heads=4,
            num_kv_heads=4,
            head_dim=8,
            window=3,
            layer_pattern=("full", "window", "window"),
        ),
        "position": RopeConfig(theta=2_000.0, local_theta=100.0),
        "norm": LayerNormConfig(use_bias=False),
        "skip_first_norm": True,
        "mlp": GEGLUConfig(mlp_dim=56, gelu="exact"),
        "embedding": EmbeddingConfig(use_norm=True),
        "head": MaskedLMHeadConfig(use_dense_bias=False),
    }
    return ModelConfig(**(fields | changes))


def test_the_released_config_is_read_as_the_preset():
    config, seq_len = MODERNBERT.from_config(RELEASED)
    assert first_difference(config, PRESETS["encoder_only/modernbert_base"]().model) is None
    assert seq_len == 8192


@pytest.mark.parametrize("name", THEIRS)
def test_an_imported_model_gives_their_outputs(name, tmp_path):
    class_name, changes = THEIRS[name]
    check_import(modernbert(class_name, **changes), tmp_path)


@pytest.mark.parametrize("name", THEIRS)
def test_imported_and_written_again_it_is_the_same(name, tmp_path):
    class_name, changes = THEIRS[name]
    imported = check_round_trip(modernbert(class_name, **changes), tmp_path)
    attention = imported.config.attention
    assert attention.window == (
        5 + (name[:2] != "al") if "window" in attention.layer_pattern else 0
    )
    unused_row = imported.params["encoder"]["layers"]["attention_norm"]["scale"][0]
    np.testing.assert_array_equal(unused_row, np.ones(40, np.float32))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "head": MaskedLMHeadConfig(use_bias=False, gelu="tanh"),
            "norm": LayerNormConfig(),
            "mlp": SwiGLUConfig(mlp_dim=56, use_bias=True),
            "tie_embeddings": False,
            "attention": AttentionConfig(
                num_heads=4,
                num_kv_heads=4,
                head_dim=8,
                window=1,
                layer_pattern=("window", "full"),
                use_qkv_bias=True,
                use_out_bias=True,
            ),
        },
    ],
    ids=["as released", "all else"],
)
def test_an_exported_model_is_loaded_whole_and_gives_our_outputs(changes, tokenizer, tmp_path):
    check_export(our_modernbert(**changes), "modernbert", tokenizer, tmp_path / "x")


def test_configs_of_both_generations_mean_the_same():
    theirs = MODERNBERT.to_config(our_modernbert(), 64, IDS)
    old = {k: v for k, v in theirs.items() if k not in ("layer_types", "rope_parameters")}
    new = {k: v for k, v in theirs.items() if "global" not in k and k != "local_rope_theta"}
    expected = MODERNBERT.from_config(theirs)
    assert old["global_attn_every_n_layers"] == 3
    assert MODERNBERT.from_config(old) == MODERNBERT.from_config(new) == expected


@pytest.mark.parametrize("local_attention", [1, 2, 7, 128])
def test_a_window_reaches_as_far_as_theirs(local_attention):
    from transformers import ModernBertConfig

    theirs = MODERNBERT.to_config(our_modernbert(), 64, IDS) | {"local_attention": local_attention}
    window = MODERNBERT.from_config(theirs)[0].attention.window
    farthest = ModernBertConfig(local_attention=local_attention).sliding_window
    assert window - 1 == farthest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_activation", "relu"),
        ("classifier_activation", "silu"),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["chunked_attention"] * 5),
        ("rope_parameters", {"rope_type": "default"}),
        ("local_attention", 0),
        ("hidden_size", 33),
        ("architectures", ["ModernBertForTokenClassification"]),
    ],
)
def test_what_our_model_cannot_express_is_refused_by_field(field, value):
    from export.families import family_of

    theirs = MODERNBERT.to_config(our_modernbert(), 64, IDS) | {field: value}
    with pytest.raises(InputError, match=f"^{field}: got") as caught:
        family_of(theirs).from_config(theirs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"skip_first_norm": False}, "model.skip_first_norm"),
        ({"norm_placement": "sandwich"}, "model.norm_placement"),
        ({"embedding": EmbeddingConfig()}, "model.embedding.use_norm"),
        (
            {"attention": AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8)},
            "model.attention.num_kv_heads",
        ),
        (
            {
                "position": RopeConfig(scaling=LinearScalingConfig(factor=2.0)),
                "attention": AttentionConfig(qk_norm=True, num_heads=4, head_dim=8),
            },
            "model.attention.qk_norm",
        ),
    ],
)
def test_what_modernbert_cannot_express_is_refused_by_field(changes, field):
    changes = {"position": RopeConfig()} | changes if "attention" in changes else changes
    with pytest.raises(InputError, match=f"^{field}: got"):
        express(our_modernbert(**changes), MODERNBERT, 64, IDS)
