"""Causal language modelling: predict each token from those before it in its own document."""

from collections.abc import Callable

import numpy as np

from configs.objective_config import CausalLMConfig
from data.objectives.example import Example
from data.packing import Row


def causal_lm(
    config: CausalLMConfig, row: Row, generator: Callable[[], np.random.Generator]
) -> Example:
    """Shifts a row by one token; the first token of a document is nobody's target.

    Before (2 is <s>, 3 is </s>):
        tokens        [7, 8, 3, 2, 9, 3]
        segment_ids   [1, 1, 1, 2, 2, 2]
        positions     [0, 1, 2, 0, 1, 2]
    After:
        inputs        [7, 8, 3, 2, 9]
        targets       [8, 3, 2, 9, 3]
        loss_weights  [1, 1, 0, 1, 1]
        positions     [0, 1, 2, 0, 1]
        segment_ids   [1, 1, 1, 2, 2]

    Args:
        config: has no settings.
        row: L + 1 tokens; a segment id of 0 marks padding, whose targets do not count either.
        generator: unused, nothing is drawn.

    Returns:
        The example, fields [L].
    """
    del config, generator
    same_document = row.segment_ids[1:] == row.segment_ids[:-1]
    return Example(
        inputs=row.tokens[:-1],
        targets=row.tokens[1:],
        loss_weights=(same_document & (row.segment_ids[1:] > 0)).astype(np.float32),
        positions=row.positions[:-1],
        segment_ids=row.segment_ids[:-1],
    )
