"""What the planner asks of a scaling law, and the search for a frontier that has no formula."""

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

ParamsKind = Literal["total", "non-embedding", "matmul"]
PARAMS_MEANING: Mapping[ParamsKind, str] = {
    "total": "total parameters, embeddings included",
    "non-embedding": "parameters without the token table and the head",
    "matmul": "matmul parameters, output head included, look-up table not",
}


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """What a law calls compute-optimal, in the law's own definition of N.

    params, tokens: N and D. flops_per_param_token: the law's C is this times N·D (6 as a rule).
    """

    params: float
    tokens: float
    flops_per_param_token: float = 6.0

    @property
    def flops(self) -> float:
        return self.flops_per_param_token * self.params * self.tokens

    @property
    def ratio(self) -> float:
        """Tokens per parameter."""
        return self.tokens / self.params


class Law(abc.ABC):
    """What the planner asks of every law.

    Attributes:
      name: on the command line.
      source: paper and equation.
      params_kind: how the law counts N (see planner.accounting).
      flops_meaning: what it calls C.
      min_flops, max_flops: the C of the runs it was fitted on.
    """

    name: str
    source: str
    params_kind: ParamsKind
    flops_meaning: str
    min_flops: float
    max_flops: float

    @abc.abstractmethod
    def loss(self, params: float, tokens: float) -> float | None:
        """Nats per token of N and D in the law's definitions; None if the law gives no loss.

        A loss belongs to the text and tokenizer that the law was fitted on.
        """

    @abc.abstractmethod
    def frontier(self, flops: float) -> Optimum:
        """Optimal N and D for C training FLOPs."""

    @property
    def convention(self) -> str:
        """The definition of N in words."""
        return PARAMS_MEANING[self.params_kind]

    def covers(self, flops: float) -> bool:
        """Whether C lies where the law was fitted."""
        return self.min_flops <= flops <= self.max_flops

    def stretch(self, flops: float) -> float:
        """1 where the law was fitted, 10 for ten times above, .1 for ten times below."""
        return flops / min(max(flops, self.min_flops), self.max_flops)

    def range_note(self, flops: float) -> str:
        """Where C lies relative to the fitted range, with numbers."""
        if self.min_flops == 0 and math.isinf(self.max_flops):
            return "a rule of thumb, fitted on nothing"
        fitted = f"{self.min_flops:.3g} to {self.max_flops:.3g} FLOPs"
        stretch = self.stretch(flops)
        if stretch == 1:
            return f"fitted from {fitted}"
        factor, side = (stretch, "above") if stretch > 1 else (1 / stretch, "below")
        return f"extrapolated: {flops:.3g} FLOPs is {factor:,.3g} times {side} the fitted {fitted}"


def minimize(function: Callable[[float], float], low: float = 1.0, high: float = 1e18) -> float:
    """Where a function of one positive number with one valley is least, by golden section in logs.

    Infinite values are taken as a wall: the valley lies beyond them.
    """
    golden = (math.sqrt(5) - 1) / 2
    a, b = math.log(low), math.log(high)
    # A coarse scan first: far from the valley the function is flat to rounding, or infinite.
    steps = 400
    values = [function(math.exp(a + (b - a) * i / steps)) for i in range(steps + 1)]
    best = min(range(steps + 1), key=values.__getitem__)
    step = (b - a) / steps
    a, b = a + step * max(0, best - 1), a + step * min(steps, best + 1)
    while b - a > 1e-9:
        left, right = b - golden * (b - a), a + golden * (b - a)
        if function(math.exp(left)) < function(math.exp(right)):
            b = right
        else:
            a = left
    return math.exp((a + b) / 2)
