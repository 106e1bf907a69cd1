"""GPT-2: one tensor for query, key and value; learned positions; biases all over."""

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs.mlp_config import GELUConfig
from configs.model_config import AttentionConfig, LayerNormConfig
from configs.position_config import LearnedPositionConfig
from export.convert import flatten
from export.import_ import import_folder
from export.tensors import SINGLE
from tests.export.families.parity import check_export, check_import, check_round_trip, perturb
from tests.export.samples import make_config

THEIRS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied, exact GELU, odd width of the MLP": {
        "tie_word_embeddings": False,
        "activation_function": "gelu",
        "n_inner": 50,
        "layer_norm_epsilon": 1e-3,
    },
}

SCANNED = ((True, False), (True,))  # whether layers are scanned


def gpt2(**changes: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "n_embd": 36,
        "n_layer": 3,
        "n_head": 6,
        "n_positions": 40,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    return perturb(GPT2LMHeadModel(GPT2Config(**(sizes | changes))))


@pytest.mark.parametrize(("name", "scan_layers"), list(zip(THEIRS, SCANNED, strict=True)))
def test_an_imported_model_gives_their_logits(name, scan_layers, tmp_path):
    check_import(gpt2(**THEIRS[name]), tmp_path, scan_layers=scan_layers)


@pytest.mark.parametrize("name", THEIRS)
def test_imported_and_written_again_it_is_the_same(name, tmp_path):
    imported = check_round_trip(gpt2(**THEIRS[name]), tmp_path)
    assert imported.seq_len == 40


@pytest.mark.slow
def test_an_exported_model_is_loaded_whole_and_gives_our_logits(tokenizer, tmp_path):
    config = make_config(
        norm=LayerNormConfig(epsilon=1e-4),
        position=LearnedPositionConfig(num_positions=70),
        mlp=GELUConfig(mlp_dim=44),
        attention=AttentionConfig(
            num_heads=4, num_kv_heads=4, head_dim=8, use_qkv_bias=True, use_out_bias=True
        ),
        tie_embeddings=False,
    )
    check_export(config, "gpt2", tokenizer, tmp_path / "x")


def test_names_without_prefix_causal_masks_and_a_stored_tied_head_make_no_difference(tmp_path):
    gpt2().save_pretrained(str(tmp_path))
    plain = flatten(import_folder(tmp_path).params)
    tensors = {
        name.removeprefix("transformer."): array
        for name, array in load_file(tmp_path / SINGLE).items()
    }
    mask = np.tril(np.ones((1, 1, 40, 40), np.uint8))  # of a type that is no parameter's
    tensors |= {f"h.{layer}.attn.bias": mask for layer in range(3)}
    tensors["lm_head.weight"] = tensors["wte.weight"]
    save_file(tensors, tmp_path / SINGLE)
    renamed = flatten(import_folder(tmp_path).params)
    assert renamed.keys() == plain.keys()
    assert all(np.array_equal(renamed[path], plain[path]) for path in plain)
