"""The distribution a token is drawn from, and the draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.errors import InputError
from inference.sampling import Sampling, choose, next_token_logits

# Probabilities .5, .3, .15, .05.
LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))


def probabilities(sampling: Sampling) -> np.ndarray:
    return np.asarray(jax.nn.softmax(next_token_logits(LOGITS, sampling)))[0]


def test_top_k_keeps_the_k_likeliest_and_renormalises():
    kept = probabilities(Sampling(temperature=1.0, top_k=2))
    np.testing.assert_allclose(kept, [0.625, 0.375, 0, 0], rtol=1e-6)


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    kept = probabilities(Sampling(temperature=1.0, top_p=0.75))
    np.testing.assert_allclose(kept, [0.625, 0.375, 0, 0], rtol=1e-6)
    kept = probabilities(Sampling(temperature=1.0, top_p=0.85))
    np.testing.assert_allclose(kept, np.array([0.5, 0.3, 0.15, 0]) / 0.95, rtol=1e-6)


def test_temperature_sharpens_before_top_p_is_taken():
    # At temperature 1/2 probabilities go as their squares: .68, .25, .06, .01.
    kept = probabilities(Sampling(temperature=0.5, top_p=0.9))
    np.testing.assert_allclose(kept, np.array([0.25, 0.09, 0, 0]) / 0.34, rtol=1e-5)


def test_top_k_comes_before_top_p():
    # Of the two kept, renormalised to .625 and .375, the first alone reaches .6.
    kept = probabilities(Sampling(temperature=1.0, top_k=2, top_p=0.6))
    np.testing.assert_allclose(kept, [1, 0, 0, 0])


@pytest.mark.parametrize("sampling", [Sampling(temperature=1.0, top_k=k) for k in (0, 4, 99)])
def test_keeping_everything_changes_nothing(sampling):
    np.testing.assert_allclose(probabilities(sampling), [0.5, 0.3, 0.15, 0.05], rtol=1e-6)


def test_each_row_is_cut_by_its_own_distribution():
    rows = jnp.log(jnp.array([[0.9, 0.05, 0.05], [0.1, 0.45, 0.45]]))
    kept = jnp.isfinite(next_token_logits(rows, Sampling(temperature=1.0, top_p=0.8)))
    np.testing.assert_array_equal(kept, [[True, False, False], [False, True, True]])


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0.0), Sampling(top_k=1, seed=3), Sampling(top_p=1e-6, seed=4)],
)
def test_one_candidate_is_greedy(sampling):
    logits = jax.random.normal(jax.random.key(0), (5, 50))
    chosen = choose(logits, sampling, jax.random.key(sampling.seed))
    np.testing.assert_array_equal(chosen, jnp.argmax(logits, -1))


def test_draws_follow_the_distribution():
    rows = jnp.tile(LOGITS, (4000, 1))
    drawn = np.asarray(choose(rows, Sampling(temperature=1.0), jax.random.key(0)))
    shares = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.15, 0.05], atol=0.03)  # 4 standard errors


def test_a_row_draws_the_same_whatever_stands_beside_it():
    logits = jax.random.normal(jax.random.key(1), (3, 50))
    key, sampling = jax.random.key(2), Sampling(temperature=1.0)
    alone = choose(logits[:1], sampling, key)
    assert choose(logits, sampling, key)[0] == alone[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
    ],
)
def test_bad_settings_name_the_field(field, value):
    with pytest.raises(InputError, match=f"^{field}: "):
        Sampling(**{field: value})
