"""Gemma 3's text models: a rotation for windows and one for the rest, normed queries and keys."""

from typing import Any

import pytest

from configs.mlp_config import GEGLUConfig
from configs.model_config import AttentionConfig, EmbeddingConfig, RMSNormConfig
from configs.position_config import LinearScalingConfig, RopeConfig
from export.families.gemma3 import GEMMA3
from tests.export.families.parity import check_export, check_import, check_round_trip, perturb
from tests.export.samples import make_config

THEIRS: dict[str, dict[str, Any]] = {
    "one full layer of two, scaled": {
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 8,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 900.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
        },
    },
    "their own pattern, untied, biases, soft cap on logits": {
        "num_hidden_layers": 4,
        "layer_types": [
            "full_attention",
            "sliding_attention",
            "sliding_attention",
            "full_attention",
        ],
        "query_pre_attn_scalar": 5,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "final_logit_softcapping": 2.0,
    },
}

SCANNED = ((True, False), (True,))  # whether layers are scanned


def gemma3(**changes: Any) -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 24,
        "intermediate_size": 44,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 4,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-4,
    }
    return perturb(Gemma3ForCausalLM(Gemma3TextConfig(**(sizes | changes))))


@pytest.mark.parametrize(("name", "scan_layers"), list(zip(THEIRS, SCANNED, strict=True)))
def test_an_imported_model_gives_their_logits(name, scan_layers, tmp_path):
    check_import(gemma3(**THEIRS[name]), tmp_path, scan_layers=scan_layers)


@pytest.mark.parametrize("name", THEIRS)
def test_imported_and_written_again_it_is_the_same(name, tmp_path):
    imported = check_round_trip(gemma3(**THEIRS[name]), tmp_path)
    patterns = {"one full layer of two, scaled": ("window", "full")}
    expected = patterns.get(name, ("full", "window", "window"))
    assert imported.config.attention.layer_pattern == expected


def test_an_exported_model_is_loaded_whole_and_gives_our_logits(tokenizer, tmp_path):
    config = make_config(
        norm=RMSNormConfig(epsilon=1e-4, scale_offset=1.0),
        norm_placement="sandwich",
        mlp=GEGLUConfig(mlp_dim=44),
        embedding=EmbeddingConfig(scale_by_width=True),
        position=RopeConfig(theta=800.0, local_theta=20.0, scaling=LinearScalingConfig(factor=2)),
        attention=AttentionConfig(
            num_heads=4,
            num_kv_heads=2,
            head_dim=10,
            window=5,
            layer_pattern=("window", "window", "full"),
            qk_norm=True,
        ),
    )
    check_export(config, "gemma3", tokenizer, tmp_path / "x")


def test_keys_of_transformers_4_mean_what_they_mean_to_transformers():
    from transformers import Gemma3TextConfig

    sizes = {"vocab_size": 97, "hidden_size": 24, "intermediate_size": 44}
    old = {
        **sizes,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "sliding_window_pattern": 4,
        "rope_theta": 70_000.0,
        "rope_local_base_freq": 300.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    theirs: Any = Gemma3TextConfig(**old)
    config, seq_len = GEMMA3.from_config({**old, "model_type": "gemma3_text"})
    position, attention = config.position, config.attention
    assert isinstance(position, RopeConfig)
    full, local = (theirs.rope_parameters[f"{name}_attention"] for name in ("full", "sliding"))
    assert (position.theta, position.local_theta) == (full["rope_theta"], local["rope_theta"])
    assert position.scaling == LinearScalingConfig(factor=full["factor"])
    assert attention.layer_pattern == ("window", "window", "window", "full")
    assert attention.window == theirs.sliding_window
    assert (attention.num_kv_heads, attention.head_dim) == (
        theirs.num_key_value_heads,
        theirs.head_dim,
    )
    assert seq_len == theirs.max_position_embeddings
    assert config.tie_embeddings == theirs.tie_word_embeddings
