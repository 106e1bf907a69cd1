"""How sure a fit is: refits of resampled runs, their intervals, and runs that it hangs on.

Legend: S resamples, R runs, P coordinates, as in planner.huber.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import require
from planner.coefficients import COEFFICIENTS, Coefficients, goodness, num_fitted
from planner.fit import ParametricFit
from planner.huber import BOUNDS_P, Problem
from planner.newton import Progress, refit
from planner.runs import Runs


def bootstrap(
    runs: Runs,
    fit: ParametricFit,
    *,
    samples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    workers: int | None = None,
) -> np.ndarray:
    """Refits of resampled runs: the uncertainty of the fit, float64 [samples, 5].

    Runs are drawn with replacement, N, D and loss together, so no shape of the noise is assumed.
    Each refit starts at the full fit, then at two other refits' optima, and keeps the best. Refits
    are pushed away from the fit by n / (n − P), n runs and P free coefficients, for residuals are
    that much too small on average (1 / (1 − leverage), as in the jackknife's HC3 of MacKinnon and
    White 1985): percentiles are then intervals as they stand. test_fit.py measures their coverage.

    Args:
      samples: refits, at least 20.
      progress: called with (refits done, refits in all).

    Returns:
      One row a refit: E, A, B, alpha, beta. Percentiles of any function of them are intervals.
    """
    require(samples >= 20, "samples", samples, "at least 20")
    generator = np.random.default_rng(seed)
    draws_SR = generator.integers(len(runs), size=(samples, len(runs)))
    counts_SR = np.array([np.bincount(row, minlength=len(runs)) for row in draws_SR], dtype=float)
    problem = Problem.of(runs, delta=fit.delta, fixed_E=fit.fixed_E)
    here_P = problem.point(fit.coefficients)
    theta_SP = refit(problem, here_P, counts_SR, generator, progress, workers)
    free_P = np.array([True, True, fit.fixed_E is None, True, True])
    spread = len(runs) / (len(runs) - num_fitted(fit.fixed_E))
    theta_SP[:, free_P] = (1 - spread) * here_P[free_P] + spread * theta_SP[:, free_P]
    theta_SP = np.clip(theta_SP, *problem.bounds())
    return np.array([problem.coefficients(theta_P).row() for theta_P in theta_SP])


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A fitted value and the interval that the refits leave it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class OptimumIntervals:
    """N, D and nats per token of the compute-optimal run at C FLOPs."""

    flops: float
    params: Interval
    tokens: Interval
    loss: Interval


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Intervals at one level: the coefficients', a = beta / (alpha + beta)'s and optima's."""

    level: float
    E: Interval
    A: Interval
    B: Interval
    alpha: Interval
    beta: Interval
    params_exponent: Interval
    optima: tuple[OptimumIntervals, ...]


def intervals(
    fit: ParametricFit,
    samples: np.ndarray,
    *,
    flops: Sequence[float] = (),
    flops_per_param_token: float = 6.0,
    level: float = 0.9,
) -> Intervals:
    """Percentile intervals.

    Args:
      samples: what bootstrap returned, [S, 5].
      flops: C of the optima to report.
      flops_per_param_token: k of C = k·N·D.
      level: share of the refits inside, between 0 and 1.
    """
    require(0 < level < 1, "level", level, "between 0 and 1")
    tails = [(1 - level) / 2, (1 + level) / 2]

    def interval(value: float, values_S) -> Interval:
        low, high = np.quantile(values_S, tails)
        return Interval(value=float(value), low=float(low), high=float(high))

    def optimum(compute: float) -> OptimumIntervals:
        columns = [_optimum(law, compute, flops_per_param_token) for law in (best, *refits)]
        params, tokens, loss = (interval(c[0], c[1:]) for c in zip(*columns, strict=True))
        return OptimumIntervals(flops=compute, params=params, tokens=tokens, loss=loss)

    best = fit.coefficients
    refits = [Coefficients.of(row) for row in samples]
    return Intervals(
        level=level,
        **{
            name: interval(value, samples[:, i])
            for i, (name, value) in enumerate(zip(COEFFICIENTS, best.row(), strict=True))
        },
        params_exponent=interval(best.params_exponent, [law.params_exponent for law in refits]),
        optima=tuple(optimum(float(compute)) for compute in flops),
    )


@dataclass(frozen=True, kw_only=True)
class Influence:
    """How far the fit moves when runs are left out.

    Attributes:
      left_out: indices of the runs.
      coefficients: fitted without them.
      moves: coefficients without them minus with them, and so for params_exponent.
      size: the largest move, each in units of its root mean square over all the groups.
    """

    left_out: tuple[int, ...]
    coefficients: Coefficients
    moves: Mapping[str, float]
    size: float


def most_left_out(runs: Runs, *, fixed_E: float | None) -> int:  # noqa: N803
    """How many runs may be left out: one run more than coefficients stays."""
    return len(runs) - num_fitted(fixed_E) - 1


def influence(
    runs: Runs, fit: ParametricFit, *, k: int = 1, groups: int = 200, seed: int = 0
) -> list[Influence]:
    """Leaves k runs out at a time and refits, largest move first.

    Args:
      k: 1 leaves out every run in turn; more, `groups` random groups of k runs.

    Raises:
      InputError: k not in 1 to what leaves one run more than coefficients.
    """
    most = most_left_out(runs, fixed_E=fit.fixed_E)
    require(1 <= k <= most, "k", k, f"1 to {most} of {len(runs)} runs")
    generator = np.random.default_rng(seed)
    if k == 1:
        left_out = np.arange(len(runs))[:, None]
    else:
        left_out = np.array(
            [np.sort(generator.permutation(len(runs))[:k]) for _ in range(groups)], dtype=int
        )
    counts_SR = np.ones((len(left_out), len(runs)))
    np.put_along_axis(counts_SR, left_out, 0, axis=1)
    problem = Problem.of(runs, delta=fit.delta, fixed_E=fit.fixed_E)
    theta_SP = refit(problem, problem.point(fit.coefficients), counts_SR, generator)
    laws = [problem.coefficients(theta_P) for theta_P in theta_SP]
    whole = np.array([*fit.coefficients.row(), fit.coefficients.params_exponent])
    moves = np.array([[*law.row(), law.params_exponent] for law in laws]) - whole
    typical = np.sqrt((moves**2).mean(axis=0))
    sizes = np.abs(moves / np.where(typical > 0, typical, 1)).max(axis=1)
    return [
        Influence(
            left_out=tuple(map(int, left_out[i])),
            coefficients=laws[i],
            moves=dict(zip((*COEFFICIENTS, "params_exponent"), map(float, moves[i]), strict=True)),
            size=float(sizes[i]),
        )
        for i in np.argsort(-sizes, kind="stable")
    ]


def identifiability(runs: Runs, fit: ParametricFit, samples: np.ndarray) -> list[str]:
    """Why these runs leave the law open, one sentence a reason; none if they do not.

    Args:
      samples: what bootstrap returned, [S, 5].
    """
    reasons, law = [], fit.coefficients
    found = intervals(fit, samples)
    a = found.params_exponent
    if a.high - a.low > 0.2 or a.low < 0.01 or a.high > 0.99:
        reasons.append(
            f"The exponent a of N ∝ C^a is {a.value:.3f} with 90% interval {a.low:.3f} to "
            f"{a.high:.3f}: runs at more sizes and budgets would narrow it below 0.2."
        )
    for name, value in (("alpha", law.alpha), ("beta", law.beta)):
        low, high = BOUNDS_P[:, 3 if name == "alpha" else 4]
        if not low * 1.01 < value < high * 0.99:
            reasons.append(
                f"{name} is {value:.4g}, at the bound of the fit ({low:g} to {high:g}): its term "
                "is not seen in the runs."
            )
    if fit.fixed_E is None and found.E.low < 0.01 * runs.loss.min():
        reasons.append(
            f"E is {found.E.value:.3f} nats with 90% interval {found.E.low:.3f} to "
            f"{found.E.high:.3f}, down to 0: the runs are too far from the floor to see it."
        )
    rms = goodness(runs, law).rms_relative_residual
    explained = float(np.ptp(np.log(law.loss(runs.params, runs.tokens))))
    if rms > explained:
        reasons.append(
            f"The law misses the runs by {rms:.2%} (root mean square), more than the "
            f"{explained:.2%} of loss that it explains."
        )
    return reasons


def _optimum(law: Coefficients, flops: float, per_token: float) -> tuple[float, float, float]:
    """N, D and loss."""
    params, tokens = law.frontier(flops, per_token)
    return params, tokens, law.loss(params, tokens)
