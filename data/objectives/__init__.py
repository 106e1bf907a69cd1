"""Objectives: pure functions from a row and a generator to an example with loss weights.

`OBJECTIVES` is the one table: type of the config -> (config, row, generator) -> Example.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from configs.schema import CausalLMConfig
from data.objectives.causal_lm import causal_lm
from data.objectives.example import Example
from data.packing import Row

ObjectiveConfig = CausalLMConfig
Objective = Callable[[Any, Row, np.random.Generator], Example]

OBJECTIVES: dict[type, Objective] = {CausalLMConfig: causal_lm}

__all__ = ["OBJECTIVES", "Example", "Objective", "ObjectiveConfig"]
