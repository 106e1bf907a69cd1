"""Scaling laws that turn compute into parameters and tokens."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """What a law calls compute-optimal, in the law's own definition of N.

    params, tokens: N and D. flops: C = 6·N·D, the law's own count of compute.
    """

    params: float
    tokens: float

    @property
    def flops(self) -> float:
        return 6.0 * self.params * self.tokens


@dataclass(frozen=True, kw_only=True)
class Law:
    """A compute-optimal frontier N(C), D(C), given as log-log lines.

    Attributes:
      convention: the definition of N (see planner.accounting).
      min_flops, max_flops: the range of C the law was fitted on.
    """

    name: str
    source: str
    convention: str
    min_flops: float
    max_flops: float
    params_exponent: float
    params_intercept: float
    tokens_exponent: float
    tokens_intercept: float

    def frontier(self, flops: float) -> Optimum:
        """Optimal N and D for C training FLOPs."""
        log_flops = math.log10(flops)
        return Optimum(
            params=10 ** (self.params_exponent * log_flops + self.params_intercept),
            tokens=10 ** (self.tokens_exponent * log_flops + self.tokens_intercept),
        )

    def covers(self, flops: float) -> bool:
        return self.min_flops <= flops <= self.max_flops


# Lines through the paper's table for approach 1 (training-curve envelope).
CHINCHILLA_1 = Law(
    name="chinchilla-1",
    source="Hoffmann et al. 2022, arXiv 2203.15556, approach 1, lines through table A3",
    convention="total parameters, embeddings included",
    min_flops=6e18,
    max_flops=3e21,
    params_exponent=0.4981,
    params_intercept=-1.0037,
    tokens_exponent=0.5019,
    tokens_intercept=0.2294,
)

# 20 tokens a parameter: C = 6·N·20·N.
TWENTY_TO_ONE = Law(
    name="20-to-1",
    source="rule of thumb after Hoffmann et al. 2022: about 20 tokens per parameter",
    convention="matmul parameters, output head included, look-up table not",
    min_flops=0.0,
    max_flops=math.inf,
    params_exponent=0.5,
    params_intercept=-0.5 * math.log10(120),
    tokens_exponent=0.5,
    tokens_intercept=math.log10(20) - 0.5 * math.log10(120),
)


def default_law(flops: float) -> Law:
    """chinchilla-1 from the smallest run it was fitted on upward, 20 to 1 below."""
    return TWENTY_TO_ONE if flops < CHINCHILLA_1.min_flops else CHINCHILLA_1
