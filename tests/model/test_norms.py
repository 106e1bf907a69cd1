"""Norms against NumPy and PyTorch, and the precision of their statistics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import ArrayLike

from configs.model_config import LayerNormConfig, NormConfig, RMSNormConfig
from model.norms import make_norm

WIDTH = 512
RMS = RMSNormConfig()


def normed(x: ArrayLike, dtype: str, config: NormConfig = RMS, **params: ArrayLike) -> Any:
    module = make_norm(config, jnp.dtype(dtype), "norm")
    arrays = {name: jnp.asarray(value) for name, value in params.items()}
    return module.apply({"params": arrays}, jnp.asarray(x, dtype))


def expected(x: np.ndarray, scale: np.ndarray, epsilon: float = 1e-5) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + epsilon) * scale


@pytest.mark.parametrize(("size", "epsilon"), [(1e-3, 1e-6), (1.0, 1e-1), (1e4, 1e-5)])
def test_rms_norm_equals_numpy(size, epsilon):
    rng = np.random.default_rng(0)
    x = (size * rng.standard_normal((3, 4, WIDTH))).astype(np.float32)
    scale = rng.standard_normal(WIDTH).astype(np.float32)
    np.testing.assert_allclose(
        normed(x, "float32", RMSNormConfig(epsilon=epsilon), scale=scale),
        expected(x, scale, epsilon),
        rtol=2e-6,
        atol=1e-6,
    )


def test_an_offset_is_added_to_the_stored_scale():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, WIDTH)).astype(np.float32)
    stored = rng.standard_normal(WIDTH).astype(np.float32)
    config = RMSNormConfig(scale_offset=1.0)
    y = normed(x, "float32", config, scale=stored)
    np.testing.assert_allclose(y, expected(x, 1.0 + stored), rtol=2e-6, atol=1e-6)
    module = make_norm(config, jnp.dtype("float32"), "norm")
    fresh = jax.tree.leaves(module.init(jax.random.key(0), jnp.asarray(x)))
    np.testing.assert_array_equal(fresh, np.zeros((1, WIDTH)))  # so that it multiplies by one


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(("size", "epsilon"), [(1.0, 1e-12), (1e-3, 1e-5), (1e3, 1e-5)])
def test_layer_norm_equals_torch(size, epsilon, use_bias):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = (size * (2.0 + rng.standard_normal((3, 4, WIDTH)))).astype(np.float32)
    params = {"scale": rng.standard_normal(WIDTH).astype(np.float32)}
    if use_bias:
        params["bias"] = rng.standard_normal(WIDTH).astype(np.float32)
    weight, bias = (torch.tensor(params[k]) if k in params else None for k in ("scale", "bias"))
    theirs = torch.nn.functional.layer_norm(torch.tensor(x), (WIDTH,), weight, bias, epsilon)
    ours = normed(x, "float32", LayerNormConfig(epsilon=epsilon, use_bias=use_bias), **params)
    # fp32 sums over 512 numbers in another order: a few units of the last place, scaled up to 4.
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-6, atol=8e-6)


def test_layer_norms_variance_does_not_cancel():
    # E[x²] − E[x]² in fp32 would lose a variance of one beside a mean of 4000.
    x = 4000.0 + np.random.default_rng(0).standard_normal((1, WIDTH))
    y = normed(x, "float32", LayerNormConfig(use_bias=False), scale=np.ones(WIDTH, np.float32))
    assert np.std(y) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("config", [RMSNormConfig(), LayerNormConfig(use_bias=False)])
def test_bf16_output_is_rounded_once_from_fp32_statistics(config):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((64, WIDTH)) + 3.0, jnp.bfloat16)
    scale = rng.uniform(0.5, 2.0, WIDTH).astype(np.float32)
    y = normed(np.asarray(x), "bfloat16", config, scale=scale)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    if isinstance(config, LayerNormConfig):
        exact = exact - exact.mean(-1, keepdims=True)
    exact = expected(exact, scale)
    error = np.abs(np.asarray(y, np.float64) - exact) / np.abs(exact)
    # bf16 keeps 8 bits: one rounding is at most 2^-8. bf16 statistics would round twice more.
    assert error[np.abs(exact) > 1e-3].max() <= 2**-8 * (1 + 1e-3)


@pytest.mark.parametrize("config", [RMSNormConfig(), LayerNormConfig(use_bias=False)])
def test_a_vector_of_zeros_stays_zero_with_finite_gradient(config):
    zeros, ones = jnp.zeros((1, 8)), jnp.ones(8)
    np.testing.assert_array_equal(normed(zeros, "float32", config, scale=ones), zeros)
    gradient = jax.grad(lambda x: jnp.sum(normed(x, "float32", config, scale=ones)))(zeros)
    assert np.isfinite(gradient).all()
