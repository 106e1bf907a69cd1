"""The distribution a token is drawn from, and the draw."""

from functools import partial
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from configs.errors import InputError
from inference.sampling import DEFAULT_SAMPLING, Sampling, choose, filtered_logits, likeliest

# Probabilities .5, .3, .15, .05.
LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
DRAWS = 20_000
FILTERS: dict[str, Any] = {
    "temperature": 0.7,
    "top_k": 9,
    "top_p": 0.85,
    "min_p": 0.08,
    "repetition_penalty": 1.6,
}
COMBINATIONS = [names for size in range(len(FILTERS) + 1) for names in combinations(FILTERS, size)]


def probabilities(sampling: Sampling) -> np.ndarray:
    filtered = filtered_logits(LOGITS, sampling.values, sampling.stages)
    return np.asarray(jax.nn.softmax(filtered))[0]


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def exact_probabilities(logits_V: np.ndarray, seen_V: np.ndarray, s: Sampling) -> np.ndarray:
    """The stages' definitions, by sorting, in fp64."""
    x = logits_V.astype(np.float64)
    lowered = np.where(x < 0, x * s.repetition_penalty, x / s.repetition_penalty)
    x = np.where(seen_V, lowered, x) / s.temperature
    p = np.exp(x - x.max())
    p /= p.sum()
    order = np.argsort(-p)
    if s.top_k:
        p[order[s.top_k :]] = 0
        p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= s.top_p]] = 0
    p /= p.sum()
    p[p < s.min_p * p.max()] = 0
    return p / p.sum()


@partial(jax.jit, static_argnames="stages")
def draw(logits_V, seen_V, values, stages):
    logits_BV = jnp.broadcast_to(logits_V, (DRAWS, len(logits_V)))
    seen_BV = jnp.broadcast_to(seen_V, logits_BV.shape)
    return choose(logits_BV, values, stages, keys(DRAWS, 5), seen_BV)


@pytest.mark.parametrize("names", COMBINATIONS, ids=lambda names: "+".join(names) or "none")
def test_draws_follow_the_exact_distribution(names):
    fields: dict[str, Any] = {"temperature": 1.0} | {name: FILTERS[name] for name in names}
    sampling = Sampling(**fields)
    rng = np.random.default_rng(0)
    logits_V = (1.5 * rng.standard_normal(16)).astype(np.float32)
    seen_V = rng.random(16) < 0.4
    expected = exact_probabilities(logits_V, seen_V, sampling)
    drawn = np.asarray(
        draw(jnp.asarray(logits_V), jnp.asarray(seen_V), sampling.values, sampling.stages)
    )
    counts = np.bincount(drawn, minlength=16)
    kept = expected > 0
    assert counts[~kept].sum() == 0
    assert kept.sum() > 2
    # The seed is fixed: a p-value below 1e-4 would be chance once in 300 suites of 32 cases.
    assert chisquare(counts[kept], DRAWS * expected[kept]).pvalue > 1e-4


def test_another_distribution_fails_the_test_of_draws():
    rng = np.random.default_rng(0)
    logits_V = (1.5 * rng.standard_normal(16)).astype(np.float32)
    nobody_V, warm = np.zeros(16, bool), Sampling(temperature=1.05)
    drawn = draw(jnp.asarray(logits_V), jnp.asarray(nobody_V), warm.values, warm.stages)
    expected = exact_probabilities(logits_V, nobody_V, Sampling(temperature=1.0))
    counts = np.bincount(np.asarray(drawn), minlength=16)
    assert chisquare(counts, DRAWS * expected).pvalue < 1e-4


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.75}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.85}, np.array([0.5, 0.3, 0.15, 0]) / 0.95),
        # At temperature 1/2 probabilities go as their squares: .68, .25, .06, .01.
        ({"temperature": 0.5, "top_p": 0.9}, np.array([0.25, 0.09, 0, 0]) / 0.34),
        # Of the two kept, renormalised to .625 and .375, the first alone reaches .6.
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),
        ({"min_p": 0.25}, np.array([0.5, 0.3, 0.15, 0]) / 0.95),
        ({"top_k": 4}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 1.0, "min_p": 0.0}, [0.5, 0.3, 0.15, 0.05]),
    ],
)
def test_each_stage_keeps_what_it_says(settings, expected):
    kept = probabilities(Sampling(**({"temperature": 1.0} | settings)))
    np.testing.assert_allclose(kept, expected, rtol=1e-5)


def test_each_row_is_cut_by_its_own_distribution():
    rows = jnp.log(jnp.array([[0.9, 0.05, 0.05], [0.1, 0.45, 0.45]]))
    sampling = Sampling(temperature=1.0, top_p=0.8)
    kept = jnp.isfinite(filtered_logits(rows, sampling.values, sampling.stages))
    np.testing.assert_array_equal(kept, [[True, False, False], [False, True, True]])


@pytest.mark.parametrize("vocab_size", [50, 8192])
@pytest.mark.parametrize("settings", [{"top_k": 37}, {"top_p": 0.3}, {"top_k": 40, "top_p": 0.9}])
def test_cuts_are_those_of_sorting(settings, vocab_size):
    logits = np.asarray(jax.random.normal(jax.random.key(0), (5, vocab_size)) * 3)
    sampling = Sampling(temperature=1.0, **settings)
    kept = np.isfinite(filtered_logits(jnp.asarray(logits), sampling.values, sampling.stages))
    nobody = np.zeros(vocab_size, bool)
    exact = np.array([exact_probabilities(row, nobody, sampling) > 0 for row in logits])
    # A sum of fp32 may fall on the other side of top_p by one token.
    assert (kept != exact).sum() <= (5 if "top_p" in settings else 0)


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 100.0])
def test_extreme_temperatures_give_probabilities(temperature):
    kept = probabilities(Sampling(temperature=temperature, top_k=3, top_p=0.9, min_p=0.01))
    assert np.isfinite(kept).all() and kept.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0.0), Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(min_p=0.9999)],
)
def test_one_candidate_is_greedy(sampling):
    logits = jax.random.normal(jax.random.key(0), (5, 50))
    chosen = choose(logits, sampling.values, sampling.stages, keys(5))
    np.testing.assert_array_equal(chosen, jnp.argmax(logits, -1))


def test_the_first_of_equals_is_the_likeliest():
    np.testing.assert_array_equal(likeliest(jnp.array([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])), [1, 0])


def test_a_row_draws_the_same_whatever_stands_beside_it():
    logits = jax.random.normal(jax.random.key(1), (3, 50))
    sampling, row_keys = Sampling(temperature=1.0), keys(3)
    alone = choose(logits[:1], sampling.values, sampling.stages, row_keys[:1])
    assert choose(logits, sampling.values, sampling.stages, row_keys)[0] == alone[0]


def test_what_changes_nothing_is_no_stage():
    assert Sampling(temperature=0.0, top_k=5, top_p=0.5, min_p=0.1).stages == ()
    assert Sampling(temperature=0.0, repetition_penalty=2.0).stages == ("repetition_penalty",)
    assert DEFAULT_SAMPLING.stages == ("temperature",)
    everything = Sampling(**FILTERS).stages
    assert everything == ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", float("nan")),
        ("min_p", -0.1),
        ("min_p", 1.0),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("nan")),
        ("seed", -1),
    ],
)
def test_bad_settings_name_the_field(field, value):
    with pytest.raises(InputError, match=f"^{field}: "):
        Sampling(**{field: value})
