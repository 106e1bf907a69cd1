"""Random attentions, and the comparison of a kernel with the reference on one."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.kernels import Seen, attend
from model.masks import MaskSpec, Places
from tests.model.samples import QUICK_COMPILE

# Sums in another order; relative to the largest entry of each array.
FP32_TOLERANCE = 1e-5
# The reference rounds the weights to bf16 (2^-8 each), a kernel rounds them before they are
# divided by their sum; gradients go through two such roundings.
BF16_TOLERANCE = 2e-2

SEGMENTS = {
    "one": ((1.0, 1),),
    "packed": ((0.3, 1), (0.45, 2), (0.15, 3), (0.1, 0)),  # shares of the row; 0 is padding
}


class Inputs(NamedTuple):
    """Queries, keys, values, a bias or None, who sees whom, a reading of the output."""

    q_BLHC: jax.Array
    k_BKMC: jax.Array
    v_BKMC: jax.Array
    bias_HLM: jax.Array | None
    seen: Seen
    reading_BLHC: jax.Array


def random_inputs(
    *,
    L: int = 40,
    M: int | None = None,
    B: int = 2,
    H: int = 4,
    K: int = 2,
    C: int = 8,
    causal: bool = True,
    window: int = 0,
    segments: str = "packed",
    has_bias: bool = False,
    has_prefix: bool = False,
    dtype: Any = jnp.float32,
) -> Inputs:
    """A row's own attention, or one on M other keys; nothing is read of padding queries."""
    rng = np.random.default_rng(L + (M or 0))

    def normal(*shape: int, dtype: Any = dtype) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape), dtype)

    of_queries = _segments(segments, B, L)
    of_keys = of_queries if M is None else _segments(segments, B, M)
    M = M or L
    prefix = jnp.asarray(rng.random((B, M)) < 0.3, jnp.int32) if has_prefix else None
    places = Places(jnp.arange(L), jnp.arange(M), of_queries, of_keys, prefix)
    reading = normal(B, L, H, C) * (of_queries > 0)[:, :, None, None].astype(dtype)
    return Inputs(
        normal(B, L, H, C),
        normal(B, K, M, C),
        normal(B, K, M, C),
        normal(H, L, M, dtype=jnp.float32) if has_bias else None,
        Seen(MaskSpec(causal=causal, window=window), places),
        reading,
    )


def _segments(kind: str, B: int, L: int) -> jax.Array:
    """Rows of the same documents, each begun one place later than in the row before."""
    ends = np.cumsum([round(share * L) for share, _ in SEGMENTS[kind]])
    ids = np.array([segment for _, segment in SEGMENTS[kind]] + [SEGMENTS[kind][-1][1]])
    row = ids[np.searchsorted(ends, np.arange(L), side="right")]
    rows = [np.concatenate([np.full(b, row[0]), row])[:L] for b in range(B)]
    return jnp.asarray(np.stack(rows), jnp.int32)


def reference(inputs: Inputs, **settings: Any) -> list[np.ndarray]:
    """Output and gradients by the reference, on one device."""

    def run(q, k, v, seen, *, bias_HLM=None, **settings):
        return attend(q, k, v, seen, kernel="reference", bias_HLM=bias_HLM, **settings)

    return output_and_gradients(run, inputs, **settings)


def output_and_gradients(kernel: Callable, inputs: Inputs, **settings: Any) -> list[np.ndarray]:
    """Output, zero where a query is padding, and gradients of q, k, v (and bias) of a reading."""
    settings = {"scale": 0.3} | settings  # not 1/sqrt(C), which kernels take by default
    is_text = (inputs.seen.places.query_segments_BL > 0)[:, :, None, None]

    quick = QUICK_COMPILE if jax.default_backend() == "cpu" else None

    @partial(jax.jit, compiler_options=quick)
    def run(q, k, v, bias, places):
        def read(q, k, v, bias):
            given = {} if bias is None else {"bias_HLM": bias}
            out = kernel(q, k, v, Seen(inputs.seen.spec, places), **given, **settings)
            return jnp.sum((out * inputs.reading_BLHC).astype(jnp.float32)), out

        wanted = (0, 1, 2) if bias is None else (0, 1, 2, 3)
        gradients, out = jax.grad(read, argnums=wanted, has_aux=True)(q, k, v, bias)
        return jnp.where(is_text, out, 0), *gradients

    results = run(*inputs[:4], inputs.seen.places)
    return [np.asarray(x, np.float32) for x in results]


def gradients_of_padding(kernel: Callable, inputs: Inputs) -> list[np.ndarray]:
    """Gradients of q, k and v where the output is read at padding queries alone."""
    is_padding = (inputs.seen.places.query_segments_BL == 0)[:, :, None, None]
    assert is_padding.any()
    reading = jnp.where(is_padding, 7.0, jnp.zeros_like(inputs.q_BLHC))
    return output_and_gradients(kernel, inputs._replace(reading_BLHC=reading))[1:]


def assert_close(got: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    assert len(got) == len(expected)
    for name, x, y in zip(("out", "d_q", "d_k", "d_v", "d_bias"), got, expected, strict=False):
        assert np.isfinite(x).all(), name
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max(), err_msg=name)
