"""Scaling laws that turn compute into parameters and tokens, each in its own definitions.

Every law says how it counts parameters (N), what it calls compute (C), on which C it was fitted
and where its figures are from. Laws disagree; they are shown side by side, never averaged.
"""

import abc
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from configs.errors import InputError, require
from configs.serialize import did_you_mean

PF_DAY = 8.64e19  # FLOPs of one petaflop/s kept up for a day

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


@dataclass(frozen=True, kw_only=True)
class FittedLaw(ParametricLaw):
    """A law of the user's own, from the law.json that `isoflop fit` wrote.

    Attributes:
      samples: bootstrap refits, each (E, A, B, alpha, beta); they carry the uncertainty.
      residual: RMS relative residual of the runs it was fitted on.
      reasons: why the runs do not identify the law, if they do not; then only intervals count.
    """

    samples: tuple[tuple[float, ...], ...] = ()
    residual: float = 0.0
    reasons: tuple[str, ...] = ()

    def loss_interval(
        self, params: float, tokens: float, level: float = 0.9
    ) -> tuple[float, float] | None:
        """Interval for the loss of a run: spread of the refits and scatter of single runs."""
        if not self.samples:
            return None
        low, high = _middle_part([law.loss(params, tokens) for law in self._refits()], level)
        middle = self.loss(params, tokens)
        scatter = statistics.NormalDist().inv_cdf((1 + level) / 2) * self.residual * middle
        return (
            middle - math.hypot(middle - low, scatter),
            middle + math.hypot(high - middle, scatter),
        )

    def params_interval(self, flops: float, level: float = 0.9) -> tuple[float, float] | None:
        """Interval for the optimal N at C FLOPs."""
        if not self.samples:
            return None
        return _middle_part([law.frontier(flops).params for law in self._refits()], level)

    def _refits(self) -> Iterator[ParametricLaw]:
        for E, A, B, alpha, beta in self.samples:
            yield replace(self, E=E, A=A, B=B, alpha=alpha, beta=beta, samples=())


def _middle_part(values: list[float], level: float) -> tuple[float, float]:
    """The interval that holds the middle `level` of the values."""
    ordered, last = sorted(values), len(values) - 1
    return ordered[round((1 - level) / 2 * last)], ordered[round((1 + level) / 2 * last)]


_HOFFMANN = "Hoffmann et al. 2022, arXiv 2203.15556"

CHINCHILLA_1 = LineLaw(
    name="chinchilla-1",
    source=f"{_HOFFMANN}, approach 1, lines through table A3",
    params_kind="total",
    min_flops=6e18,
    max_flops=3e21,
    params_exponent=0.4981,
    params_intercept=-1.0037,
    tokens_exponent=0.5019,
    tokens_intercept=0.2294,
)

CHINCHILLA_2 = LineLaw(
    name="chinchilla-2",
    source=f"{_HOFFMANN}, approach 2 (IsoFLOP), lines through table A3",
    params_kind="total",
    min_flops=6e18,
    max_flops=3e21,
    params_exponent=0.4899,
    params_intercept=-0.8390,
    tokens_exponent=0.5100,
    tokens_intercept=0.0617,
)

# Unrounded, from the paper's TeX source: the figures as printed give frontiers 20% off.
CHINCHILLA_3 = ParametricLaw(
    name="chinchilla-3",
    source=f"{_HOFFMANN}, approach 3 (parametric), unrounded",
    params_kind="total",
    min_flops=6e18,
    max_flops=3e21,
    E=math.exp(0.5267228),
    A=math.exp(6.0073404),
    B=math.exp(6.0179186),
    alpha=0.33917084,
    beta=0.2849083,
)

BESIROGLU = ParametricLaw(
    name="besiroglu",
    source="Besiroglu et al. 2024, arXiv 2404.10102, Chinchilla's approach 3 replicated",
    params_kind="total",
    min_flops=6e18,
    max_flops=3e21,
    E=1.8172,
    A=482.01,
    B=2085.43,
    alpha=0.3478,
    beta=0.3658,
)

# 20 tokens a parameter: C = 6·N·20·N.
TWENTY_TO_ONE = LineLaw(
    name="20-to-1",
    source="rule of thumb after Hoffmann et al. 2022, arXiv 2203.15556: 20 tokens per parameter",
    params_kind="matmul",
    min_flops=0.0,
    max_flops=math.inf,
    params_exponent=0.5,
    params_intercept=-0.5 * math.log10(120),
    tokens_exponent=0.5,
    tokens_intercept=math.log10(20) - 0.5 * math.log10(120),
)

KAPLAN, DEEPSEEK, LLAMA_3 = KaplanLaw(), DeepSeekLaw(), Llama3Law()
MUENNIGHOFF, GADRE = MuennighoffLaw(), GadreLaw()


LAWS: Mapping[str, Law] = {
    law.name: law
    for law in (
        CHINCHILLA_1,
        CHINCHILLA_2,
        CHINCHILLA_3,
        BESIROGLU,
        KAPLAN,
        DEEPSEEK,
        LLAMA_3,
        MUENNIGHOFF,
        GADRE,
        TWENTY_TO_ONE,
    )
}
_FITTED = "fitted:"


def law_named(name: str) -> Law:
    """A published law by its name, or `fitted:FILE`.

    Raises:
      InputError: no such law, or a file that is no law.json.
    """
    if name.startswith(_FITTED):
        return load_law(name.removeprefix(_FITTED))
    if name in LAWS:
        return LAWS[name]
    raise InputError(
        f"law: got {name!r}, expected one of {', '.join(LAWS)} or fitted:FILE"
        f"{did_you_mean(name, LAWS)}"
    )


def default_law(flops: float) -> Law:
    """chinchilla-1 from the smallest run it was fitted on upward, 20 to 1 below."""
    return TWENTY_TO_ONE if flops < CHINCHILLA_1.min_flops else CHINCHILLA_1


def load_law(path: str) -> FittedLaw:
    """The law of a law.json (docs/planner.md).

    Raises:
      InputError: no such file, or not what `isoflop fit` writes.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        coefficients = record["parametric"]
        numbers = {key: float(coefficients[key]) for key in ("E", "A", "B", "alpha", "beta")}
        law = FittedLaw(
            name=f"{_FITTED}{path}",
            source=str(record["source"]),
            params_kind=record["params_kind"],
            flops_meaning=str(record["flops_meaning"]),
            min_flops=float(record["range"]["min_flops"]),
            max_flops=float(record["range"]["max_flops"]),
            flops_per_param_token=float(record["flops_per_param_token"]),
            residual=float(record["goodness"]["rms_relative_residual"]),
            samples=tuple(tuple(map(float, sample)) for sample in record["samples"]),
            reasons=tuple(map(str, record["reasons"])),
            **numbers,
        )
    except FileNotFoundError:
        raise InputError(f"law: got {path}, expected a law.json that isoflop fit wrote") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"law: {path}: got {type(error).__name__} {error}, expected a law.json that isoflop "
            "fit wrote"
        ) from None
    for key in ("alpha", "beta", "A", "B", "flops_per_param_token"):
        value = getattr(law, key)
        require(math.isfinite(value) and value > 0, f"law: {path}: {key}", value, "above 0")
    require(
        law.params_kind in PARAMS_MEANING,
        f"law: {path}: params_kind",
        law.params_kind,
        f"one of {', '.join(PARAMS_MEANING)}",
    )
    return law


def tokens_for_same_loss(law: Law, params: float, loss: float) -> float:
    """D at which a model of N parameters reaches the loss; infinite if it never does."""
    if _loss(law, params, _HUGE) >= loss:
        return math.inf
    low, high = 1.0, _HUGE
    while high / low > 1 + 1e-12:
        middle = math.sqrt(low * high)
        if _loss(law, params, middle) > loss:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def inference_aware(law: Law, flops: float, inference_tokens: float) -> Optimum:
    """The cheapest model over its life that is as good as the compute-optimal one for C.

    Minimises 6·N·D + 2·N·D_inference subject to L(N, D) = L of the law's optimum at C (Sardana et
    al. 2023, arXiv 2401.00448). The training compute of the answer is larger than C.

    Args:
      inference_tokens: D_inference, tokens processed after training.

    Raises:
      InputError: the law predicts no loss, so that "as good" has no meaning.
    """
    optimum = law.frontier(flops)
    if law.loss(optimum.params, optimum.tokens) is None:
        raise InputError(
            f"inference_tokens: got law {law.name}, expected one that predicts a loss: "
            f"{', '.join(name for name, one in LAWS.items() if one.loss(1e9, 2e10) is not None)}"
        )
    loss = _loss(law, optimum.params, optimum.tokens)
    per_token = optimum.flops_per_param_token

    def lifetime(params: float) -> float:
        tokens = tokens_for_same_loss(law, params, loss)
        return params * (per_token * tokens + 2 * inference_tokens)

    params = minimize(lifetime, optimum.params / 1e4, optimum.params * 1.01)
    return Optimum(
        params=params,
        tokens=tokens_for_same_loss(law, params, loss),
        flops_per_param_token=per_token,
    )


_HUGE = 1e30


def _loss(law: Law, params: float, tokens: float) -> float:
    loss = law.loss(params, tokens)
    assert loss is not None
    return loss


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
