"""Objectives: pure functions from a row and a generator to an example with loss weights.

`OBJECTIVES` is the one table: type of the config -> what the objective does and how it is judged.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from configs.objective_config import (
    CausalLMConfig,
    DenoisingConfig,
    FillInTheMiddleConfig,
    InstructionTuningConfig,
    MaskedLMConfig,
    ObjectiveConfig,
    PrefixLMConfig,
    SequenceClassificationConfig,
    SequenceToSequenceConfig,
    SpanCorruptionConfig,
    TokenClassificationConfig,
    UL2Config,
)
from data.objectives import (
    causal_lm,
    denoising,
    fill_in_the_middle,
    instruction_tuning,
    masked_lm,
    prefix_lm,
    sequence_classification,
    sequence_to_sequence,
    span_corruption,
    token_classification,
    ul2,
)
from data.objectives.accuracy import span_accuracy, token_accuracy
from data.objectives.example import Context, Example
from data.packing import Row

if TYPE_CHECKING:
    from data.batches import Batch

Metrics = dict[str, float]


class Objective(NamedTuple):
    """What an objective does.

    Attributes:
        transform: (config, row, generator, context) -> example. The generator is drawn from
            (data.seed, row number) and made only when the transform calls for it.
        metrics: (config, batch, is_correct bool [B, L], context) -> name -> value from 0 to 1.
        reconstruct: (config, example, context) -> the content, without specials, of each document
            that has any.
        scores_text: whether the targets that count are the text's tokens, each once, so that bits
            per byte are defined.
        previous: the visible token before target i is inputs[i - previous], for baselines.
    """

    transform: Callable[[Any, Row, Callable[[], np.random.Generator], Context], Example]
    metrics: Callable[[Any, "Batch", np.ndarray, Context], Metrics]
    reconstruct: Callable[[Any, Example, Context], list[np.ndarray]]
    scores_text: bool = False
    previous: int = 0


def _tokens(
    config: object, batch: "Batch", is_correct_BL: np.ndarray, context: Context, *, name: str
) -> Metrics:
    del config, context
    return {name: token_accuracy(batch, is_correct_BL)}


def _tokens_and_spans(
    config: object, batch: "Batch", is_correct_BL: np.ndarray, context: Context
) -> Metrics:
    del config
    return {
        "token_accuracy": token_accuracy(batch, is_correct_BL),
        "span_accuracy": span_accuracy(batch, is_correct_BL, context),
    }


_of_tokens = partial(_tokens, name="token_accuracy")
_of_texts = partial(_tokens, name="accuracy")
_of_masked_tokens = partial(_tokens, name="masked_token_accuracy")

OBJECTIVES: dict[type, Objective] = {
    CausalLMConfig: Objective(
        causal_lm.causal_lm, _of_tokens, causal_lm.reconstruct, scores_text=True
    ),
    PrefixLMConfig: Objective(prefix_lm.prefix_lm, _of_tokens, prefix_lm.reconstruct),
    FillInTheMiddleConfig: Objective(
        fill_in_the_middle.fill_in_the_middle, _of_tokens, fill_in_the_middle.reconstruct
    ),
    MaskedLMConfig: Objective(
        masked_lm.masked_lm, _of_masked_tokens, masked_lm.reconstruct, previous=1
    ),
    SpanCorruptionConfig: Objective(
        span_corruption.span_corruption, _tokens_and_spans, span_corruption.reconstruct
    ),
    DenoisingConfig: Objective(denoising.denoising, _of_tokens, denoising.reconstruct),
    UL2Config: Objective(ul2.ul2, _tokens_and_spans, ul2.reconstruct),
    SequenceClassificationConfig: Objective(
        sequence_classification.sequence_classification,
        _of_texts,
        sequence_classification.reconstruct,
    ),
    TokenClassificationConfig: Objective(
        token_classification.token_classification, _of_tokens, token_classification.reconstruct
    ),
    SequenceToSequenceConfig: Objective(
        sequence_to_sequence.sequence_to_sequence, _of_tokens, sequence_to_sequence.reconstruct
    ),
    InstructionTuningConfig: Objective(
        instruction_tuning.instruction_tuning, _of_tokens, instruction_tuning.reconstruct
    ),
}

__all__ = ["OBJECTIVES", "Context", "Example", "Metrics", "Objective", "ObjectiveConfig"]
