"""Qwen 3: normed queries and keys, heads of any width, windows in some layers."""

from typing import Any

import pytest

from configs.mlp_config import GEGLUConfig
from configs.model_config import AttentionConfig
from configs.position_config import RopeConfig, YarnScalingConfig
from tests.export.families.parity import check_export, check_import, check_round_trip, perturb
from tests.export.samples import make_config

THEIRS: dict[str, dict[str, Any]] = {
    "biases, windows in the last layers": {
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 2,
    },
    "tied, yarn": {
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 500.0,
            "factor": 2.0,
            "original_max_position_embeddings": 8,
        },
    },
}

SCANNED = ((True, False), (True,))  # whether layers are scanned


def qwen3(**changes: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 28,
        "intermediate_size": 44,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-4,
    }
    return perturb(Qwen3ForCausalLM(Qwen3Config(**(sizes | changes))))


@pytest.mark.parametrize(("name", "scan_layers"), list(zip(THEIRS, SCANNED, strict=True)))
def test_an_imported_model_gives_their_logits(name, scan_layers, tmp_path):
    check_import(qwen3(**THEIRS[name]), tmp_path, scan_layers=scan_layers)


@pytest.mark.parametrize("name", THEIRS)
def test_imported_and_written_again_it_is_the_same(name, tmp_path):
    imported = check_round_trip(qwen3(**THEIRS[name]), tmp_path)
    windows = {"biases, windows in the last layers": (("full", "full", "window"), 4)}
    attention = imported.config.attention
    assert (attention.layer_pattern, attention.window) == windows.get(name, (("full",), 0))


def test_an_exported_model_is_loaded_whole_and_gives_our_logits(tokenizer, tmp_path):
    config = make_config(
        emb_dim=28,
        position=RopeConfig(
            theta=700.0, scaling=YarnScalingConfig(original_length=16, attention_factor=1.5)
        ),
        mlp=GEGLUConfig(mlp_dim=40, gelu="exact"),
        attention=AttentionConfig(
            num_heads=6,
            num_kv_heads=3,
            head_dim=8,
            qk_norm=True,
            window=5,
            layer_pattern=("window", "full"),
            use_qkv_bias=True,
            use_out_bias=True,
        ),
        tie_embeddings=False,
    )
    check_export(config, "qwen3", tokenizer, tmp_path / "x")
