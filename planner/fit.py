"""L(N, D) = E + A/N^α + B/D^β fitted to runs, with the uncertainty that the runs leave.

Objective and starts after Hoffmann et al. 2022 (arXiv 2203.15556, approach 3) and Besiroglu et al.
2024 (arXiv 2404.10102): Huber loss, δ = 1e-3, of log L − log-sum-exp(a − α·ln N, b − β·ln D, e),
summed over the runs, from 4,500 starts. We differ in the optimiser: L-BFGS stalls where Huber's
kinks meet a valley this narrow. A damped Newton method on exact derivatives runs every start at
once, with ln N and ln D centred.

Legend: S starts (or resamples), R runs, P = 5 coordinates (a, b, e, α, β), a and b centred.
"""

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from configs.errors import InputError, require
from planner.runs import Runs

Progress = Callable[[int, int], None]  # (done, total)
_Part = TypeVar("_Part")

COEFFICIENTS = ("E", "A", "B", "alpha", "beta")

_POLISHED = 64  # distinct ends of starts that are driven to the last digit
_CHUNK = 32_000  # starts × runs that go together: their arrays stay in the cache
_MAX_EXPONENT = 3.0
_BOUNDS_P = np.array([[-80.0] * 2 + [-12.0] + [1e-3] * 2, [80.0] * 2 + [4.0] + [_MAX_EXPONENT] * 2])


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """L(N, D) = E + A/N^alpha + B/D^beta in nats per token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    @property
    def params_exponent(self) -> float:
        """a of the frontier N ∝ C^a."""
        return self.beta / (self.alpha + self.beta)

    @classmethod
    def of(cls, row: Sequence[float] | np.ndarray) -> "Coefficients":
        """From (E, A, B, alpha, beta)."""
        return cls(**dict(zip(COEFFICIENTS, map(float, row), strict=True)))

    def row(self) -> tuple[float, float, float, float, float]:
        """(E, A, B, alpha, beta)."""
        return self.E, self.A, self.B, self.alpha, self.beta

    def loss(self, params, tokens):
        """Nats per token of N and D, numbers or arrays."""
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    def frontier(self, flops, flops_per_param_token: float = 6.0):
        """(N, D) of least loss at C FLOPs, a number or an array, with C = k·N·D.

        N = G·(C/k)^(β/(α+β)), D = (C/k)/N, G = (αA/βB)^(1/(α+β)) (Hoffmann et al., eq. 4).
        """
        product = flops / flops_per_param_token
        log_ratio = math.log(self.alpha / self.beta) + math.log(self.A) - math.log(self.B)
        params = math.exp(log_ratio / (self.alpha + self.beta)) * product**self.params_exponent
        return params, product / params


@dataclass(frozen=True, kw_only=True)
class ParametricFit:
    """The best of all starts.

    Attributes:
      coefficients: at the optimum.
      objective: summed Huber loss there.
      delta: Huber's δ, in log loss.
      fixed_E: E where the user gave it, else None.
      starts: starts tried.
      agreeing: how many of them came within a millionth of the best objective.
    """

    coefficients: Coefficients
    objective: float
    delta: float
    fixed_E: float | None
    starts: int
    agreeing: int


def fit_parametric(
    runs: Runs,
    *,
    delta: float = 1e-3,
    fixed_E: float | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> ParametricFit:
    """Fits E, A, B, alpha, beta from the full grid of starts.

    Args:
      delta: where Huber's loss turns from squares to absolute values, in log loss.
      fixed_E: nats per token; None fits E. Then the grid has no axis for it: 900 starts.
      progress: called with (starts done, starts in all).
      workers: threads; None takes a thread per core.

    Raises:
      InputError: runs that cannot identify the law (require_identifiable), delta not above 0, or
        fixed_E not in 0 to the least loss.
    """
    require(math.isfinite(delta) and delta > 0, "delta", delta, "above 0")
    if fixed_E is not None:
        least = float(runs.loss.min())
        require(0 <= fixed_E < least, "fixed_E", fixed_E, f"0 to below the least loss {least:g}")
    require_identifiable(runs, fixed_E=fixed_E)
    problem = _Problem.of(runs, delta=delta, fixed_E=fixed_E)
    grid_SP = problem.centred(_grid(fixed_E))
    rough_SP, values_S = _minimise_all(
        problem, grid_SP, iterations=400, tolerance=1e-9, progress=progress, workers=workers
    )
    order = np.argsort(values_S)
    distinct = order[np.unique(np.round(values_S[order], 12), return_index=True)[1]][:_POLISHED]
    fine_SP, fine_S = _minimise_all(
        problem, rough_SP[distinct], iterations=1000, tolerance=1e-14, workers=workers
    )
    best = int(np.argmin(fine_S))
    objective = float(fine_S[best])
    return ParametricFit(
        coefficients=problem.coefficients(fine_SP[best]),
        objective=objective,
        delta=delta,
        fixed_E=fixed_E,
        starts=len(grid_SP),
        agreeing=int(np.sum(values_S <= objective * (1 + 1e-6) + 1e-12)),
    )


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
    problem = _Problem.of(runs, delta=fit.delta, fixed_E=fit.fixed_E)
    here_P = problem.point(fit.coefficients)
    theta_SP = _refit(problem, here_P, counts_SR, generator, progress, workers)
    free_P = np.array([True, True, fit.fixed_E is None, True, True])
    spread = len(runs) / (len(runs) - _free(fit.fixed_E))
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


def influence(
    runs: Runs, fit: ParametricFit, *, k: int = 1, groups: int = 200, seed: int = 0
) -> list[Influence]:
    """Leaves k runs out at a time and refits, largest move first.

    Args:
      k: 1 leaves out every run in turn; more, `groups` random groups of k runs.

    Raises:
      InputError: k not in 1 to what leaves one run more than coefficients.
    """
    most = len(runs) - _free(fit.fixed_E) - 1
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
    problem = _Problem.of(runs, delta=fit.delta, fixed_E=fit.fixed_E)
    theta_SP = _refit(problem, problem.point(fit.coefficients), counts_SR, generator)
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


@dataclass(frozen=True, kw_only=True)
class Goodness:
    """How well a law describes runs.

    Attributes:
      r_squared: of log loss; 1 is perfect.
      rms_relative_residual: root mean square of loss / law − 1.
      max_relative_residual: its largest size. max_run: the index of that run.
      residuals: loss / law − 1, float64 [R].
    """

    r_squared: float
    rms_relative_residual: float
    max_relative_residual: float
    max_run: int
    residuals: np.ndarray


def goodness(runs: Runs, coefficients: Coefficients) -> Goodness:
    """Residuals of the runs from the law."""
    predicted_R = coefficients.loss(runs.params, runs.tokens)
    residuals_R = runs.loss / predicted_R - 1
    log_loss_R = np.log(runs.loss)
    left = np.sum((log_loss_R - np.log(predicted_R)) ** 2)
    total = np.sum((log_loss_R - log_loss_R.mean()) ** 2)
    worst = int(np.argmax(np.abs(residuals_R)))
    return Goodness(
        r_squared=float(1 - left / total) if total > 0 else 0.0,
        rms_relative_residual=float(np.sqrt(np.mean(residuals_R**2))),
        max_relative_residual=float(abs(residuals_R[worst])),
        max_run=worst,
        residuals=residuals_R,
    )


def require_identifiable(runs: Runs, *, fixed_E: float | None = None) -> None:
    """Refuses runs from which no fit can tell the law.

    Raises:
      InputError: fewer distinct runs than one more than the coefficients; under three sizes or
        token counts; N or D spread by less than a factor of 2; N and D on one line in logs.
    """
    x_R, y_R = np.log(runs.params), np.log(runs.tokens)
    distinct = len(np.unique(np.stack([x_R, y_R]), axis=1)[0]) if len(runs) else 0
    needed = _free(fixed_E) + 1
    require(distinct >= needed, "runs", distinct, f"at least {needed} runs of distinct (N, D)")
    for name, log_R in (("params", x_R), ("tokens", y_R)):
        values = len(np.unique(np.round(log_R, 6)))
        require(values >= 3, f"runs: distinct {name}", values, "at least 3 to see a curve")
        spread = float(np.exp(np.ptp(log_R)))
        if spread < 2:
            raise InputError(
                f"runs: {name}: got a spread of a factor {spread:.3g}, expected at least 2"
            )
    correlation = float(np.corrcoef(x_R, y_R)[0, 1])
    if abs(correlation) > 0.995:
        line = "tokens-per-parameter ratio" if correlation > 0 else "compute budget"
        raise InputError(
            f"runs: got N and D on one line in logs (correlation {correlation:.4f}, about one "
            f"{line}), expected several: their two terms cannot be told apart"
        )


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
        low, high = _BOUNDS_P[:, 3 if name == "alpha" else 4]
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


def _free(fixed_E: float | None) -> int:
    """How many coefficients are fitted."""
    return 5 if fixed_E is None else 4


def _optimum(law: Coefficients, flops: float, per_token: float) -> tuple[float, float, float]:
    """N, D and loss."""
    params, tokens = law.frontier(flops, per_token)
    return params, tokens, law.loss(params, tokens)


def _grid(fixed_E: float | None) -> np.ndarray:
    """Besiroglu et al.'s starts (a, b, e, alpha, beta), float64 [S, 5]."""
    exponents, intercepts = np.arange(0, 2.01, 0.5), np.arange(0, 25.1, 5)
    if fixed_E is None:
        levels = np.arange(-1, 1.01, 0.5)
    else:
        with np.errstate(divide="ignore"):
            levels = np.log([fixed_E])
    return np.array(list(itertools.product(intercepts, intercepts, levels, exponents, exponents)))


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """What the optimiser sees: centred logs of the runs, each [R]."""

    x_R: np.ndarray
    y_R: np.ndarray
    log_loss_R: np.ndarray
    centre: tuple[float, float]
    delta: float
    fixed_E: float | None

    @classmethod
    def of(cls, runs: Runs, *, delta: float, fixed_E: float | None) -> "_Problem":
        x_R, y_R = np.log(runs.params), np.log(runs.tokens)
        centre = (float(x_R.mean()), float(y_R.mean()))
        return cls(
            x_R=x_R - centre[0],
            y_R=y_R - centre[1],
            log_loss_R=np.log(runs.loss),
            centre=centre,
            delta=delta,
            fixed_E=fixed_E,
        )

    def centred(self, theta_SP: np.ndarray) -> np.ndarray:
        """a − α·mean(ln N) for a, likewise b: what a term weighs at the middle of the runs."""
        shifted_SP = theta_SP.copy()
        shifted_SP[:, 0] -= theta_SP[:, 3] * self.centre[0]
        shifted_SP[:, 1] -= theta_SP[:, 4] * self.centre[1]
        return shifted_SP

    def point(self, c: Coefficients) -> np.ndarray:
        """The coordinates [P] of coefficients."""
        with np.errstate(divide="ignore"):
            a, b, e = np.log([c.A, c.B, c.E])
        return self.centred(np.array([[a, b, e, c.alpha, c.beta]]))[0]

    def coefficients(self, theta_P: np.ndarray) -> Coefficients:
        a, b, e, alpha, beta = map(float, theta_P)
        return Coefficients(
            E=math.exp(e) if self.fixed_E is None else self.fixed_E,
            A=math.exp(a + alpha * self.centre[0]),
            B=math.exp(b + beta * self.centre[1]),
            alpha=alpha,
            beta=beta,
        )

    def bounds(self) -> np.ndarray:
        """Lowest and highest coordinates, [2, P]."""
        bounds_P = _BOUNDS_P.copy()
        if self.fixed_E is not None:
            with np.errstate(divide="ignore"):
                bounds_P[:, 2] = np.log(self.fixed_E)
        return bounds_P

    def residuals(self, theta_SP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log L − log model [S, R], and each term's share of the model [3, S, R]."""
        terms = np.empty((3, len(theta_SP), len(self.x_R)))
        a, b, e, alpha, beta = theta_SP.T[:, :, None]
        np.subtract(a, alpha * self.x_R, out=terms[0])
        np.subtract(b, beta * self.y_R, out=terms[1])
        terms[2] = e
        top_SR = terms.max(axis=0)
        terms -= top_SR
        np.exp(terms, out=terms)
        total_SR = terms.sum(axis=0)
        terms /= total_SR
        return self.log_loss_R - top_SR - np.log(total_SR), terms

    def value(self, residual_SR: np.ndarray, counts_SR: np.ndarray) -> np.ndarray:
        """Summed Huber loss, [S]."""
        size_SR = np.abs(residual_SR)
        inner_SR = np.minimum(size_SR, self.delta)
        return (counts_SR * inner_SR * (size_SR - inner_SR / 2)).sum(axis=1)

    def derivatives(
        self, theta_SP: np.ndarray, counts_SR: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The objective [S], its gradient [S, P], its Hessian and a matrix above it [S, P, P].

        The last is that of iteratively reweighted least squares: positive and, for small
        residuals, above the Hessian, so that a step with it goes down.
        """
        residual_SR, (p_SR, q_SR, s_SR) = self.residuals(theta_SP)
        slope_SR = counts_SR * np.clip(residual_SR, -self.delta, self.delta)
        size_SR = np.abs(residual_SR)
        jacobian_SPR = np.stack([p_SR, q_SR, s_SR, -p_SR * self.x_R, -q_SR * self.y_R], axis=1)
        gradient_SP = -(jacobian_SPR @ slope_SR[:, :, None])[:, :, 0]
        turned_SRP = jacobian_SPR.transpose(0, 2, 1)
        inside_SR = counts_SR * (size_SR < self.delta)
        hessian_SPP = (jacobian_SPR * (inside_SR + slope_SR)[:, None]) @ turned_SRP
        # Curvature of the log-sum-exp itself: its terms are exponentials of straight lines.
        x_R3 = np.stack([np.ones_like(self.x_R), -self.x_R, self.x_R**2], axis=1)
        y_R3 = np.stack([np.ones_like(self.y_R), -self.y_R, self.y_R**2], axis=1)
        for (i, j), bend_S3 in (
            ((0, 3), (slope_SR * p_SR) @ x_R3),
            ((1, 4), (slope_SR * q_SR) @ y_R3),
        ):
            hessian_SPP[:, i, i] -= bend_S3[:, 0]
            hessian_SPP[:, i, j] -= bend_S3[:, 1]
            hessian_SPP[:, j, i] -= bend_S3[:, 1]
            hessian_SPP[:, j, j] -= bend_S3[:, 2]
        hessian_SPP[:, 2, 2] -= (slope_SR * s_SR).sum(axis=1)
        weight_SR = counts_SR * self.delta / np.maximum(size_SR, self.delta)
        above_SPP = (jacobian_SPR * weight_SR[:, None]) @ turned_SRP
        return self.value(residual_SR, counts_SR), gradient_SP, hessian_SPP, above_SPP


def _minimise(
    problem: _Problem,
    start_SP: np.ndarray,
    counts_SR: np.ndarray | None,
    iterations: int,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton from every start at once.

    Args:
      start_SP: [S, P], centred.
      counts_SR: how often each run counts, [S, R]; None once each.
      tolerance: a start rests after five steps that each gained less than this share.

    Returns:
      The points [S, P] and objectives [S].
    """
    low_P, high_P = problem.bounds()
    theta_SP = np.clip(start_SP, low_P, high_P)
    value_S = np.full(len(theta_SP), np.inf)
    damping_S, rest_S = np.ones(len(theta_SP)), np.zeros(len(theta_SP), dtype=int)
    diagonal = np.arange(theta_SP.shape[1])
    once_1R = np.ones((1, len(problem.x_R)))
    moving = np.arange(len(theta_SP))
    for _ in range(iterations):
        counts = once_1R if counts_SR is None else counts_SR[moving]
        here_SP = theta_SP[moving]
        value, gradient_SP, hessian_SPP, above_SPP = problem.derivatives(here_SP, counts)
        # A coordinate at its bound that wants further out stays; so does a fixed E.
        held_SP = ((here_SP <= low_P) & (gradient_SP >= 0)) | (
            (here_SP >= high_P) & (gradient_SP <= 0)
        )
        gradient_SP[held_SP] = 0
        damping = damping_S[moving]
        matrix_SPP = hessian_SPP + damping[:, None, None] * above_SPP
        scale_SP = above_SPP[:, diagonal, diagonal]
        matrix_SPP[:, diagonal, diagonal] += (
            1e-3 * damping[:, None] * scale_SP + 1e-14 * scale_SP.max(axis=1, keepdims=True)
        ) + 1e-300
        matrix_SPP *= ~held_SP[:, :, None] & ~held_SP[:, None, :]
        matrix_SPP[:, diagonal, diagonal] += held_SP
        step_SP = np.linalg.solve(matrix_SPP, -gradient_SP[:, :, None])[:, :, 0]
        # The model of the objective holds nearby only: no coordinate moves by more than 2.
        step_SP /= np.maximum(1, np.abs(step_SP).max(axis=1, keepdims=True) / 2)
        there_SP = np.clip(here_SP + step_SP, low_P, high_P)
        new_value = problem.value(problem.residuals(there_SP)[0], counts)
        better = new_value < value
        theta_SP[moving] = np.where(better[:, None], there_SP, here_SP)
        value_S[moving] = np.minimum(value, new_value)
        damping_S[moving] = np.clip(damping * np.where(better, 0.25, 5.0), 1e-9, 1e12)
        small = value - new_value <= tolerance * value
        rest_S[moving] = np.where(better & ~small, 0, rest_S[moving] + (better | (damping > 1e6)))
        moving = moving[(rest_S[moving] < 5) & (value_S[moving] > 1e-26)]
        if not len(moving):
            break
    return theta_SP, value_S


def _minimise_all(
    problem: _Problem,
    start_SP: np.ndarray,
    *,
    iterations: int,
    tolerance: float,
    progress: Progress | None = None,
    workers: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """_minimise over threads."""

    def work(chunk: slice) -> tuple[np.ndarray, np.ndarray]:
        return _minimise(problem, start_SP[chunk], None, iterations, tolerance)

    parts = _in_chunks(problem, work, len(start_SP), progress, workers)
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _refit(
    problem: _Problem,
    start_P: np.ndarray,
    counts_SR: np.ndarray,
    generator: np.random.Generator,
    progress: Progress | None = None,
    workers: int | None = None,
) -> np.ndarray:
    """Optima [S, P] of the runs counted as given, from the fit and from each other's optima."""
    others = [generator.random(len(counts_SR)) for _ in range(2)]

    def work(chunk: slice) -> np.ndarray:
        counts = counts_SR[chunk]
        theta_SP, value_S = _minimise(
            problem, np.repeat(start_P[None], len(counts), axis=0), counts, 300, 1e-11
        )
        # Another resample's optimum is as far away as optima lie from each other.
        for keys_S in others:
            other_SP, other_S = _minimise(
                problem, theta_SP[np.argsort(keys_S[chunk])], counts, 300, 1e-11
            )
            better_S = other_S < value_S
            theta_SP[better_S], value_S[better_S] = other_SP[better_S], other_S[better_S]
        return theta_SP

    return np.concatenate(_in_chunks(problem, work, len(counts_SR), progress, workers))


def _in_chunks(
    problem: _Problem,
    work: Callable[[slice], _Part],
    total: int,
    progress: Progress | None,
    workers: int | None,
) -> list[_Part]:
    """Over threads: NumPy works outside the interpreter's lock."""
    size = max(1, _CHUNK // len(problem.x_R))
    chunks = [slice(i, min(i + size, total)) for i in range(0, total, size)]
    parts = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for chunk, part in zip(chunks, pool.map(work, chunks), strict=True):
            parts.append(part)
            if progress is not None:
                progress(chunk.stop, total)
    return parts
