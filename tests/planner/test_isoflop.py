"""Parabolas find the minimum of each budget, and the power law goes through the minima."""

import numpy as np
import pytest

from configs.errors import InputError
from planner.coefficients import Coefficients
from planner.isoflop import fit_isoflop
from planner.runs import Runs

LAW = Coefficients(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)


def profiles(budgets, *, optimum, curvature=0.05, sizes=9, span=1.5, noise=0.0, seed=0, shift=0.0):
    """Runs on exact parabolas: loss = 2 + curvature·(ln N − ln N*)², swept around shift + ln N*."""
    flops = np.repeat(np.asarray(budgets, dtype=float), sizes)
    best = np.log(optimum(flops))
    x = best + shift + np.tile(np.linspace(-span, span, sizes), len(budgets))
    drawn = np.random.default_rng(seed).standard_normal(len(x))
    loss = (2 + curvature * (x - best) ** 2) * np.exp(noise * drawn)
    return Runs(params=np.exp(x), tokens=flops / 6 / np.exp(x), loss=loss, flops=flops)


def test_exact_parabolas_give_exact_exponents():
    runs = profiles([1e18, 1e19, 1e20, 1e21], optimum=lambda c: 0.1 * c**0.47)
    fit = fit_isoflop(runs)
    # Rounding of a least-squares parabola with well-spread sizes.
    assert fit.exponent_params == pytest.approx(0.47, abs=1e-9)
    assert fit.exponent_tokens == pytest.approx(0.53, abs=1e-9)
    assert np.exp(fit.log_intercept_params) == pytest.approx(0.1, rel=1e-7)
    params, tokens = fit.frontier(1e22)
    assert 6 * params * tokens == pytest.approx(1e22, rel=1e-9)
    for parabola in fit.parabolas:
        assert parabola.accepted
        assert parabola.best_loss == pytest.approx(2, rel=1e-9)
        assert parabola.loss(parabola.best_params) == pytest.approx(2, rel=1e-9)
    assert fit.interval_params == pytest.approx((0.47, 0.47), abs=1e-9)


def test_order_of_the_runs_and_jitter_of_their_compute_do_not_matter():
    runs = profiles([1e18, 1e19, 1e20], optimum=lambda c: 0.1 * c**0.5)
    jitter = np.random.default_rng(0).uniform(1, 1.05, len(runs))
    shuffled = Runs(
        params=runs.params, tokens=runs.tokens, loss=runs.loss, flops=runs.flops * jitter
    ).take(np.random.default_rng(1).permutation(len(runs)))
    fit = fit_isoflop(shuffled)
    assert len(fit.parabolas) == 3
    assert sorted(i for parabola in fit.parabolas for i in parabola.runs) == list(range(len(runs)))
    assert fit.exponent_params == pytest.approx(0.5, abs=0.01)  # compute is off by up to 5%


def test_minima_outside_the_sweep_downward_and_few_sizes_are_left_out_with_a_reason():
    optimum = lambda c: 0.1 * c**0.5  # noqa: E731
    parts = [
        profiles([1e18, 1e19], optimum=optimum),
        profiles([1e20], optimum=optimum, shift=3),
        profiles([1e21], optimum=optimum, curvature=-0.05),
        profiles([1e22], optimum=optimum, sizes=2),
    ]
    runs = Runs(
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("params", "tokens", "loss", "flops")
        }
    )
    fit = fit_isoflop(runs)
    assert [parabola.accepted for parabola in fit.parabolas] == [True, True, False, False, False]
    outside, downward, few = (parabola.reason for parabola in fit.parabolas[2:])
    assert "outside the swept" in outside
    assert downward == "opens downward"
    assert few == "2 sizes, at least 3 needed"
    assert fit.exponent_params == pytest.approx(0.5, abs=1e-9)
    assert fit.interval_params is None  # two minima are a line, whatever their noise


def test_fewer_than_two_minima_are_refused():
    with pytest.raises(InputError, match="got 1 of 1 budgets"):
        fit_isoflop(profiles([1e19], optimum=lambda c: 0.1 * c**0.5))


def test_runs_of_a_parametric_law_give_its_exponent():
    flops = np.repeat(np.geomspace(1e18, 1e21, 5), 9)
    params = LAW.frontier(flops)[0] * np.tile(np.geomspace(0.4, 2.5, 9), 5)
    tokens = flops / 6 / params
    runs = Runs(params=params, tokens=tokens, loss=LAW.loss(params, tokens), flops=flops)
    # A parabola is not the law's own shape: near the minimum the difference is a percent.
    assert fit_isoflop(runs).exponent_params == pytest.approx(LAW.params_exponent, abs=0.01)


def test_intervals_cover_the_exponent():
    covered = 0
    for seed in range(40):
        runs = profiles(
            np.geomspace(1e18, 1e21, 6), optimum=lambda c: 0.1 * c**0.5, noise=0.003, seed=seed
        )
        interval = fit_isoflop(runs, samples=200, seed=seed).interval_params
        assert interval is not None
        covered += interval[0] <= 0.5 <= interval[1]
    assert covered >= 32  # 36 expected of 90% intervals; 32 is two standard deviations below
