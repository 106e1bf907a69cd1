"""Llama: scaled rotation, biases, grouped queries, heads that are not the width's share."""

from typing import Any

import pytest

from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig
from configs.position_config import Llama3ScalingConfig, RopeConfig
from tests.export.families.parity import check_export, check_import, check_round_trip, perturb
from tests.export.samples import make_config

# Original lengths shorter than the texts, so that the scaling reaches every feature.
THEIRS: dict[str, dict[str, Any]] = {
    "biases, llama3 scaling": {
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 100.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 3.0,
            "original_max_position_embeddings": 20,
        },
    },
    "tied, yarn scaling, odd epsilon, tanh GELU": {
        "head_dim": 16,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-3,
        "hidden_act": "gelu_pytorch_tanh",
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 300.0,
            "factor": 4.0,
            "beta_fast": 1.5,
            "beta_slow": 0.2,
            "original_max_position_embeddings": 32,
        },
    },
}
SCANNED = ((True, False), (True,))  # whether layers are scanned


def llama(**changes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 36,
        "intermediate_size": 52,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "max_position_embeddings": 64,
        "attn_implementation": "eager",
    }
    return perturb(LlamaForCausalLM(LlamaConfig(**(sizes | changes))))


@pytest.mark.parametrize(("name", "scan_layers"), list(zip(THEIRS, SCANNED, strict=True)))
def test_an_imported_model_gives_their_logits(name, scan_layers, tmp_path):
    check_import(llama(**THEIRS[name]), tmp_path, scan_layers=scan_layers)


@pytest.mark.parametrize("name", THEIRS)
def test_imported_and_written_again_it_is_the_same(name, tmp_path):
    check_round_trip(llama(**THEIRS[name]), tmp_path)


def test_an_exported_model_is_loaded_whole_and_gives_our_logits(tokenizer, tmp_path):
    config = make_config(
        position=RopeConfig(theta=200.0, scaling=Llama3ScalingConfig(original_length=32)),
        attention=AttentionConfig(
            num_heads=4, num_kv_heads=2, head_dim=12, use_qkv_bias=True, use_out_bias=True
        ),
        mlp=SwiGLUConfig(mlp_dim=40, use_bias=True),
    )
    check_export(config, "llama", tokenizer, tmp_path / "x")
