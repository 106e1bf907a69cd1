"""What an objective makes of a row."""

from typing import NamedTuple

import numpy as np


class Example(NamedTuple):
    """One row of a batch, L = seq_len.

    inputs, targets: int32 [L]. loss_weights: float32 [L], 0 where the target does not count.
    positions, segment_ids: int32 [L]; segment 0 is padding.
    """

    inputs: np.ndarray
    targets: np.ndarray
    loss_weights: np.ndarray
    positions: np.ndarray
    segment_ids: np.ndarray
