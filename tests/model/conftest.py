"""The model that variants are compared with, computed once."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from configs.model_config import ModelConfig
from tests.model.samples import Rows, logits_and_gradient, packed_rows, random_params, tiny_model


class Baseline(NamedTuple):
    """`tiny_model()` on two rows of two documents each: its logits and a gradient."""

    config: ModelConfig
    params: Any
    rows: Rows
    logits: np.ndarray
    gradient: Any


@pytest.fixture(scope="session")
def baseline() -> Baseline:
    config, rows = tiny_model(), packed_rows([9, 7], num_rows=2)
    params = random_params(config)
    return Baseline(config, params, rows, *logits_and_gradient(config, params, rows))
