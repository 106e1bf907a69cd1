"""RMSNorm against NumPy, and the precision of its statistics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import ArrayLike

from configs.model_config import RMSNormConfig
from model.norms import make_norm

WIDTH = 512


def normed(x: ArrayLike, scale: ArrayLike, dtype: str, epsilon: float = 1e-5) -> Any:
    module = make_norm(RMSNormConfig(epsilon=epsilon), jnp.dtype(dtype), "norm")
    return module.apply({"params": {"scale": jnp.asarray(scale)}}, jnp.asarray(x, dtype))


def expected(x: np.ndarray, scale: np.ndarray, epsilon: float = 1e-5) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + epsilon) * scale


@pytest.mark.parametrize(("size", "epsilon"), [(1e-3, 1e-6), (1.0, 1e-1), (1e4, 1e-5)])
def test_rms_norm_equals_numpy(size, epsilon):
    rng = np.random.default_rng(0)
    x = (size * rng.standard_normal((3, 4, WIDTH))).astype(np.float32)
    scale = rng.standard_normal(WIDTH).astype(np.float32)
    np.testing.assert_allclose(
        normed(x, scale, "float32", epsilon), expected(x, scale, epsilon), rtol=2e-6, atol=1e-6
    )


def test_bf16_output_is_rounded_once_from_fp32_statistics():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((64, WIDTH)) + 3.0, jnp.bfloat16)
    scale = rng.uniform(0.5, 2.0, WIDTH).astype(np.float32)
    y = normed(np.asarray(x), scale, "bfloat16")
    assert y.dtype == jnp.bfloat16
    exact = expected(np.asarray(x, np.float64), scale)
    error = np.abs(np.asarray(y, np.float64) - exact) / np.abs(exact)
    # bf16 keeps 8 bits: one rounding is at most 2^-8. bf16 statistics would round twice more.
    assert error.max() <= 2**-8 * (1 + 1e-3)


def test_a_vector_of_zeros_stays_zero_with_finite_gradient():
    zeros, ones = jnp.zeros((1, 8)), jnp.ones(8)
    np.testing.assert_array_equal(normed(zeros, ones, "float32"), zeros)
    gradient = jax.grad(lambda x: jnp.sum(normed(x, ones, "float32")))(zeros)
    assert np.isfinite(gradient).all()
