"""A time trial steps on batches of the very shapes that training compiles for."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from configs.objective_config import PrefixLMConfig
from configs.presets import PRESETS
from train.mesh import make_mesh
from train.programs import abstract_batch
from workflows.calibrate import random_batch

RUNS = {
    "causal": PRESETS["decoder_only"](),
    "prefix": replace(PRESETS["decoder_only"](), objective=PrefixLMConfig()),
    "encoder": PRESETS["encoder_only"](),
    "two sides": PRESETS["encoder_decoder"](),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_trials_batch_has_every_field_of_a_training_batch(name):
    config = RUNS[name]
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    batch, abstract = random_batch(config), abstract_batch(config, mesh)
    for field, array, expected in zip(batch._fields, batch, abstract, strict=True):
        assert (array is None) == (expected is None), field
        if array is not None and expected is not None:
            assert (array.shape, array.dtype) == (expected.shape, expected.dtype), field
    assert np.all(batch.inputs < config.model.vocab_size)
