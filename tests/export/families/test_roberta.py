"""RoBERTa: positions that count from after the padding id, a head whose GELU is exact."""

from dataclasses import replace
from typing import Any

import pytest

from configs.errors import InputError
from configs.mlp_config import GELUConfig
from configs.model_config import MaskedLMHeadConfig, ModelConfig, NoHeadConfig
from configs.position_config import LearnedPositionConfig
from configs.presets import PRESETS
from export.express import express, first_difference
from export.families.family import SpecialIds
from export.families.roberta import ROBERTA
from tests.export.families.parity import (
    IDS,
    check_export,
    check_import,
    check_round_trip,
    perturb,
)
from tests.export.families.test_bert import our_bert

# The released config.json of RoBERTa-base.
RELEASED: dict[str, Any] = {
    "architectures": ["RobertaForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "roberta",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "type_vocab_size": 1,
    "vocab_size": 50265,
}


def roberta(class_name: str, **changes: Any) -> Any:
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 36,
        "intermediate_size": 52,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
        "type_vocab_size": 1,
        "attn_implementation": "eager",
    }
    config = transformers.RobertaConfig(**(sizes | changes))
    return perturb(getattr(transformers, class_name)(config))


def our_roberta(**changes: Any) -> ModelConfig:
    """With the offset that goes with our tokenizer's padding, whose id is 0."""
    position = LearnedPositionConfig(num_positions=70, offset=1)
    return replace(our_bert(), **({"position": position} | changes))


def test_the_released_config_is_read_as_the_preset():
    config, seq_len = ROBERTA.from_config(RELEASED)
    # Their id of padding is 1, ours 0: the preset counts positions from one row earlier.
    preset = PRESETS["encoder_only/roberta_base"]().model
    assert first_difference(config, preset) == ("model.position.offset", 2, 1)
    assert seq_len == 512


@pytest.mark.parametrize(
    ("class_name", "changes"),
    [
        ("RobertaForMaskedLM", {"hidden_act": "gelu_new"}),
        ("RobertaModel", {"pad_token_id": 3, "layer_norm_eps": 1e-3}),
    ],
)
def test_an_imported_model_gives_their_outputs(class_name, changes, tmp_path):
    check_import(roberta(class_name, **changes), tmp_path)


@pytest.mark.parametrize("class_name", ["RobertaForMaskedLM", "RobertaModel"])
def test_imported_and_written_again_it_is_the_same(class_name, tmp_path):
    imported = check_round_trip(roberta(class_name, pad_token_id=IDS.pad), tmp_path)
    assert isinstance(imported.config.head, NoHeadConfig) == (class_name == "RobertaModel")
    assert imported.seq_len == 39


def test_an_exported_model_is_loaded_whole_and_gives_our_outputs(tokenizer, tmp_path):
    config = our_roberta(mlp=GELUConfig(mlp_dim=56, gelu="tanh"))
    check_export(config, "roberta", tokenizer, tmp_path / "x")


@pytest.mark.parametrize("pad_id", [None, -1, "1", True])
def test_a_padding_id_that_no_position_can_follow_is_refused(pad_id):
    theirs = ROBERTA.to_config(our_roberta(), 69, IDS) | {"pad_token_id": pad_id}
    with pytest.raises(InputError, match="^pad_token_id: got"):
        ROBERTA.from_config(theirs)


def test_the_offset_must_follow_the_tokenizers_padding():
    position = LearnedPositionConfig(num_positions=70, offset=2)
    with pytest.raises(InputError, match="^model.position.offset: got 2, expected 1,"):
        express(our_roberta(position=position), ROBERTA, 68, IDS)
    theirs = express(our_roberta(position=position), ROBERTA, 68, SpecialIds(pad=1))
    assert theirs["pad_token_id"] == 1


def test_a_head_whose_gelu_is_not_exact_is_refused():
    with pytest.raises(InputError, match="^model.head.gelu: got 'tanh', expected 'exact'"):
        express(our_roberta(head=MaskedLMHeadConfig(gelu="tanh")), ROBERTA, 69, IDS)
