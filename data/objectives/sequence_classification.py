"""Sequence classification: name the class of a whole text at one of its places."""

from collections.abc import Callable

import numpy as np

from configs.labelled_config import SequenceClassificationConfig
from configs.model_config import Architecture
from data.objectives.documents import by_segment
from data.objectives.example import Context, Example
from data.objectives.labelled import FIRST_LABEL_ID, labelled_of, one_sided
from data.packing import Row
from data.tokenizer import BOS_ID, EOS_ID


def sequence_classification(
    config: SequenceClassificationConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Each document becomes <s> text </s> with its label's number as the target of one place.

    Before (2 is <s>, 3 is </s>; 6 is label 2 and 4 is label 0; 0 padding):
        tokens                [2, 20, 21, 3, 6, 3, 2, 22, 3, 4, 3, 0]
        segment_ids           [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0]
    After, of an encoder:
        inputs                [2, 20, 21, 3, 2, 22, 3, 0, 0, 0, 0, 0]
        targets               [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        loss_weights          [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        positions             [0, 1, 2, 3, 0, 1, 2, 0, 0, 0, 0, 0]
        segment_ids           [1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0]
    After, of a decoder:
        targets               [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]
        loss_weights          [0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0]

    Args:
        config: of which architecture the model is.
        row: [context.lengths.tokens].
        generator: unused, nothing is drawn.
        context: of the row.
    """
    del generator
    pieces, targets, weights = [], [], []
    for text, answer in labelled_of(row):
        if len(answer) != 1:
            continue
        piece = np.concatenate([[BOS_ID], text, [EOS_ID]])
        weight = np.zeros(len(piece), np.float32)
        weight[answer_place(config.architecture, len(piece))] = 1
        pieces.append(piece)
        weights.append(weight)
        targets.append((weight * (answer[0] - FIRST_LABEL_ID)).astype(np.int32))
    return one_sided(pieces, targets, weights, context.lengths.length)


def answer_place(architecture: Architecture, size: int) -> int:
    """At which of `size` places a text's class is read: the first of an encoder, which sees all of
    the text everywhere; the last of a decoder."""
    return size - 1 if architecture == "decoder_only" else 0


def reconstruct(
    config: SequenceClassificationConfig, example: Example, context: Context
) -> list[np.ndarray]:
    """Text and label of each document."""
    del config, context
    targets = example.targets + FIRST_LABEL_ID * (example.loss_weights > 0)
    answers = by_segment(targets, example.segment_ids)
    return [
        np.append(piece[1:-1], answers[number].max()).astype(np.int32)
        for number, piece in by_segment(example.inputs, example.segment_ids).items()
    ]
