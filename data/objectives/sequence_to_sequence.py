"""Sequence to sequence: the encoder reads one text, the decoder writes another."""

from collections.abc import Callable

import numpy as np

from configs.labelled_config import SequenceToSequenceConfig
from data.objectives.documents import Side
from data.objectives.example import Context, Example
from data.objectives.labelled import labelled_of
from data.objectives.two_sides import sides_of, two_sided
from data.packing import Row


def sequence_to_sequence(
    config: SequenceToSequenceConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Each document's text goes to the encoder, its answer to the decoder.

    Before (2 is <s>, 3 is </s>, 0 padding):
        tokens                [2, 20, 21, 3, 22, 23, 3, 2, 24, 3, 25, 3]
        segment_ids           [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    After, with target_tokens 6:
        encoder_inputs        [20, 21, 3, 24, 3, 0, 0, 0, 0, 0, 0, 0]
        encoder_segment_ids   [1, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0]
        inputs                [2, 22, 23, 2, 25, 0]
        targets               [22, 23, 3, 25, 3, 0]
        loss_weights          [1, 1, 1, 1, 1, 0]
        segment_ids           [1, 1, 1, 2, 2, 0]

    Args:
        config: says how long the decoder's side is; documents whose answers find no room there
            are left out of the example.
        row: [context.lengths.tokens].
        generator: unused, nothing is drawn.
        context: of the row.
    """
    del config, generator
    room, kept = context.lengths.length, []
    for document in labelled_of(row):
        if len(document.answer) + 1 <= room:
            room -= len(document.answer) + 1
            kept.append(document)
    segments = np.arange(1, len(kept) + 1, dtype=np.int32)
    encoder = _side([document.text for document in kept], segments)
    targets = _side([document.answer for document in kept], segments)
    return two_sided(encoder, targets, segments, context.lengths)


def _side(parts: list[np.ndarray], segments: np.ndarray) -> Side:
    sizes = [len(part) for part in parts]
    return Side(np.concatenate([np.zeros(0, np.int32), *parts]), np.repeat(segments, sizes))


def reconstruct(
    config: SequenceToSequenceConfig, example: Example, context: Context
) -> list[np.ndarray]:
    """Text and answer of each document that has any."""
    del config, context
    return [both for sides in sides_of(example) if len(both := np.concatenate(sides))]
