"""Causal language modelling: predict each token from those before it in its own document."""

from collections.abc import Callable

import numpy as np

from configs.objective_config import CausalLMConfig
from data.objectives.documents import content_of
from data.objectives.example import Context, Example
from data.packing import Row


def causal_lm(
    config: CausalLMConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Shifts a row by one token; the first token of a document is nobody's target.

    Before (2 is <s>, 3 is </s>):
        tokens        [20, 21, 3, 2, 22, 3]
        segment_ids   [1, 1, 1, 2, 2, 2]
    After:
        inputs        [20, 21, 3, 2, 22]
        targets       [21, 3, 2, 22, 3]
        loss_weights  [1, 1, 0, 1, 1]
        positions     [0, 1, 2, 0, 1]
        segment_ids   [1, 1, 1, 2, 2]

    Args:
        config: has no settings.
        row: L + 1 tokens; a segment id of 0 marks padding, whose targets do not count either.
        generator: unused, nothing is drawn.
        context: unused.

    Returns:
        The example, fields [L].
    """
    del config, generator, context
    return shifted(row.tokens, row.segment_ids, row.positions)


def shifted(tokens: np.ndarray, segment_ids: np.ndarray, positions: np.ndarray) -> Example:
    """Inputs and targets from L + 1 tokens."""
    same_document = segment_ids[1:] == segment_ids[:-1]
    return Example(
        inputs=tokens[:-1],
        targets=tokens[1:],
        loss_weights=(same_document & (segment_ids[1:] > 0)).astype(np.float32),
        positions=positions[:-1],
        segment_ids=segment_ids[:-1],
    )


def unshifted(example: Example) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that `shifted` was given, and their segments, int32 [L + 1].

    A last token that begins a document is padding here: the example does not say whose it is.
    """
    last = example.segment_ids[-1:] * (example.loss_weights[-1:] > 0)
    return (
        np.append(example.inputs, example.targets[-1:]),
        np.append(example.segment_ids, last).astype(np.int32),
    )


def reconstruct(config: object, example: Example, context: Context) -> list[np.ndarray]:
    """The content of each document; of any shifted objective that leaves tokens in their order."""
    del config
    return content_of(*unshifted(example), context)
