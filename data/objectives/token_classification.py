"""Token classification: name the class of every token, as of named entities."""

from collections.abc import Callable

import numpy as np

from configs.labelled_config import TokenClassificationConfig
from data.objectives.documents import by_segment
from data.objectives.example import Context, Example
from data.objectives.labelled import FIRST_LABEL_ID, labelled_of, one_sided
from data.packing import Row
from data.tokenizer import BOS_ID, EOS_ID


def token_classification(
    config: TokenClassificationConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Each document becomes <s> text </s> with every token's label as its target.

    Before (2 is <s>, 3 is </s>; 4 is label 0, 5 is label 1; 0 padding):
        tokens                [2, 20, 21, 3, 5, 4, 3, 2, 22, 3, 4, 3, 0, 0, 0]
        segment_ids           [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0, 0]
    After, with seq_len 8:
        inputs                [2, 20, 21, 3, 2, 22, 3, 0]
        targets               [0, 1, 0, 0, 0, 0, 0, 0]
        loss_weights          [0, 1, 1, 0, 0, 1, 0, 0]
        positions             [0, 1, 2, 3, 0, 1, 2, 0]
        segment_ids           [1, 1, 1, 1, 2, 2, 2, 0]

    Args:
        config: has no settings.
        row: [context.lengths.tokens].
        generator: unused, nothing is drawn.
        context: of the row.
    """
    del config, generator
    pieces, targets, weights = [], [], []
    for text, answer in labelled_of(row):
        if len(answer) != len(text):
            continue
        pieces.append(np.concatenate([[BOS_ID], text, [EOS_ID]]))
        targets.append(np.concatenate([[0], answer - FIRST_LABEL_ID, [0]]))
        weights.append(np.concatenate([[0], np.ones(len(text)), [0]]))
    return one_sided(pieces, targets, weights, context.lengths.length)


def reconstruct(
    config: TokenClassificationConfig, example: Example, context: Context
) -> list[np.ndarray]:
    """Text and labels of each document that has any."""
    del config, context
    pieces = by_segment(example.inputs, example.segment_ids)
    targets = by_segment(example.targets + FIRST_LABEL_ID, example.segment_ids)
    return [
        np.concatenate([piece[1:-1], targets[number][1:-1]]).astype(np.int32)
        for number, piece in pieces.items()
        if len(piece) > 2
    ]
