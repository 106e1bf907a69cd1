"""What cuDNN is asked for is the reference's attention.

Without a GPU the same call is answered by XLA: that its arguments (mask, causality, window, scale,
bias) say what is meant is checked everywhere, cuDNN's own arithmetic only where there is a GPU.
"""

from functools import partial

import jax.numpy as jnp
import pytest

from model.kernels.cudnn import cudnn_attention
from tests.model.kernels.cases import (
    BF16_TOLERANCE,
    FP32_TOLERANCE,
    assert_close,
    gradients_of_padding,
    output_and_gradients,
    random_inputs,
    reference,
)

CASES = {
    "causal, packed, grouped": {},
    "causal window, one key head": {"window": 12, "K": 1},
    "window to both sides": {"window": 11, "causal": False},
    "bidirectional, with a bias": {"has_bias": True, "causal": False},
    "prefix in a window": {"has_prefix": True, "window": 9},
    "other keys": {"causal": False, "M": 24},
}


@pytest.mark.parametrize("case", CASES)
def test_the_call_means_what_the_reference_computes(case):
    inputs = random_inputs(**CASES[case])
    asked = output_and_gradients(partial(cudnn_attention, implementation="xla"), inputs)
    assert_close(asked, reference(inputs), FP32_TOLERANCE)


def test_padding_queries_send_no_gradient():
    inputs = random_inputs()
    for gradient in gradients_of_padding(partial(cudnn_attention, implementation="xla"), inputs):
        assert not gradient.any()


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_cudnn_equals_the_reference(case):
    inputs = random_inputs(**{"L": 256, "C": 64} | CASES[case], dtype=jnp.bfloat16)
    assert_close(output_and_gradients(cudnn_attention, inputs), reference(inputs), BF16_TOLERANCE)
