"""Objectives: pure functions from a row and a generator to an example with loss weights.

`OBJECTIVES` is the one table: type of the config -> what the objective does and wants.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from configs.objective_config import CausalLMConfig
from data.objectives.causal_lm import causal_lm
from data.objectives.example import Example
from data.packing import Row, RowShape


class Objective(NamedTuple):
    """transform: (config, row, generator) -> Example. row_shape: the tokens it wants for rows that
    predict seq_len tokens. The generator is drawn from (data.seed, row number) and made only when
    the transform calls for it."""

    transform: Callable[[Any, Row, Callable[[], np.random.Generator]], Example]
    row_shape: Callable[[Any, int], RowShape]


ObjectiveConfig = CausalLMConfig

OBJECTIVES: dict[type, Objective] = {
    CausalLMConfig: Objective(causal_lm, lambda config, seq_len: RowShape(seq_len + 1, overlap=1)),
}

__all__ = ["OBJECTIVES", "Example", "Objective", "ObjectiveConfig"]
