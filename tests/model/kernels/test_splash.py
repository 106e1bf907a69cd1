"""Splash attention, interpreted on a CPU, is the reference's attention."""

from typing import Any

import jax.numpy as jnp
import pytest

from model.kernels.splash import splash_attention
from tests.model.kernels.cases import (
    BF16_TOLERANCE,
    FP32_TOLERANCE,
    assert_close,
    gradients_of_padding,
    output_and_gradients,
    random_inputs,
    reference,
)

SIZES: dict[str, Any] = {"L": 256, "B": 1, "H": 4, "K": 2, "C": 16}
CASES = {
    "causal, packed, grouped": {},
    "causal window, one document, one key head": {"window": 100, "segments": "one", "K": 1},
    "window to both sides": {"window": 70, "causal": False},
    "other keys, heads of their own": {"causal": False, "M": 128, "K": 4},
}


SLOW = ("window to both sides",)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES]
)
def test_output_and_gradients_equal_the_reference(case):
    inputs = random_inputs(**SIZES | CASES[case])
    assert_close(output_and_gradients(splash_attention, inputs), reference(inputs), FP32_TOLERANCE)


def test_softcap_equals_the_reference():
    inputs = random_inputs(**SIZES)
    got = output_and_gradients(splash_attention, inputs, softcap=1.5)
    assert_close(got, reference(inputs, softcap=1.5), FP32_TOLERANCE)


@pytest.mark.slow
def test_bf16_equals_the_reference_to_the_rounding_of_weights():
    inputs = random_inputs(**SIZES, dtype=jnp.bfloat16)
    assert_close(output_and_gradients(splash_attention, inputs), reference(inputs), BF16_TOLERANCE)


@pytest.mark.slow
def test_padding_queries_send_no_gradient():
    inputs = random_inputs(**SIZES)
    for gradient in gradients_of_padding(splash_attention, inputs):
        assert not gradient.any()
