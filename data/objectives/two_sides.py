"""Two sides of an example: what the encoder reads and what the decoder writes, text by text."""

import numpy as np

from configs.objective_config import ExampleLengths
from data.objectives.documents import (
    Side,
    Texts,
    by_segment,
    first_places,
    inserted,
    positions_of,
)
from data.objectives.example import Example
from data.tokenizer import BOS_ID, EOS_ID, PAD_ID


def two_sided(
    encoder: Side, targets: Side, segments: np.ndarray, lengths: ExampleLengths
) -> Example:
    """Ends each text with </s> on either side, and starts the decoder's inputs with <s>.

    Before (segments [1, 4]; 2 is <s>, 3 is </s>, 0 padding):
        encoder               [20, 21, 22]
        encoder segments      [1, 1, 4]
        targets               [23, 24]
        targets' segments     [1, 1]
    After:
        encoder_inputs        [20, 21, 3, 22, 3, 0]
        encoder_segment_ids   [1, 1, 1, 4, 4, 0]
        encoder_positions     [0, 1, 2, 0, 1, 0]
        inputs                [2, 23, 24, 2, 0]
        targets               [23, 24, 3, 3, 0]
        loss_weights          [1, 1, 1, 1, 0]
        segment_ids           [1, 1, 1, 4, 0]
        positions             [0, 1, 2, 0, 0]

    Args:
        encoder, targets: without </s>; a side may have nothing of a text.
        segments: int32 [G], of every text, growing.
        lengths: what both sides are padded to.
    """
    encoder, targets = _ended(encoder, segments), _ended(targets, segments)
    inputs = np.concatenate([targets.tokens[:1], targets.tokens[:-1]])
    inputs[first_places(targets.segment_ids)] = BOS_ID
    segment_ids = _padded(targets.segment_ids, lengths.length)
    encoder_segment_ids = _padded(encoder.segment_ids, lengths.encoder_length)
    return Example(
        inputs=_padded(inputs, lengths.length),
        targets=_padded(targets.tokens, lengths.length),
        loss_weights=(segment_ids > 0).astype(np.float32),
        positions=positions_of(segment_ids),
        segment_ids=segment_ids,
        encoder_inputs=_padded(encoder.tokens, lengths.encoder_length),
        encoder_positions=positions_of(encoder_segment_ids),
        encoder_segment_ids=encoder_segment_ids,
    )


def split_ends(texts: Texts, amounts: np.ndarray) -> tuple[Side, Side]:
    """Each text's last `amounts` tokens are targets, what is before them the encoder's.

    Before:
        tokens                [20, 21, 22, 23, 24]
        segment_ids           [1, 1, 1, 2, 2]
        amounts               [1, 2]
    After:
        encoder               [20, 21]
        encoder segments      [1, 1]
        targets               [22, 23, 24]
        targets' segments     [1, 2, 2]
    """
    runs = np.stack([texts.sizes - amounts, amounts], axis=1).ravel()
    is_target = np.repeat(np.tile(np.array([False, True]), len(amounts)), runs)
    return (
        Side(texts.tokens[~is_target], texts.segment_ids[~is_target]),
        Side(texts.tokens[is_target], texts.segment_ids[is_target]),
    )


def put_before(token: int, side: Side, segments: np.ndarray) -> Side:
    """The side with `token` at the start of each text of `segments`."""
    places = np.searchsorted(side.segment_ids, segments, "left")
    return inserted(side, places, np.full(len(segments), token), segments)


def sides_of(example: Example) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the encoder reads and the targets of each text, without their </s>."""
    assert example.encoder_inputs is not None and example.encoder_segment_ids is not None
    encoder = by_segment(example.encoder_inputs, example.encoder_segment_ids)
    targets = by_segment(example.targets, example.segment_ids)
    return [(encoder[number][:-1], targets[number][:-1]) for number in targets]


def _ended(side: Side, segments: np.ndarray) -> Side:
    places = np.searchsorted(side.segment_ids, segments, "right")
    return inserted(side, places, np.full(len(segments), EOS_ID), segments)


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    assert len(values) <= length, "the objective's lengths hold both sides of any row"
    padded = np.full(length, PAD_ID, np.int32)
    padded[: len(values)] = values
    return padded
