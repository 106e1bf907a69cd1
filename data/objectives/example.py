"""What an objective makes of a row, and what it has to know for it."""

from typing import NamedTuple

import numpy as np

from configs.objective_config import ExampleLengths
from data.objectives.symbols import Symbols


class Context(NamedTuple):
    """What a transform knows beside its settings and the row.

    symbols: of the tokenizer. lengths: of this row's example; its `tokens` is the row's length.
    """

    symbols: Symbols
    lengths: ExampleLengths


class Example(NamedTuple):
    """One row of a batch; L = length, E = encoder_length of the objective's `ExampleLengths`.

    inputs, targets: int32 [L], the decoder's where there are two sides. loss_weights: float32 [L],
    0 where the target does not count. positions, segment_ids: int32 [L]; segment 0 is padding.
    prefix: int32 [L], 1 where the whole segment may see the place; None for objectives without.
    encoder_inputs, encoder_positions, encoder_segment_ids: int32 [E], a decoder's segment reads
    the encoder's of the same number; None without an encoder of its own.
    """

    inputs: np.ndarray
    targets: np.ndarray
    loss_weights: np.ndarray
    positions: np.ndarray
    segment_ids: np.ndarray
    prefix: np.ndarray | None = None
    encoder_inputs: np.ndarray | None = None
    encoder_positions: np.ndarray | None = None
    encoder_segment_ids: np.ndarray | None = None
