"""Mixtral: a tensor per expert, a router, windows in all layers or none."""

from typing import Any

import pytest

from configs.mlp_config import MoEConfig
from configs.model_config import AttentionConfig
from tests.export.families.parity import check_export, check_import, check_round_trip, perturb
from tests.export.samples import make_config

THEIRS: dict[str, dict[str, Any]] = {
    "two of five experts, windows": {"num_local_experts": 5, "sliding_window": 4},
    "three of four experts, tied": {
        "num_local_experts": 4,
        "num_experts_per_tok": 3,
        "tie_word_embeddings": True,
    },
}

SCANNED = ((True, False), (True,))  # whether layers are scanned


def mixtral(**changes: Any) -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-4,
    }
    return perturb(MixtralForCausalLM(MixtralConfig(**(sizes | changes))))


@pytest.mark.parametrize(("name", "scan_layers"), list(zip(THEIRS, SCANNED, strict=True)))
@pytest.mark.slow
def test_an_imported_model_gives_their_logits(name, scan_layers, tmp_path):
    check_import(mixtral(**THEIRS[name]), tmp_path, scan_layers=scan_layers)


@pytest.mark.parametrize("name", THEIRS)
def test_imported_and_written_again_it_is_the_same(name, tmp_path):
    check_round_trip(mixtral(**THEIRS[name]), tmp_path)


@pytest.mark.slow
def test_an_exported_model_is_loaded_whole_and_gives_our_logits(tokenizer, tmp_path):
    config = make_config(
        mlp=MoEConfig(mlp_dim=36, num_experts=3, experts_per_token=2),
        attention=AttentionConfig(
            num_heads=4, num_kv_heads=2, head_dim=10, window=6, layer_pattern=("window",)
        ),
        tie_embeddings=False,
    )
    check_export(config, "mixtral", tokenizer, tmp_path / "x")
