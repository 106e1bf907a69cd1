"""L(N, D) = E + A/N^α + B/D^β fitted to runs.

Objective and starts after Hoffmann et al. 2022 (arXiv 2203.15556, approach 3) and Besiroglu et al.
2024 (arXiv 2404.10102): Huber loss, δ = 1e-3, of log L − log-sum-exp(a − α·ln N, b − β·ln D, e),
summed over the runs, from 4,500 starts. We differ in the optimiser: L-BFGS stalls where Huber's
kinks meet a valley this narrow. A damped Newton method on exact derivatives runs every start at
once, with ln N and ln D centred.

Legend: S starts, R runs, P coordinates, as in planner.huber.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from configs.errors import InputError, require
from planner.coefficients import Coefficients, num_fitted
from planner.huber import Problem
from planner.newton import Progress, minimise_all
from planner.runs import Runs

_POLISHED = 64  # distinct ends of starts that are driven to the last digit


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
    problem = Problem.of(runs, delta=delta, fixed_E=fixed_E)
    grid_SP = problem.centred(_grid(fixed_E))
    rough_SP, values_S = minimise_all(
        problem, grid_SP, iterations=400, tolerance=1e-9, progress=progress, workers=workers
    )
    order = np.argsort(values_S)
    distinct = order[np.unique(np.round(values_S[order], 12), return_index=True)[1]][:_POLISHED]
    fine_SP, fine_S = minimise_all(
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


def require_identifiable(runs: Runs, *, fixed_E: float | None = None) -> None:
    """Refuses runs from which no fit can tell the law.

    Raises:
      InputError: fewer distinct runs than one more than the coefficients; under three sizes or
        token counts; N or D spread by less than a factor of 2; N and D on one line in logs.
    """
    x_R, y_R = np.log(runs.params), np.log(runs.tokens)
    distinct = len(np.unique(np.stack([x_R, y_R]), axis=1)[0]) if len(runs) else 0
    needed = num_fitted(fixed_E) + 1
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


def _grid(fixed_E: float | None) -> np.ndarray:
    """Besiroglu et al.'s starts (a, b, e, alpha, beta), float64 [S, 5]."""
    exponents, intercepts = np.arange(0, 2.01, 0.5), np.arange(0, 25.1, 5)
    if fixed_E is None:
        levels = np.arange(-1, 1.01, 0.5)
    else:
        with np.errstate(divide="ignore"):
            levels = np.log([fixed_E])
    return np.array(list(itertools.product(intercepts, intercepts, levels, exponents, exponents)))
