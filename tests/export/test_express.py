"""Whatever a family has no word for is refused by our field's name, before anything is written."""

from dataclasses import replace
from typing import Any

import pytest

from configs.errors import InputError
from configs.mlp_config import GEGLUConfig, GELUConfig, MoEConfig, SquaredReLUConfig, SwiGLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    LinearHeadConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    MuPInitConfig,
    NoHeadConfig,
    RMSNormConfig,
    T5InitConfig,
)
from configs.position_config import (
    AlibiConfig,
    LearnedPositionConfig,
    NoPositionConfig,
    RelativeBiasConfig,
    RopeConfig,
    SinusoidalPositionConfig,
)
from export.express import express, first_difference, meaning
from export.families import get_family
from export.families.family import SpecialIds
from export.families.layer_types import shortest_pattern
from tests.export.samples import make_config

IDS = SpecialIds(pad=0, bos=2, eos=3)
HEADS: dict[str, Any] = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
GPT2: dict[str, Any] = {
    "norm": LayerNormConfig(),
    "position": LearnedPositionConfig(num_positions=64),
    "mlp": GELUConfig(mlp_dim=44),
    "attention": AttentionConfig(
        num_heads=4, num_kv_heads=4, head_dim=8, use_qkv_bias=True, use_out_bias=True
    ),
}
GEMMA2: dict[str, Any] = {
    "norm": RMSNormConfig(scale_offset=1.0),
    "norm_placement": "sandwich",
    "mlp": GEGLUConfig(mlp_dim=44),
    "embedding": EmbeddingConfig(scale_by_width=True),
}
QWEN3: dict[str, Any] = {"attention": AttentionConfig(qk_norm=True)}
MIXTRAL: dict[str, Any] = {"mlp": MoEConfig(mlp_dim=36)}
WINDOWED: dict[str, Any] = {"window": 4, "layer_pattern": ("window", "full")}


def refused(family: str, base: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        express(make_config(**(base | changes)), get_family(family), 64, IDS)
    assert "\n" not in str(caught.value) and family in str(caught.value)
    return str(caught.value).split(":")[0]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("model.norm.kind", {"norm": LayerNormConfig()}),
        ("model.norm.scale_offset", {"norm": RMSNormConfig(scale_offset=1.0)}),
        ("model.norm_placement", {"norm_placement": "sandwich"}),
        ("model.norm_placement", {"norm_placement": "post"}),
        ("model.skip_first_norm", {"skip_first_norm": True}),
        ("model.position.kind", {"position": LearnedPositionConfig()}),
        ("model.position.kind", {"position": SinusoidalPositionConfig()}),
        ("model.position.kind", {"position": RelativeBiasConfig()}),
        ("model.position.kind", {"position": AlibiConfig()}),
        ("model.position.kind", {"position": NoPositionConfig()}),
        ("model.mlp.kind", {"mlp": SquaredReLUConfig()}),
        ("model.mlp.kind", {"mlp": MoEConfig()}),
        ("model.head.kind", {"head": NoHeadConfig()}),
        ("model.head.kind", {"head": MaskedLMHeadConfig()}),
        ("model.head.use_bias", {"head": LinearHeadConfig(use_bias=True)}),
        ("model.head.logit_softcap", {"head": LinearHeadConfig(logit_softcap=30.0)}),
        ("model.head.logit_scale", {"head": LinearHeadConfig(logit_scale=0.5)}),
        ("model.embedding.scale_by_width", {"embedding": EmbeddingConfig(scale_by_width=True)}),
        ("model.embedding.num_token_types", {"embedding": EmbeddingConfig(num_token_types=2)}),
        ("model.embedding.use_norm", {"embedding": EmbeddingConfig(use_norm=True)}),
        ("model.attention.use_out_bias", {"attention": AttentionConfig(use_qkv_bias=True)}),
        ("model.attention.use_out_bias", {"attention": AttentionConfig(use_out_bias=True)}),
        ("model.attention.qk_norm", {"attention": AttentionConfig(qk_norm=True)}),
        ("model.attention.logit_softcap", {"attention": AttentionConfig(logit_softcap=50.0)}),
        ("model.attention.query_scale", {"attention": AttentionConfig(query_scale=1.0)}),
        ("model.attention.window", {"attention": AttentionConfig(**WINDOWED)}),
        (
            "model.attention.window",
            {"attention": AttentionConfig(**WINDOWED), "position": RopeConfig(local_theta=1e4)},
        ),
        ("model.architecture", {"architecture": "encoder_only"}),
        ("model.architecture", {"architecture": "encoder_decoder", "num_encoder_layers": 2}),
        ("model.init.kind", {"init": MuPInitConfig(base_emb_dim=8)}),
    ],
)
def test_llama_has_no_word_for_it(field, changes):
    assert refused("llama", {}, **changes) == field


@pytest.mark.parametrize(
    ("family", "base", "field", "changes"),
    [
        ("qwen3", {}, "model.attention.qk_norm", {}),
        ("qwen3", QWEN3, "model.mlp.use_bias", {"mlp": SwiGLUConfig(use_bias=True)}),
        ("gpt2", GPT2, "model.attention.num_kv_heads", {"attention": AttentionConfig(**HEADS)}),
        ("gpt2", GPT2, "model.norm.use_bias", {"norm": LayerNormConfig(use_bias=False)}),
        ("gpt2", GPT2, "model.mlp.use_bias", {"mlp": GELUConfig(use_bias=False)}),
        ("gpt2", GPT2, "model.position.offset", {"position": LearnedPositionConfig(offset=2)}),
        ("gpt2", GPT2, "model.attention.head_dim", {"emb_dim": 48}),
        ("gemma2", GEMMA2, "model.norm.scale_offset", {"norm": RMSNormConfig()}),
        ("gemma2", GEMMA2, "model.norm_placement", {"norm_placement": "pre"}),
        ("gemma2", GEMMA2, "model.embedding.scale_by_width", {"embedding": EmbeddingConfig()}),
        (
            "gemma2",
            GEMMA2,
            "model.attention.query_scale",
            {"attention": AttentionConfig(query_scale=0.123)},
        ),
        (
            "gemma2",
            GEMMA2,
            "model.position.local_theta",
            {"attention": AttentionConfig(**WINDOWED), "position": RopeConfig(local_theta=99.0)},
        ),
        ("gemma3", GEMMA2, "model.attention.qk_norm", {}),
        (
            "gemma3",
            GEMMA2,
            "model.attention.logit_softcap",
            {"attention": AttentionConfig(qk_norm=True, logit_softcap=50.0)},
        ),
        ("mixtral", MIXTRAL, "model.mlp.dispatch", {"mlp": MoEConfig(dispatch="capacity")}),
        (
            "mixtral",
            MIXTRAL,
            "model.attention.layer_pattern",
            {"attention": AttentionConfig(**WINDOWED)},
        ),
    ],
)
def test_other_families_have_no_word_for_it(family, base, field, changes):
    assert refused(family, base, **changes) == field


def test_what_training_and_computing_alone_know_is_no_difference():
    config = make_config()
    other = replace(
        config,
        attention=replace(config.attention, causal_blocks=4),
        compute_dtype="bfloat16",
        scan_layers=False,
        remat="full",
        init=T5InitConfig(),
    )
    assert first_difference(config, other) is None
    assert express(other, get_family("llama"), 64, IDS)["hidden_size"] == 32


def test_one_meaning_said_in_two_ways_is_no_difference():
    def config(**changes: Any) -> ModelConfig:
        return make_config(attention=AttentionConfig(**(HEADS | changes)))

    assert first_difference(config(query_scale=8**-0.5), config()) is None
    long = config(window=4, layer_pattern=("window", "full", "window"))
    assert first_difference(config(**WINDOWED), long) is None
    # A window that no layer of three has.
    assert (
        first_difference(config(window=4, layer_pattern=("full",) * 3 + ("window",)), config())
        is None
    )
    assert first_difference(config(**(WINDOWED | {"window": 5})), config(**WINDOWED)) == (
        "model.attention.window",
        5,
        4,
    )


def test_every_field_of_a_model_config_has_a_meaning_or_is_known_to_have_none():
    names = set(meaning(make_config()))
    assert {"model.norm.epsilon", "model.position.scaling.kind", "model.tie_embeddings"} <= names
    assert not {"model.remat", "model.init.kind", "model.attention.causal_blocks"} & names


@pytest.mark.parametrize(
    ("layers", "pattern"),
    [
        ("full", "full"),
        ("full full full", "full"),
        ("window full window", "window full"),
        ("window window full window window", "window window full"),
        ("window full full full full", "window full full full full"),
    ],
)
def test_the_shortest_pattern_repeats_to_the_layers(layers, pattern):
    assert shortest_pattern(layers.split()) == tuple(pattern.split())
