"""Named starting points: plain functions that return a `RunConfig`, in one table.

A preset's name is its architecture and the function's name; an architecture alone names its tiny
one. Presets of published models have the shapes of the released checkpoints; what their papers say
of training is followed where we can, and each file says where it is not. None of the published
ones has been trained here: their hours are the planner's model FLOPs at 40% of an A100's 312
TFLOP/s, and that a device of 80 GB holds its part is the planner's estimate. docs/presets.md has
them all in one table.
"""

from collections.abc import Callable, Mapping

from configs.presets import (
    bart,
    bert,
    decoder_only,
    encoder_decoder,
    encoder_only,
    gemma,
    gpt2,
    llama,
    mixtral,
    modernbert,
    qwen,
    t5,
)
from configs.schema import RunConfig

_FUNCTIONS: Mapping[str, tuple[Callable[[], RunConfig], ...]] = {
    "decoder_only": (
        decoder_only.tiny,
        decoder_only.small,
        decoder_only.base_1b,
        decoder_only.tiny_moe,
        gpt2.gpt2,
        gpt2.gpt2_medium,
        gpt2.gpt2_large,
        gpt2.gpt2_xl,
        llama.llama3_8b,
        llama.llama3_2_1b,
        qwen.qwen3_0_6b,
        qwen.qwen3_8b,
        gemma.gemma2_2b,
        gemma.gemma3_1b,
        mixtral.mixtral_8x7b,
    ),
    "encoder_only": (
        encoder_only.tiny,
        encoder_only.small,
        bert.bert_base,
        bert.bert_large,
        bert.roberta_base,
        bert.roberta_large,
        modernbert.modernbert_base,
        modernbert.modernbert_large,
    ),
    "encoder_decoder": (
        encoder_decoder.tiny,
        encoder_decoder.small,
        t5.t5_small,
        t5.t5_base,
        t5.t5_large,
        bart.bart_base,
        bart.bart_large,
    ),
}

PRESETS: Mapping[str, Callable[[], RunConfig]] = {
    **{architecture: functions[0] for architecture, functions in _FUNCTIONS.items()},
    **{
        f"{architecture}/{function.__name__}": function
        for architecture, functions in _FUNCTIONS.items()
        for function in functions
    },
}
