"""Instruction tuning: continue a prompt with its answer, with loss on the answer only."""

from collections.abc import Callable

import numpy as np

from configs.labelled_config import InstructionTuningConfig
from data.objectives import causal_lm
from data.objectives.example import Context, Example
from data.objectives.labelled import labelled_of, one_sided
from data.packing import Row
from data.tokenizer import BOS_ID, EOS_ID


def instruction_tuning(
    config: InstructionTuningConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Each document becomes <s> prompt answer </s>; the answer and its </s> carry loss.

    The </s> between the two is dropped, so that the model meets what `isoflop generate` gives it:
    a prompt after <s>, to be continued.

    Before (2 is <s>, 3 is </s>, 0 padding):
        tokens                [2, 20, 21, 3, 22, 23, 3, 2, 24, 3, 25, 3]
        segment_ids           [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    After, with seq_len 11:
        inputs                [2, 20, 21, 22, 23, 3, 2, 24, 25, 3, 0]
        targets               [20, 21, 22, 23, 3, 0, 24, 25, 3, 0, 0]
        loss_weights          [0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0]
        positions             [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 0]
        segment_ids           [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0]

    Args:
        config: has no settings.
        row: [context.lengths.tokens].
        generator: unused, nothing is drawn.
        context: of the row.
    """
    del config, generator
    pieces, targets, weights = [], [], []
    for prompt, answer in labelled_of(row):
        piece = np.concatenate([[BOS_ID], prompt, answer, [EOS_ID]])
        place = np.arange(len(piece))
        pieces.append(piece)
        targets.append(np.append(piece[1:], 0))
        weights.append((place >= len(prompt)) & (place < len(piece) - 1))
    return one_sided(pieces, targets, weights, context.lengths.length)


def reconstruct(
    config: InstructionTuningConfig, example: Example, context: Context
) -> list[np.ndarray]:
    """Prompt and answer of each document, in one."""
    return causal_lm.reconstruct(config, example, context)
