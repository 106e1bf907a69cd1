"""The forms that scaling laws take, those of one paper with that paper's figures."""

import math
from dataclasses import dataclass

from planner.law import Law, Optimum, ParamsKind, minimize

PF_DAY = 8.64e19  # FLOPs of one petaflop/s kept up for a day


@dataclass(frozen=True, kw_only=True)
class LineLaw(Law):
    """A frontier given as log-log lines: log10 N = a·log10 C + i, log10 D = b·log10 C + j."""

    name: str
    source: str
    params_kind: ParamsKind
    flops_meaning: str = "6·N·D"
    min_flops: float
    max_flops: float
    params_exponent: float
    params_intercept: float
    tokens_exponent: float
    tokens_intercept: float

    def loss(self, params: float, tokens: float) -> None:
        """None: the lines say where the optimum is, not how good it is."""
        return None

    def frontier(self, flops: float) -> Optimum:
        log_flops = math.log10(flops)
        return Optimum(
            params=10 ** (self.params_exponent * log_flops + self.params_intercept),
            tokens=10 ** (self.tokens_exponent * log_flops + self.tokens_intercept),
        )


@dataclass(frozen=True, kw_only=True)
class ParametricLaw(Law):
    """L(N, D) = E + A/N^alpha + B/D^beta, minimised on C = k·N·D (Hoffmann et al. 2022, eq. 4).

    G = (alpha·A / beta·B)^(1/(alpha+beta)); N = G·(C/k)^(beta/(alpha+beta));
    D = (C/k)^(alpha/(alpha+beta)) / G.
    """

    name: str
    source: str
    params_kind: ParamsKind
    flops_meaning: str = "6·N·D"
    min_flops: float
    max_flops: float
    E: float
    A: float
    B: float
    alpha: float
    beta: float
    flops_per_param_token: float = 6.0

    def loss(self, params: float, tokens: float) -> float:
        return self.E + self.A * params**-self.alpha + self.B * tokens**-self.beta

    def frontier(self, flops: float) -> Optimum:
        both = self.alpha + self.beta
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / both)
        product = flops / self.flops_per_param_token
        return Optimum(
            params=ratio * product ** (self.beta / both),
            tokens=product ** (self.alpha / both) / ratio,
            flops_per_param_token=self.flops_per_param_token,
        )


@dataclass(frozen=True, kw_only=True)
class KaplanLaw(Law):
    """L(N, D) = [(Nc/N)^(αN/αD) + Dc/D]^αD and N = 1.3e9·C^.73 with C in PF-days.

    Kaplan et al. 2020, equations 1.5 and 6.1. Historical: its learning rates were tuned for one
    length and its N leaves the head out, which pulls its frontier to large models (Porian et al.
    2024, arXiv 2406.19146).
    """

    name: str = "kaplan"
    source: str = "Kaplan et al. 2020, arXiv 2001.08361; historical"
    params_kind: ParamsKind = "non-embedding"
    flops_meaning: str = "6·N·D, embeddings left out"
    min_flops: float = 1e-9 * PF_DAY
    max_flops: float = 1e1 * PF_DAY

    def loss(self, params: float, tokens: float) -> float:
        return ((8.8e13 / params) ** (0.076 / 0.095) + 5.4e13 / tokens) ** 0.095

    def frontier(self, flops: float) -> Optimum:
        params = 1.3e9 * (flops / PF_DAY) ** 0.73
        return Optimum(params=params, tokens=flops / (6 * params))


@dataclass(frozen=True, kw_only=True)
class DeepSeekLaw(Law):
    """M = .1715·C^.5243 and D = 5.8316·C^.4757, C = M·D, M non-embedding FLOPs per token.

    N is stated as M/6: M counts attention too, so a shape of N parameters comes out a little large.
    """

    name: str = "deepseek"
    source: str = "DeepSeek LLM 2024, arXiv 2401.02954"
    params_kind: ParamsKind = "non-embedding"
    flops_meaning: str = "M·D, M = 72·L·d² + 12·L·d·s FLOPs a token, embeddings left out"
    min_flops: float = 1e17
    max_flops: float = 3e20

    def loss(self, params: float, tokens: float) -> None:
        """None: the paper publishes the allocation, not the loss."""
        return None

    def frontier(self, flops: float) -> Optimum:
        return Optimum(params=0.1715 * flops**0.5243 / 6, tokens=5.8316 * flops**0.4757)


@dataclass(frozen=True, kw_only=True)
class Llama3Law(Law):
    """D = 16.55T·(C/3.8e25)^.53, the printed .29·C^.53 anchored to the printed point.

    The exponent is rounded in print: .29·C^.53 gives 10.46T tokens at 3.8e25 FLOPs where the text
    says 16.55T (and 402B parameters). N = C/6D: 383B there.
    """

    name: str = "llama3"
    source: str = "Llama 3 2024, arXiv 2407.21783, anchored at 16.55T tokens for 3.8e25 FLOPs"
    params_kind: ParamsKind = "total"
    flops_meaning: str = "6·N·D"
    min_flops: float = 6e18
    max_flops: float = 1e22

    def loss(self, params: float, tokens: float) -> None:
        """None: the paper predicts benchmark scores by way of its own losses."""
        return None

    def frontier(self, flops: float) -> Optimum:
        tokens = 16.55e12 * (flops / 3.8e25) ** 0.53
        return Optimum(params=flops / (6 * tokens), tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class MuennighoffLaw(Law):
    """L = E + A/N'^α + B/D'^α: repeated tokens and surplus parameters are worth less and less.

    D' = U_D + U_D·R_D*·(1 − e^(−R_D/R_D*)) with U_D unique tokens and R_D = D/U_D − 1 repeats;
    N' likewise, with U_N = min(N, N optimal for U_D) and R_N = N/U_N − 1.

    unique_tokens: U_D; infinite if nothing is repeated.
    """

    name: str = "muennighoff"
    source: str = "Muennighoff et al. 2023, arXiv 2305.16264"
    params_kind: ParamsKind = "total"
    flops_meaning: str = "6·N·D"
    min_flops: float = 9.3e18
    max_flops: float = 2.1e21
    unique_tokens: float = math.inf
    E: float = 1.8691
    A: float = 520.82
    B: float = 1487.7
    exponent: float = 0.3526596
    repeats_tokens: float = 15.387756
    repeats_params: float = 5.309743

    def effective_tokens(self, tokens: float) -> float:
        """D': as many unique tokens as D tokens, some of them repeated, are worth."""
        unique = min(tokens, self.unique_tokens)
        return _worth(tokens, unique, self.repeats_tokens)

    def effective_params(self, params: float) -> float:
        """N': a model larger than the unique tokens warrant is worth less than its size."""
        if math.isinf(self.unique_tokens):
            return params
        # On the frontier N = G·(C/6)^½ and D = (C/6)^½/G, since both exponents are equal.
        ratio = (self.A / self.B) ** (1 / self.exponent)
        unique = min(params, ratio * self.unique_tokens)
        return _worth(params, unique, self.repeats_params)

    def loss(self, params: float, tokens: float) -> float:
        worth = self.effective_params(params), self.effective_tokens(tokens)
        return self.E + self.A * worth[0] ** -self.exponent + self.B * worth[1] ** -self.exponent

    def frontier(self, flops: float) -> Optimum:
        if math.isinf(self.unique_tokens):
            params = math.sqrt(flops / 6) * (self.A / self.B) ** (0.5 / self.exponent)
        else:
            params = minimize(lambda n: self.loss(n, flops / (6 * n)))
        return Optimum(params=params, tokens=flops / (6 * params))


def _worth(quantity: float, unique: float, decay: float) -> float:
    repeats = quantity / unique - 1
    return unique + unique * decay * -math.expm1(-repeats / decay)


@dataclass(frozen=True, kw_only=True)
class GadreLaw(Law):
    """L(C, M) = E + (a·M^η + b·M^−η)·C^−η with M = D/N, for over-trained models.

    The frontier is M = (b/a)^(1/2η) at every C. The paper's exponents are per data set.
    """

    name: str = "gadre"
    source: str = "Gadre et al. 2024, arXiv 2403.08540, C4"
    params_kind: ParamsKind = "total"
    flops_meaning: str = "6·N·D"
    min_flops: float = 2.4e16
    max_flops: float = 2.6e20
    a: float = 141.0
    b: float = 190.0
    eta: float = 0.121
    E: float = 1.508

    def loss(self, params: float, tokens: float) -> float:
        flops, ratio = 6 * params * tokens, tokens / params
        reducible = self.a * ratio**self.eta + self.b * ratio**-self.eta
        return self.E + reducible * flops**-self.eta

    def frontier(self, flops: float) -> Optimum:
        ratio = (self.b / self.a) ** (0.5 / self.eta)
        params = math.sqrt(flops / (6 * ratio))
        return Optimum(params=params, tokens=flops / (6 * params))
