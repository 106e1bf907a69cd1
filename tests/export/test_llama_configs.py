"""Llama's config.json, both ways, and what is refused."""

from typing import Any

import pytest

from configs.errors import InputError
from configs.model_config import AttentionConfig
from export.families import family_of, get_family
from export.families.family import SpecialIds
from export.families.llama import LLAMA
from tests.export.samples import MODELS, make_config

IDS = SpecialIds(pad=0, bos=2, eos=3)


@pytest.mark.parametrize("name", MODELS)
def test_a_config_survives_the_way_there_and_back(name):
    config = make_config(**MODELS[name])
    assert LLAMA.from_config(LLAMA.to_config(config, 96, IDS)) == (config, 96)


def test_rope_base_is_read_from_either_generation_of_config():
    theirs = LLAMA.to_config(make_config(), 96, IDS)
    old = {key: value for key, value in theirs.items() if key != "rope_parameters"}
    new = {key: value for key, value in theirs.items() if key != "rope_theta"}
    for variant in (old, new):
        assert LLAMA.from_config(variant)[0].position.theta == 5_000.0


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
    assert config.position.theta == theirs.rope_parameters["rope_theta"]
    assert seq_len == theirs.max_position_embeddings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "mistral"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("hidden_act", "gelu"),
        ("attention_dropout", 0.1),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "default", "factor": 2.0}),
        ("rope_parameters", {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}),
        ("rope_parameters", {"rope_theta": 5e5, "partial_rotary_factor": 0.5}),
        ("rope_parameters", 3),
        ("partial_rotary_factor", 0.5),
        ("quantization_config", {"bits": 4}),
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
        LLAMA.to_config(config, 96, IDS)


def test_unknown_families_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match="expected one of llama"):
        get_family("lama")
    with pytest.raises(InputError, match="^model_type: got 'bert', expected 'llama'"):
        family_of("bert")
