"""Attention by blocks is the reference's, in less memory."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.kernels import Seen, blockwise, dot_product_attention
from model.kernels.blockwise import blockwise_attention
from model.masks import MaskSpec, row_places
from tests.model.kernels.cases import (
    BF16_TOLERANCE,
    FP32_TOLERANCE,
    assert_close,
    gradients_of_padding,
    output_and_gradients,
    random_inputs,
    reference,
)

in_blocks = partial(blockwise_attention, block=16)

CASES = {
    "causal, packed, grouped": {},
    "causal window, one key head, one document": {"window": 12, "K": 1, "segments": "one"},
    "window to both sides, heads of their own": {"window": 11, "causal": False, "K": 4},
    "prefix in a window": {"has_prefix": True, "window": 9, "L": 32},
    "fewer keys than queries": {"causal": False, "M": 11, "L": 16},
    "more keys than queries": {"causal": False, "M": 43, "L": 8},
}


SLOW = ("prefix in a window", "more keys than queries")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES]
)
def test_output_and_gradients_equal_the_reference(case):
    inputs = random_inputs(**CASES[case])
    assert_close(output_and_gradients(in_blocks, inputs), reference(inputs), FP32_TOLERANCE)


@pytest.mark.slow
def test_long_rows_are_cut_into_larger_blocks_of_queries(monkeypatch):
    monkeypatch.setattr(blockwise, "_MOST_BLOCKS", 2)
    inputs = random_inputs()
    narrow = partial(blockwise_attention, block=8)  # 24 and 16 queries meet 3 and 5 blocks
    assert_close(output_and_gradients(narrow, inputs), reference(inputs), FP32_TOLERANCE)


def test_softcap_and_bias_on_a_length_that_no_block_divides_equal_the_reference():
    inputs = random_inputs(has_bias=True, L=29)
    settings = {"softcap": 1.5, "scale": 1.0}
    got = output_and_gradients(in_blocks, inputs, **settings)
    assert_close(got, reference(inputs, **settings), FP32_TOLERANCE)


def test_bf16_equals_the_reference_to_the_rounding_of_weights():
    inputs = random_inputs(dtype=jnp.bfloat16, L=16)
    got = output_and_gradients(in_blocks, inputs, softcap=3.0)
    assert_close(got, reference(inputs, softcap=3.0), BF16_TOLERANCE)
    out = jax.eval_shape(partial(in_blocks, seen=inputs.seen, scale=1.0), *inputs[:3])
    assert out.dtype == jnp.bfloat16


@pytest.mark.slow
def test_large_scores_do_not_overflow():
    inputs = random_inputs(L=16)
    big = inputs._replace(q_BLHC=1e3 * inputs.q_BLHC, k_BKMC=1e3 * inputs.k_BKMC)
    for array in output_and_gradients(in_blocks, big):
        assert np.isfinite(array).all()


def test_padding_queries_get_zero_and_send_no_gradient():
    inputs = random_inputs(L=16)
    is_padding = np.asarray(inputs.seen.places.query_segments_BL == 0)
    assert is_padding.any()
    out = jax.jit(partial(in_blocks, seen=inputs.seen, scale=1.0))(*inputs[:3])
    assert not np.asarray(out)[is_padding].any()
    for gradient in gradients_of_padding(in_blocks, inputs):
        assert not gradient.any()


@pytest.mark.parametrize("window", [0, 16])
def test_hidden_key_blocks_are_not_computed(window):
    """Each turn of a scan is a block of queries times a block of keys."""

    def blocks_met(causal: bool) -> int:
        inputs = random_inputs(L=64, causal=causal, window=window if causal else 0)
        jaxpr = jax.make_jaxpr(
            lambda q, k, v: blockwise_attention(q, k, v, inputs.seen, scale=1.0, block=16)
        )(*inputs[:3])
        return sum(_scan_lengths(jaxpr.jaxpr))

    assert blocks_met(causal=False) == 16
    assert blocks_met(causal=True) == (1 + 2 + 3 + 4 if window == 0 else 1 + 2 + 2 + 2)


def test_compiled_memory_is_a_small_part_of_the_references():
    L, H, C = 4096, 2, 32
    x_BLHC = jax.ShapeDtypeStruct((1, L, H, C), jnp.float32)
    x_BKMC = jax.ShapeDtypeStruct((1, H, L, C), jnp.float32)
    segments = jax.ShapeDtypeStruct((1, L), jnp.int32)

    def temporaries(kernel) -> int:
        def read(q, k, v, segments):
            seen = Seen(MaskSpec(causal=True), row_places(segments))
            return jnp.sum(kernel(q, k, v, seen) ** 2)

        gradient = jax.jit(jax.grad(read, argnums=(0, 1, 2)))
        compiled = gradient.lower(x_BLHC, x_BKMC, x_BKMC, segments).compile()
        analysis: Any = compiled.memory_analysis()
        return analysis.temp_size_in_bytes

    whole = temporaries(
        lambda q, k, v, seen: dot_product_attention(q, k, v, seen.mask_BLM, scale=1.0)
    )
    in_blocks = temporaries(
        lambda q, k, v, seen: blockwise_attention(q, k, v, seen, scale=1.0, block=1024)
    )
    assert whole > H * L * L * 4  # the matrix of scores
    assert in_blocks < whole / 5


def _scan_lengths(jaxpr) -> list[int]:
    lengths = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            lengths.append(equation.params["length"])
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None and hasattr(inner, "eqns"):
                lengths += _scan_lengths(inner)
    return lengths
