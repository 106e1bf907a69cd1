"""Splash attention, interpreted on a CPU, is the reference's attention."""

from typing import Any

import jax.numpy as jnp
import numpy as np
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
@pytest.mark.parametrize("keys", ["own", "other, all text"])
def test_what_padding_queries_get_is_finite_and_so_are_gradients(keys):
    inputs = random_inputs(**SIZES | ({} if keys == "own" else {"causal": False, "M": 128}))
    if keys != "own":
        places = inputs.seen.places
        all_text = jnp.ones_like(places.key_segments_BM)
        inputs = inputs._replace(
            seen=inputs.seen._replace(places=places._replace(key_segments_BM=all_text))
        )
    is_padding = inputs.seen.places.query_segments_BL == 0
    assert is_padding.any()
    out_BLHC = splash_attention(*inputs[:3], inputs.seen, scale=0.3)
    assert np.isfinite(out_BLHC[is_padding]).all()
    for gradient in gradients_of_padding(splash_attention, inputs):
        assert np.isfinite(gradient).all()
