"""Cross-entropy and z-loss against NumPy, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.losses import cross_entropy_sums

B, L, V = 2, 3, 5


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((B, L, V))).astype(np.float32)
    targets = rng.integers(0, V, (B, L), dtype=np.int32)
    weights = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 1.0]], np.float32)
    return logits, targets, weights


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits.astype(np.float64))
    return exponents / exponents.sum(-1, keepdims=True)


def test_sums_equal_numpy(example):
    logits, targets, weights = example
    sums = cross_entropy_sums(*map(jnp.asarray, example))
    of_target = np.take_along_axis(softmax(logits), targets[..., None], axis=-1)[..., 0]
    log_normaliser = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    assert sums.cross_entropy == pytest.approx(-(weights * np.log(of_target)).sum(), rel=1e-6)
    assert sums.z_loss == pytest.approx((weights * log_normaliser**2).sum(), rel=1e-6)
    assert float(sums.weight) == 3.5


def test_gradients_equal_numpy(example):
    logits, targets, weights = example

    def gradient_of(field: str) -> np.ndarray:
        def loss(x: jax.Array) -> jax.Array:
            sums = cross_entropy_sums(x, jnp.asarray(targets), jnp.asarray(weights))
            return getattr(sums, field)

        return np.asarray(jax.grad(loss)(jnp.asarray(logits)))

    probabilities, one_hot = softmax(logits), np.eye(V)[targets]
    np.testing.assert_allclose(
        gradient_of("cross_entropy"), weights[..., None] * (probabilities - one_hot), atol=1e-6
    )
    log_normaliser = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    expected = weights[..., None] * 2 * log_normaliser[..., None] * probabilities
    np.testing.assert_allclose(gradient_of("z_loss"), expected, atol=2e-6)


def test_uniform_logits_cost_the_log_of_the_vocabulary():
    sums = cross_entropy_sums(
        jnp.full((1, 4, 8), 2.5), jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4))
    )
    assert sums.cross_entropy / sums.weight == pytest.approx(np.log(8), rel=1e-6)


def test_huge_logits_stay_finite():
    logits = jnp.asarray([[[1e4, -1e4, 0.0]]])
    sums = cross_entropy_sums(logits, jnp.asarray([[1]], jnp.int32), jnp.ones((1, 1)))
    assert float(sums.cross_entropy) == 2e4


def test_no_weight_gives_sums_of_zero():
    sums = cross_entropy_sums(jnp.zeros((1, 4, 8)), jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 4)))
    assert tuple(map(float, sums)) == (0.0, 0.0, 0.0, 0.0)
