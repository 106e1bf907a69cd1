"""What a fit minimises: the Huber loss of log L − log-sum-exp(a − α·ln N, b − β·ln D, e).

Legend: S starts (or resamples), R runs, P = 5 coordinates (a, b, e, α, β), a and b centred.
"""

import math
from dataclasses import dataclass

import numpy as np

from planner.coefficients import Coefficients
from planner.runs import Runs

_MAX_EXPONENT = 3.0
BOUNDS_P = np.array([[-80.0] * 2 + [-12.0] + [1e-3] * 2, [80.0] * 2 + [4.0] + [_MAX_EXPONENT] * 2])


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What the optimiser sees: centred logs of the runs, each [R]."""

    x_R: np.ndarray
    y_R: np.ndarray
    log_loss_R: np.ndarray
    centre: tuple[float, float]
    delta: float
    fixed_E: float | None

    @classmethod
    def of(cls, runs: Runs, *, delta: float, fixed_E: float | None) -> "Problem":
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
        bounds_P = BOUNDS_P.copy()
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
