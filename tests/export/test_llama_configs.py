"""Llama's config.json, both ways, and what is refused."""

from typing import Any

import pytest

from configs.errors import InputError
from configs.model_config import AttentionConfig
from configs.position_config import RopeConfig
from export.express import express, first_difference
from export.families import family_of, get_family
from export.families.family import SpecialIds
from export.families.llama import LLAMA
from tests.export.samples import MODELS, make_config

IDS = SpecialIds(pad=0, bos=2, eos=3)


@pytest.mark.parametrize("name", MODELS)
def test_a_config_survives_the_way_there_and_back(name):
    config = make_config(**MODELS[name])
    read, seq_len = LLAMA.from_config(LLAMA.to_config(config, 96, IDS))
    assert (first_difference(read, config), seq_len) == (None, 96)


def test_rope_base_is_read_from_either_generation_of_config():
    theirs = LLAMA.to_config(make_config(), 96, IDS)
    old = {key: value for key, value in theirs.items() if key != "rope_parameters"}
    new = {key: value for key, value in theirs.items() if key != "rope_theta"}
    for variant in (old, new):
        assert LLAMA.from_config(variant)[0].position == RopeConfig(theta=5_000.0)


def test_missing_optional_fields_mean_what_they_mean_to_transformers():
    from transformers import LlamaConfig

    required = {
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    theirs: Any = LlamaConfig(**{k: v for k, v in required.items() if k != "model_type"})
    config, seq_len = LLAMA.from_config(required)
    assert config.norm.epsilon == theirs.rms_norm_eps
    assert config.attention.num_kv_heads == theirs.num_key_value_heads
    assert config.attention.head_dim == theirs.head_dim
    assert config.tie_embeddings == theirs.tie_word_embeddings
    assert config.position == RopeConfig(theta=theirs.rope_parameters["rope_theta"])
    assert seq_len == theirs.max_position_embeddings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attention_bias", "yes"),
        ("hidden_act", "relu"),
        ("hidden_act", ["silu"]),
        ("rope_scaling", {"type": "dynamic", "factor": 2.0}),
        ("rope_scaling", {"type": "linear"}),
        ("rope_scaling", {"rope_type": "default", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 2.0, "truncate": False}),
        ("rope_parameters", {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}),
        ("rope_parameters", {"rope_theta": 5e5, "partial_rotary_factor": 0.5}),
        ("rope_parameters", 3),
        ("partial_rotary_factor", 0.5),
        ("quantization_config", {"bits": 4}),
        ("pretraining_tp", 2),
        ("auto_map", {"AutoModelForCausalLM": "remote.Code"}),
        ("a_key_of_the_future", False),
        ("vocab_size", None),
        ("vocab_size", "512"),
        ("num_hidden_layers", 0),
        ("num_attention_heads", True),
        ("rms_norm_eps", "small"),
        ("rms_norm_eps", True),
        ("tie_word_embeddings", 1),
    ],
)
def test_what_our_model_cannot_express_is_refused_by_field(field, value):
    theirs = LLAMA.to_config(make_config(), 96, IDS) | {field: value}
    with pytest.raises(InputError, match=f"^{field}") as caught:
        LLAMA.from_config(theirs)
    assert "\n" not in str(caught.value)


def test_a_width_transformers_would_refuse_is_refused_before_writing():
    config = make_config(attention=AttentionConfig(num_heads=6, num_kv_heads=2, head_dim=8))
    with pytest.raises(InputError, match="^model.emb_dim: got 32"):
        express(config, LLAMA, 96, IDS)


def test_unknown_families_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match="expected one of .*llama"):
        get_family("lama")
    with pytest.raises(InputError, match="^model_type: got 'bloom', expected .*'llama'"):
        family_of({"model_type": "bloom"})
    with pytest.raises(InputError, match=r"^architectures: got \['LlamaForTokenClassification'\]"):
        family_of({"model_type": "llama", "architectures": ["LlamaForTokenClassification"]})
    assert family_of({"model_type": "llama"}) is LLAMA


def test_keys_without_effect_and_empty_ones_are_passed_over():
    theirs = LLAMA.to_config(make_config(), 96, IDS)
    more = {
        "attention_dropout": 0.1,
        "id2label": {"0": "x"},
        "temperature": 0.7,
        "unheard_of": None,
    }
    assert LLAMA.from_config(theirs | more) == LLAMA.from_config(theirs)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"type": "yarn", "factor": 2.0, "attention_factor": 1.2, "beta_fast": 8},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ],
)
def test_a_scaled_rotation_reads_alike_in_the_writing_of_transformers_4_and_5(scaling):
    theirs = LLAMA.to_config(make_config(), 96, IDS)
    old = {key: value for key, value in theirs.items() if key != "rope_parameters"}
    new = {key: value for key, value in theirs.items() if key != "rope_theta"}
    old |= {"rope_scaling": scaling}
    new |= {"rope_parameters": {**scaling, "rope_theta": theirs["rope_theta"]}}
    config, seq_len = LLAMA.from_config(old)
    assert LLAMA.from_config(new) == (config, seq_len)
    assert isinstance(config.position, RopeConfig)
    assert config.position.theta == 5_000.0 and config.position.scaling.kind != "none"
    assert LLAMA.from_config(LLAMA.to_config(config, seq_len, IDS)) == (config, seq_len)
