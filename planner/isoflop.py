"""IsoFLOP profiles: a parabola of loss in log size at each budget, a power law through the minima.

Hoffmann et al. 2022 (arXiv 2203.15556), approach 2: runs of about equal C at several sizes, the
size of least loss at each C, then N* = G·C^a and D* = H·C^b, straight lines in logs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import InputError, require
from planner.runs import FLOPS_PER_PARAM_TOKEN, Runs

_MIN_SIZES = 3  # a parabola has three coefficients


@dataclass(frozen=True, kw_only=True)
class Parabola:
    """Loss at one budget: c0 + c1·(x − x0) + c2·(x − x0)², x = ln N.

    Attributes:
      flops: geometric mean C of the runs.
      coefficients: (c0, c1, c2), nats per token.
      centre: x0, mean ln N of the runs.
      best_params, best_tokens, best_loss: the minimum, N*, D* = C/(k·N*) and nats per token; NaN
        where the parabola has none.
      runs: indices of its runs.
      accepted: whether the power law uses it.
      reason: why not; empty if it does.
    """

    flops: float
    coefficients: tuple[float, float, float]
    centre: float
    best_params: float
    best_tokens: float
    best_loss: float
    runs: tuple[int, ...]
    accepted: bool
    reason: str

    def loss(self, params):
        """Nats per token of N at this budget, a number or an array."""
        x = np.log(params) - self.centre
        c0, c1, c2 = self.coefficients
        return c0 + c1 * x + c2 * x**2


@dataclass(frozen=True, kw_only=True)
class IsoflopFit:
    """N* = G·C^a and D* = H·C^b through the minima of the accepted parabolas.

    Attributes:
      parabolas: in order of C, those left out too.
      exponent_params, log_intercept_params: a and ln G.
      exponent_tokens, log_intercept_tokens: b = 1 − a and ln H.
      flops_per_param_token: k of C = k·N·D.
      level: of the intervals.
      interval_params, interval_tokens: (low, high) of a and b; None below three parabolas.
    """

    parabolas: tuple[Parabola, ...]
    exponent_params: float
    log_intercept_params: float
    exponent_tokens: float
    log_intercept_tokens: float
    flops_per_param_token: float
    level: float
    interval_params: tuple[float, float] | None
    interval_tokens: tuple[float, float] | None

    def frontier(self, flops):
        """(N, D) of least loss at C FLOPs, a number or an array."""
        params = np.exp(self.log_intercept_params) * flops**self.exponent_params
        tokens = np.exp(self.log_intercept_tokens) * flops**self.exponent_tokens
        return params, tokens


def fit_isoflop(
    runs: Runs,
    *,
    tolerance: float = 0.1,
    flops_per_param_token: float = FLOPS_PER_PARAM_TOKEN,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.9,
) -> IsoflopFit:
    """Fits the parabolas and the power law.

    Args:
      tolerance: runs belong together while C grows by less than this share from the lowest.
      flops_per_param_token: k of C = k·N·D.
      samples: refits for the intervals, to losses with residuals of the parabolas drawn anew.
      level: share of the refits inside an interval.

    Raises:
      InputError: fewer than two budgets have a parabola with a minimum inside the swept sizes.
    """
    require(0 < tolerance < 1, "tolerance", tolerance, "between 0 and 1")
    require(samples >= 20, "samples", samples, "at least 20")
    require(0 < level < 1, "level", level, "between 0 and 1")
    parabolas = tuple(
        _parabola(runs, group, flops_per_param_token) for group in _groups(runs.flops, tolerance)
    )
    accepted = [parabola for parabola in parabolas if parabola.accepted]
    if len(accepted) < 2:
        reasons = "; ".join(f"{p.flops:.3g}: {p.reason}" for p in parabolas if not p.accepted)
        raise InputError(
            f"runs: got {len(accepted)} of {len(parabolas)} budgets with a minimum, expected at "
            f"least 2 ({reasons})"
        )
    log_flops = np.log([parabola.flops for parabola in accepted])
    log_params = np.log([parabola.best_params for parabola in accepted])
    slope, intercept = _line(log_flops, log_params)
    interval = None
    if len(accepted) >= 3:
        minima = np.array(list(_resampled_minima(runs, accepted, samples, seed)))
        slopes = _line(log_flops, minima)[0]
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = map(float, np.quantile(slopes, tails))
        interval = (low, high)
    # D* = C / (k·N*) at every minimum, so its line follows from that of N*.
    return IsoflopFit(
        parabolas=parabolas,
        exponent_params=float(slope),
        log_intercept_params=float(intercept),
        exponent_tokens=float(1 - slope),
        log_intercept_tokens=float(-intercept - math.log(flops_per_param_token)),
        flops_per_param_token=flops_per_param_token,
        level=level,
        interval_params=interval,
        interval_tokens=None if interval is None else (1 - interval[1], 1 - interval[0]),
    )


def _groups(flops: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Indices of runs of about equal C, in order of C."""
    groups: list[list[int]] = []
    lowest = 0.0
    for index in np.argsort(flops, kind="stable"):
        if not groups or flops[index] > lowest * (1 + tolerance):
            groups.append([])
            lowest = flops[index]
        groups[-1].append(int(index))
    return [np.array(group) for group in groups]


def _parabola(runs: Runs, group: np.ndarray, per_token: float) -> Parabola:
    """The parabola through a group, and whether it has a minimum that can be believed."""
    log_params, loss = np.log(runs.params[group]), runs.loss[group]
    flops = float(np.exp(np.log(runs.flops[group]).mean()))
    centre = float(log_params.mean())
    x = log_params - centre
    sizes = len(np.unique(np.round(log_params, 6)))
    coefficients, best = (math.nan, math.nan, math.nan), math.nan
    if sizes < _MIN_SIZES:
        reason = f"{sizes} sizes, at least {_MIN_SIZES} needed"
    else:
        c2, c1, c0 = map(float, np.polyfit(x, loss, 2))
        coefficients = (c0, c1, c2)
        if c2 <= 0:
            reason = "opens downward"
        else:
            best = -c1 / (2 * c2)
            inside = x.min() <= best <= x.max()
            swept = f"{runs.params[group].min():.3g} to {runs.params[group].max():.3g}"
            lies = f"minimum at {math.exp(min(best + centre, 700)):.3g} parameters"
            reason = "" if inside else f"{lies}, outside the swept {swept}"
    best_params = math.exp(min(best + centre, 700)) if math.isfinite(best) else math.nan
    c0, c1, c2 = coefficients
    return Parabola(
        flops=flops,
        coefficients=coefficients,
        centre=centre,
        best_params=best_params,
        best_tokens=flops / (per_token * best_params),
        best_loss=c0 + c1 * best + c2 * best**2,
        runs=tuple(map(int, group)),
        accepted=not reason,
        reason=reason,
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of y [X] or [X, samples] on x [X]."""
    away = x - x.mean()
    slope = away @ y / (away @ away)
    return slope, y.mean(axis=0) - slope * x.mean()


def _resampled_minima(
    runs: Runs, accepted: Sequence[Parabola], samples: int, seed: int
) -> Iterator[np.ndarray]:
    """ln N* of each parabola, [samples], refitted to losses with residuals drawn anew.

    Residuals of all the parabolas are one pool, as a share of the loss and grown by
    1 / (1 − leverage), as fit.bootstrap does: a fit follows its own runs' noise. A minimum that
    leaves the swept sizes is put at their edge: the budget then says no more than that.
    """
    generator = np.random.default_rng(seed)
    designs, fitted, pool = [], [], []
    for parabola in accepted:
        group = np.array(parabola.runs)
        x = np.log(runs.params[group]) - parabola.centre
        design = np.stack([np.ones_like(x), x, x**2], axis=1)
        predicted = design @ parabola.coefficients
        leverage = (np.linalg.qr(design)[0] ** 2).sum(axis=1)
        free = leverage < 1 - 1e-9  # three sizes alone leave no residual
        pool.append(((runs.loss[group] / predicted - 1) / (1 - leverage * free))[free])
        designs.append((x, np.linalg.pinv(design), parabola.centre))
        fitted.append(predicted)
    residuals = np.concatenate(pool)
    residuals = residuals - residuals.mean() if len(residuals) else np.zeros(1)
    for (x, solve, centre), predicted in zip(designs, fitted, strict=True):
        drawn = generator.choice(residuals, size=(samples, len(x)))
        _, c1, c2 = solve @ (predicted * (1 + drawn)).T
        low, high = x.min(), x.max()
        lower_edge = np.where(c1 * low + c2 * low**2 <= c1 * high + c2 * high**2, low, high)
        opens = c2 > 0
        inner = np.clip(-c1 / (2 * np.where(opens, c2, 1)), low, high)
        yield np.where(opens, inner, lower_edge) + centre
