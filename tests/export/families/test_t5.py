"""T5: relative biases, its two generations, sides of different depth, wide heads."""

from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from configs.mlp_config import GEGLUConfig, GELUConfig, ReLUConfig, SwiGLUConfig
from configs.model_config import (
    AttentionConfig,
    LinearHeadConfig,
    ModelConfig,
    RMSNormConfig,
    T5InitConfig,
)
from configs.position_config import RelativeBiasConfig
from configs.presets import PRESETS
from export.express import express, first_difference
from export.families.t5 import T5
from export.import_ import import_folder
from export.tensors import SINGLE, read_tensors, write_tensors
from tests.export.families.parity import (
    IDS,
    check_export,
    check_import,
    check_round_trip,
    perturb,
)
from tests.export.samples import VOCAB_SIZE

# Few buckets up to a distance shorter than the texts, so that all are used.
THEIRS: dict[str, dict[str, Any]] = {
    "1.0": {"feed_forward_proj": "relu"},
    "1.1": {
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "num_decoder_layers": 3,
        "layer_norm_epsilon": 1e-3,
    },
}
# The released config.json of T5 1.1 small.
RELEASED: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 32128,
}


def t5(**changes: Any) -> Any:
    """A T5; one that is not tied gets a head of its own, which transformers 5 builds tied."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "d_model": 24,
        "d_kv": 6,
        "d_ff": 40,
        "num_layers": 2,
        "num_heads": 5,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "attn_implementation": "eager",
    }
    model = T5ForConditionalGeneration(T5Config(**(sizes | changes)))
    if not changes.get("tie_word_embeddings", True):
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(97, 24))
    return perturb(model)


def our_t5(**changes: Any) -> ModelConfig:
    fields: dict[str, Any] = {
        "architecture": "encoder_decoder",
        "vocab_size": VOCAB_SIZE,
        "emb_dim": 24,
        "num_layers": 2,
        "num_encoder_layers": 3,
        "attention": AttentionConfig(num_heads=5, num_kv_heads=5, head_dim=6, query_scale=1.0),
        "position": RelativeBiasConfig(num_buckets=12, max_distance=20),
        "norm": RMSNormConfig(epsilon=1e-6),
        "mlp": GEGLUConfig(mlp_dim=40),
        "tie_embeddings": False,
        "init": T5InitConfig(),
    }
    return ModelConfig(**(fields | changes))


def test_the_released_config_is_read_as_the_preset():
    config, seq_len = T5.from_config(RELEASED)
    assert first_difference(config, PRESETS["encoder_decoder/t5_small"]().model) is None
    assert seq_len == 512


@pytest.mark.parametrize("name", THEIRS)
def test_an_imported_model_gives_their_logits(name, tmp_path):
    check_import(t5(**THEIRS[name]), tmp_path)


@pytest.mark.parametrize("name", THEIRS)
def test_imported_and_written_again_it_is_the_same(name, tmp_path):
    config = check_round_trip(t5(**THEIRS[name]), tmp_path).config
    assert config.tie_embeddings == (name == "1.0")
    assert config.num_layers == THEIRS[name].get("num_decoder_layers", 2)
    assert config.num_encoder_layers == 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "mlp": ReLUConfig(mlp_dim=40),
            "tie_embeddings": True,
            "head": LinearHeadConfig(logit_scale=24**-0.5),
        },
    ],
    ids=["1.1", "1.0"],
)
@pytest.mark.slow
def test_an_exported_model_is_loaded_whole_and_gives_our_logits(changes, tokenizer, tmp_path):
    check_export(our_t5(**changes), "t5", tokenizer, tmp_path / "x")


@pytest.mark.parametrize(
    ("mlp", "word"),
    [
        (GELUConfig(mlp_dim=40, gelu="exact", use_bias=False), "gelu"),
        (GELUConfig(mlp_dim=40, gelu="tanh", use_bias=False), "gelu_new"),
        (SwiGLUConfig(mlp_dim=40), "gated-silu"),
    ],
)
def test_other_mlps_have_a_word_too(mlp, word):
    from transformers import T5Config

    theirs = express(our_t5(mlp=mlp), T5, 64, IDS)
    read = T5Config(**theirs)
    assert theirs["feed_forward_proj"] == word
    assert read.is_gated_act == isinstance(mlp, SwiGLUConfig)
    assert read.dense_act_fn == word.removeprefix("gated-")


def test_decoding_begins_with_the_token_that_training_began_with():
    assert T5.to_config(our_t5(), 64, IDS)["decoder_start_token_id"] == IDS.bos


def test_tables_stored_once_more_are_read_and_must_agree(tmp_path):
    t5(**THEIRS["1.1"]).save_pretrained(str(tmp_path))
    expected = import_folder(tmp_path).params
    tensors = read_tensors(tmp_path)
    for side in ("encoder", "decoder"):
        tensors[f"{side}.embed_tokens.weight"] = tensors["shared.weight"]
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[unused] = np.ones((8, 5), np.float32)
    (tmp_path / SINGLE).unlink()
    write_tensors(tensors, tmp_path)
    np.testing.assert_equal(import_folder(tmp_path).params, expected)
    tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"] + 1
    write_tensors(tensors, tmp_path)
    with pytest.raises(InputError, match="^decoder.embed_tokens.weight: got numbers that differ"):
        import_folder(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("feed_forward_proj", "gated-relu"),
        ("dense_act_fn", "gelu"),
        ("is_gated_act", False),
        ("scale_decoder_outputs", True),
        ("is_encoder_decoder", False),
        ("relative_attention_num_buckets", "8"),
        ("architectures", ["T5EncoderModel"]),
    ],
)
def test_what_our_model_cannot_express_is_refused_by_field(field, value):
    from export.families import family_of

    theirs = T5.to_config(our_t5(), 64, IDS) | {field: value}
    with pytest.raises(InputError, match=f"^{field}: got") as caught:
        family_of(theirs).from_config(theirs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tie_embeddings": True}, "model.head.logit_scale"),
        ({"head": LinearHeadConfig(use_bias=True)}, "model.head.use_bias"),
        ({"head": LinearHeadConfig(logit_softcap=30.0)}, "model.head.logit_softcap"),
        ({"mlp": GEGLUConfig(mlp_dim=40, gelu="exact")}, "model.mlp.gelu"),
        ({"mlp": ReLUConfig(mlp_dim=40, use_bias=True)}, "model.mlp.use_bias"),
        (
            {"attention": AttentionConfig(num_heads=5, num_kv_heads=5, head_dim=6)},
            "model.attention.query_scale",
        ),
        (
            {"architecture": "decoder_only", "num_encoder_layers": 0},
            "model.architecture",
        ),
    ],
)
def test_what_t5_cannot_express_is_refused_by_field(changes, field):
    with pytest.raises(InputError, match=f"^{field}: got"):
        express(our_t5(**changes), T5, 64, IDS)
