"""The coefficients of L(N, D) = E + A/N^α + B/D^β, and how well they describe runs.

Legend: R runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.runs import Runs

COEFFICIENTS = ("E", "A", "B", "alpha", "beta")


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


def num_fitted(fixed_E: float | None) -> int:
    """How many coefficients are fitted."""
    return 5 if fixed_E is None else 4


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
