"""Presets of published models have the published numbers of parameters, to the last one.

The numbers were counted with transformers 5.23 on torch's meta device, from the values in the
released checkpoints' config.json. transformers ties T5's head to its table where it builds a model
from a config; the released v1.1 files store both, so vocabulary × width was added to its counts
(60,511,616, 222,903,552 and 750,251,008).
"""

import pytest

from configs.model_config import LinearHeadConfig, ModelConfig
from configs.presets import PRESETS
from export.express import express
from export.families import FAMILIES
from export.families.family import Family, SpecialIds
from planner.accounting import active_params, total_params

PUBLISHED = {
    "decoder_only/gpt2": 124_439_808,
    "decoder_only/gpt2_medium": 354_823_168,
    "decoder_only/gpt2_large": 774_030_080,
    "decoder_only/gpt2_xl": 1_557_611_200,
    "decoder_only/llama3_8b": 8_030_261_248,
    "decoder_only/llama3_2_1b": 1_235_814_400,
    "decoder_only/qwen3_0_6b": 596_049_920,
    "decoder_only/qwen3_8b": 8_190_735_360,
    "decoder_only/gemma2_2b": 2_614_341_888,
    "decoder_only/gemma3_1b": 999_885_952,
    "decoder_only/mixtral_8x7b": 46_702_792_704,
    "encoder_only/bert_base": 109_514_298,
    "encoder_only/bert_large": 335_174_458,
    "encoder_only/roberta_base": 124_697_433,
    "encoder_only/roberta_large": 355_412_057,
    "encoder_only/modernbert_base": 149_655_232,
    "encoder_only/modernbert_large": 395_881_664,
    "encoder_decoder/t5_small": 76_961_152,
    "encoder_decoder/t5_base": 247_577_856,
    "encoder_decoder/t5_large": 783_150_080,
    "encoder_decoder/bart_base": 139_420_416,
    "encoder_decoder/bart_large": 406_291_456,
}
# Presets of ours, and the family of their shape.
OURS = {
    "decoder_only/tiny": "llama",
    "decoder_only/small": "llama",
    "decoder_only/base_1b": "llama",
    "decoder_only/tiny_moe": "mixtral",
    "encoder_only/tiny": "bert",
    "encoder_only/small": "modernbert",
    "encoder_decoder/tiny": "t5",
    "encoder_decoder/small": "t5",
}


def family_of_preset(name: str) -> Family:
    """`decoder_only/gemma3_1b` is one of gemma3."""
    own = name.split("/")[1]
    by_name = [family for family in FAMILIES if own.startswith(family)]
    return FAMILIES[OURS[name] if name in OURS else by_name[0]]


def only_ours(model: ModelConfig) -> int:
    """Parameters that we have and the published model has not."""
    # ModernBERT's first layer has no attention norm; our stacked scales keep a row for it.
    unused = model.emb_dim if model.skip_first_norm else 0
    # BART's final_logits_bias is a buffer, which nothing trains; here it is the head's bias.
    has_bias = isinstance(model.head, LinearHeadConfig) and model.head.use_bias
    return unused + (model.vocab_size if has_bias else 0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_number_of_parameters(name):
    model = PRESETS[name]().model
    assert total_params(model) - only_ours(model) == PUBLISHED[name]


def test_every_preset_is_published_or_ours():
    assert {*PUBLISHED, *OURS} == {name for name in PRESETS if "/" in name}


def test_a_token_uses_the_published_share_of_mixtral():
    # "13B active parameters" in the paper's abstract and section 1.
    params = active_params(PRESETS["decoder_only/mixtral_8x7b"]().model)
    assert params == pytest.approx(13e9, rel=0.01)


@pytest.mark.parametrize("name", [*PUBLISHED, *OURS])
def test_transformers_builds_a_preset_from_its_exported_config_with_as_many_parameters(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config, family = PRESETS[name](), family_of_preset(name)
    theirs = express(config.model, family, config.data.seq_len, SpecialIds(pad=0, bos=2, eos=3))
    options = {key: value for key, value in theirs.items() if key != "model_type"}
    with torch.device("meta"):
        model = getattr(transformers, theirs["architectures"][0])(
            transformers.AutoConfig.for_model(theirs["model_type"], **options)
        )
    counted = sum(parameter.numel() for parameter in model.parameters())
    if family.name == "t5":  # tied, see above
        counted += config.model.vocab_size * config.model.emb_dim
    assert counted == total_params(config.model) - only_ours(config.model)
