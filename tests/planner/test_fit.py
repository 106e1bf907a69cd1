"""The planner recovers synthetic laws, says how sure it is, and refuses what it cannot know."""

import dataclasses
import math
import time

import numpy as np
import pytest

from configs.errors import InputError
from planner.coefficients import COEFFICIENTS, Coefficients, goodness
from planner.fit import ParametricFit, fit_parametric, require_identifiable
from planner.huber import Problem
from planner.newton import minimise
from planner.runs import Runs
from planner.uncertainty import bootstrap, identifiability, influence, intervals

BESIROGLU = Coefficients(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)


def synthetic(
    law=BESIROGLU, *, budgets=5, sizes=10, low=1e18, high=1e21, span=10.0, noise=0.0, seed=0
):
    """IsoFLOP runs: sizes from 1/span to span times the optimum, log-normal noise of the loss."""
    flops = np.repeat(np.geomspace(low, high, budgets), sizes)
    params = law.frontier(flops)[0] * np.tile(np.geomspace(1 / span, span, sizes), budgets)
    tokens = flops / 6 / params
    drawn = np.random.default_rng(seed).standard_normal(len(flops))
    loss = law.loss(params, tokens) * np.exp(noise * drawn)
    return Runs(params=params, tokens=tokens, loss=loss, flops=flops)


@pytest.fixture(scope="module")
def noisy():
    runs = synthetic(budgets=4, noise=0.003, seed=1)
    return runs, fit_parametric(runs)


@pytest.mark.parametrize(
    ("law", "low", "high"),
    [
        (BESIROGLU, 1e18, 1e21),
        (Coefficients(E=1.2, A=8, B=30, alpha=0.15, beta=0.2), 1e18, 1e21),
        (Coefficients(E=0.5, A=3e3, B=200, alpha=1.0, beta=0.4), 1e13, 1e16),
        (Coefficients(E=1.0, A=5, B=1e6, alpha=0.15, beta=1.0), 1e13, 1e16),
    ],
)
def test_noise_free_runs_give_the_law_back(law, low, high):
    found = fit_parametric(synthetic(law, budgets=4, sizes=7, low=low, high=high))
    # The valley is narrow: losses to 1e-16 leave the coefficients some 1e-10.
    np.testing.assert_allclose(found.coefficients.row(), law.row(), rtol=1e-6)
    assert found.starts == 4500


def test_fixed_floor_is_kept_and_the_rest_recovered():
    for law in (BESIROGLU, dataclasses.replace(BESIROGLU, E=0.0)):
        runs = synthetic(law, budgets=3, sizes=6)
        found = fit_parametric(runs, fixed_E=law.E)
        np.testing.assert_allclose(found.coefficients.row(), law.row(), rtol=1e-6)
        samples = bootstrap(runs, found, samples=20)
        assert (samples[:, 0] == law.E).all()


def test_grid_is_as_good_as_a_start_at_the_truth():
    runs = synthetic(budgets=3, noise=0.01, seed=2)
    found = fit_parametric(runs)
    problem = Problem.of(runs, delta=1e-3, fixed_E=None)
    truth_SP = problem.point(BESIROGLU)[None]
    point_SP, value_S = minimise(problem, truth_SP, None, 1000, 1e-14)
    assert found.objective <= value_S[0] * (1 + 1e-9)
    gradient = problem.derivatives(point_SP, np.ones((1, len(runs))))[1]
    assert np.abs(gradient).max() < 1e-9  # of an objective of 1e-4: at the bottom


def test_derivatives_agree_with_finite_differences():
    runs = synthetic(noise=0.002)
    # Residuals on both sides of delta, and fewer at its kink than a difference would notice.
    problem = Problem.of(runs, delta=0.01, fixed_E=None)
    counts = np.random.default_rng(0).integers(0, 3, (1, len(runs))).astype(float)
    point_P = problem.point(BESIROGLU) + np.array([0.02, -0.01, 0.01, 0.02, -0.01])
    _, gradient, hessian, _ = problem.derivatives(point_P[None], counts)
    size = 1e-6
    moved = [problem.derivatives((point_P + s)[None], counts) for s in size * np.eye(5)]
    back = [problem.derivatives((point_P - s)[None], counts) for s in size * np.eye(5)]
    slopes = [(m[0][0] - b[0][0]) / (2 * size) for m, b in zip(moved, back, strict=True)]
    np.testing.assert_allclose(gradient[0], slopes, rtol=1e-5, atol=1e-8)
    bends = [(m[1][0] - b[1][0]) / (2 * size) for m, b in zip(moved, back, strict=True)]
    np.testing.assert_allclose(hessian[0], bends, rtol=1e-4, atol=1e-5)


def test_frontier_is_the_cheapest_point_at_its_compute():
    params, tokens = BESIROGLU.frontier(1e21)
    assert 6 * params * tokens == pytest.approx(1e21, rel=1e-12)
    best = BESIROGLU.loss(params, tokens)
    for factor in (0.99, 1.01):
        assert BESIROGLU.loss(params * factor, tokens / factor) > best
    doubled = BESIROGLU.frontier(2e21)[0] / params
    assert doubled == pytest.approx(2**BESIROGLU.params_exponent, rel=1e-12)


def test_refits_are_repeatable_and_intervals_hold_the_fit(noisy):
    runs, found = noisy
    done = []
    samples = bootstrap(runs, found, samples=300, seed=3, progress=lambda *now: done.append(now))
    assert done[-1] == (300, 300)
    np.testing.assert_array_equal(samples, bootstrap(runs, found, samples=300, seed=3, workers=1))
    spans = intervals(found, samples, flops=[1e20, 1e23])
    for name in (*COEFFICIENTS, "params_exponent"):
        span = getattr(spans, name)
        assert span.low < span.value < span.high
    near, far = spans.optima
    assert near.flops == 1e20
    for span in (near.params, near.tokens, near.loss):
        assert span.low < span.value < span.high
    assert far.params.high / far.params.low > near.params.high / near.params.low
    assert identifiability(runs, found, samples) == []


def test_a_spoiled_run_has_the_largest_influence_and_residual():
    runs = synthetic(budgets=3, sizes=7, noise=0.001)
    loss = runs.loss.copy()
    loss[0] *= 1.2
    runs = dataclasses.replace(runs, loss=loss)
    found = fit_parametric(runs)
    quality = goodness(runs, found.coefficients)
    assert quality.max_run == 0
    assert quality.max_relative_residual == pytest.approx(0.2, abs=0.02)
    records = influence(runs, found)
    assert {record.left_out for record in records} == {(i,) for i in range(len(runs))}
    sizes = [record.size for record in records]
    assert sizes == sorted(sizes, reverse=True)
    first = records[0]
    assert first.moves["E"] == pytest.approx(first.coefficients.E - found.coefficients.E)
    refit = fit_parametric(runs.take([i for i in range(len(runs)) if i not in first.left_out]))
    np.testing.assert_allclose(first.coefficients.row(), refit.coefficients.row(), rtol=1e-4)


def test_groups_are_left_out_together(noisy):
    runs, found = noisy
    records = influence(runs, found, k=4, groups=10)
    assert len(records) == 10
    assert all(len(set(record.left_out)) == 4 for record in records)
    with pytest.raises(InputError, match="^k: got 35"):
        influence(runs, found, k=35)


def test_goodness_of_exact_runs_is_perfect():
    quality = goodness(synthetic(), BESIROGLU)
    assert quality.r_squared == pytest.approx(1)
    assert quality.rms_relative_residual < 1e-12


def of(params, tokens):
    params, tokens = np.array(params, dtype=float), np.array(tokens, dtype=float)
    loss = BESIROGLU.loss(params, tokens)
    return Runs(params=params, tokens=tokens, loss=loss, flops=6 * params * tokens)


@pytest.mark.parametrize(
    ("params", "tokens", "message"),
    [
        ([1e8, 2e8, 4e8, 1e8, 2e8], [1e9, 2e9, 1e9, 4e9, 8e9], "runs: got 5, expected at least 6"),
        ([1e8, 2e8] * 4, np.geomspace(1e9, 1e11, 8), "distinct params: got 2"),
        (np.geomspace(1e8, 1e9, 8), [1e9, 2e9] * 4, "distinct tokens: got 2"),
        (np.geomspace(1e8, 1.5e8, 8), [1e9, 2e9, 4e9, 8e9] * 2, "params: got a spread"),
        (np.geomspace(1e8, 1e9, 8), np.geomspace(2e9, 2e10, 8), "tokens-per-parameter ratio"),
        (np.geomspace(1e8, 1e9, 8), np.geomspace(2e10, 2e9, 8), "compute budget"),
    ],
)
def test_runs_that_cannot_identify_a_law_are_refused(params, tokens, message):
    with pytest.raises(InputError, match=message):
        require_identifiable(of(params, tokens))
    with pytest.raises(InputError, match=message):
        fit_parametric(of(params, tokens))


def test_bad_settings_are_refused(noisy):
    runs, found = noisy
    with pytest.raises(InputError, match="^delta: got 0.0"):
        fit_parametric(runs, delta=0.0)
    for floor in (-1.0, 10.0, math.nan):
        with pytest.raises(InputError, match="^fixed_E: got"):
            fit_parametric(runs, fixed_E=floor)
    with pytest.raises(InputError, match="^samples: got 3"):
        bootstrap(runs, found, samples=3)
    with pytest.raises(InputError, match="^level: got 90"):
        intervals(found, np.tile(found.coefficients.row(), (20, 1)), level=90)


def test_weak_runs_are_named_so_with_numbers():
    runs = synthetic(budgets=2, sizes=5, span=1.6, high=4e18, noise=0.03, seed=0)
    found = fit_parametric(runs)
    reasons = identifiability(runs, found, bootstrap(runs, found, samples=100))
    assert any("exponent a" in reason for reason in reasons)
    assert all(any(letter.isdigit() for letter in reason) for reason in reasons)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budgets", "sizes", "noise"), [(6, 10, 0.001), (6, 10, 0.01), (10, 25, 0.003)]
)
def test_intervals_cover_the_truth_in_85_of_100_seeds(budgets, sizes, noise):
    """Fits start at the truth, to save a hundred grids; every 25th seed checks that against one."""
    truth = [*BESIROGLU.row(), BESIROGLU.params_exponent, *BESIROGLU.frontier(1e23)]
    truth.append(BESIROGLU.loss(*truth[-2:]))
    covered, widths, estimates = [], [], []
    for seed in range(100):
        runs = synthetic(budgets=budgets, sizes=sizes, noise=noise, seed=seed)
        problem = Problem.of(runs, delta=1e-3, fixed_E=None)
        point_SP, value_S = minimise(problem, problem.point(BESIROGLU)[None], None, 1000, 1e-14)
        found = ParametricFit(
            coefficients=problem.coefficients(point_SP[0]),
            objective=float(value_S[0]),
            delta=1e-3,
            fixed_E=None,
            starts=1,
            agreeing=1,
        )
        if seed % 25 == 0:
            assert fit_parametric(runs).objective <= found.objective * (1 + 1e-9)
        spans = intervals(found, bootstrap(runs, found, samples=200, seed=seed), flops=[1e23])
        optimum = spans.optima[0]
        all_spans = [getattr(spans, name) for name in (*COEFFICIENTS, "params_exponent")]
        all_spans += [optimum.params, optimum.tokens, optimum.loss]
        covered.append([s.low <= t <= s.high for s, t in zip(all_spans, truth, strict=True)])
        widths.append([s.high - s.low for s in all_spans])
        estimates.append([s.value for s in all_spans])
    assert np.sum(covered, axis=0).min() >= 85
    spread = np.ptp(np.quantile(estimates, [0.05, 0.95], axis=0), axis=0)
    assert (np.median(widths, axis=0) <= 2 * spread).all()


@pytest.mark.slow
def test_full_grid_and_thousand_refits_of_250_runs_take_under_a_minute():
    runs = synthetic(budgets=10, sizes=25, noise=0.003)
    start = time.perf_counter()
    found = fit_parametric(runs)
    assert time.perf_counter() - start < 60
    start = time.perf_counter()
    assert bootstrap(runs, found).shape == (1000, 5)
    assert time.perf_counter() - start < 60
