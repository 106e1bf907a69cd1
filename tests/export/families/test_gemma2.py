"""Gemma 2: sandwich norms stored minus one, soft caps, windows in every other layer."""

from typing import Any

import pytest

from configs.mlp_config import GEGLUConfig
from configs.model_config import AttentionConfig, EmbeddingConfig, LinearHeadConfig, RMSNormConfig
from tests.export.families.parity import check_export, check_import, check_round_trip, perturb
from tests.export.samples import make_config

# Soft caps low enough to bend the scores and logits of a tiny model.
THEIRS: dict[str, dict[str, Any]] = {
    "low soft caps": {
        "attn_logit_softcapping": 1.5,
        "final_logit_softcapping": 2.0,
        "query_pre_attn_scalar": 7,
    },
    "no soft caps, biases, untied, windows first": {
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "query_pre_attn_scalar": 6,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "hidden_activation": "gelu",
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
}

SCANNED = ((True, False), (True,))  # whether layers are scanned


def gemma2(**changes: Any) -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "sliding_window": 4,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-4,
    }
    return perturb(Gemma2ForCausalLM(Gemma2Config(**(sizes | changes))))


@pytest.mark.parametrize(("name", "scan_layers"), list(zip(THEIRS, SCANNED, strict=True)))
def test_an_imported_model_gives_their_logits(name, scan_layers, tmp_path):
    check_import(gemma2(**THEIRS[name]), tmp_path, scan_layers=scan_layers)


@pytest.mark.parametrize("name", THEIRS)
def test_imported_and_written_again_it_is_the_same(name, tmp_path):
    imported = check_round_trip(gemma2(**THEIRS[name]), tmp_path)
    patterns = {"low soft caps": ("window", "full")}
    expected = patterns.get(name, ("window", "window", "full"))
    assert imported.config.attention.layer_pattern == expected


@pytest.mark.slow
def test_an_exported_model_is_loaded_whole_and_gives_our_logits(tokenizer, tmp_path):
    config = make_config(
        norm=RMSNormConfig(epsilon=1e-4, scale_offset=1.0),
        norm_placement="sandwich",
        mlp=GEGLUConfig(mlp_dim=44),
        embedding=EmbeddingConfig(scale_by_width=True),
        head=LinearHeadConfig(logit_softcap=3.0),
        attention=AttentionConfig(
            num_heads=4,
            num_kv_heads=2,
            head_dim=6,
            window=5,
            layer_pattern=("full", "window"),
            logit_softcap=2.0,
            query_scale=9**-0.5,
        ),
    )
    check_export(config, "gemma2", tokenizer, tmp_path / "x")
