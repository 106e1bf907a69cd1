"""From compute to N and D, under a law and the constraints of a user."""

import math
from dataclasses import dataclass, replace

from configs.errors import InputError
from planner.budget import Budget, Constraints
from planner.hyperparameters import Rule
from planner.law import Law, Optimum, minimize
from planner.law_forms import MuennighoffLaw
from planner.laws import BESIROGLU, LAWS, MUENNIGHOFF, default_law

COMPUTE_BUDGETS = ("time", "flops", "cost")
_TOKENS_PER_PARAM = 20.0
_HUGE = 1e30


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """N and D, the law they are from (its unique tokens filled in), and why."""

    law: Law
    optimum: Optimum
    rule: Rule


def assumed_flops(budget: Budget) -> float:
    """C that a budget of parameters or tokens comes to, at 20 tokens a parameter."""
    params = budget.value if budget.kind == "params" else budget.value / _TOKENS_PER_PARAM
    return 6.0 * params * params * _TOKENS_PER_PARAM


def allocate(budget: Budget, flops: float, law: Law | None, constraints: Constraints) -> Allocation:
    """What to spend C on.

    A compute budget gets the law's frontier at C, moved by two constraints: where the law asks for
    more tokens than there are, the data-constrained law takes over (unless the user named another);
    where inference is to be paid for too, N and D are the cheapest over the model's life among
    those that C can train. A budget of parameters or of tokens fixes one of N and D, and the other
    follows at the law's ratio.

    Args:
      flops: C of the budget.
      law: named by the user; None takes the default.

    Raises:
      InputError: a constraint that contradicts the budget or the law.
    """
    chosen = law or default_law(flops)
    if budget.kind not in COMPUTE_BUDGETS:
        return _one_given(budget, flops, chosen, constraints)
    if constraints.inference_tokens is not None:
        return _with_inference(flops, law or BESIROGLU, constraints.inference_tokens)
    optimum = chosen.frontier(flops)
    unique = constraints.unique_tokens
    rule = f"{chosen.name}'s frontier"
    if unique is not None and optimum.tokens > unique:
        if law is None:
            chosen = MUENNIGHOFF
            rule = f"{optimum.tokens:.3g} tokens asked for, {unique:.3g} exist: {chosen.name}"
        if isinstance(chosen, MuennighoffLaw):
            chosen = replace(chosen, unique_tokens=unique)
            optimum = chosen.frontier(flops)
    return Allocation(law=chosen, optimum=optimum, rule=optimum_rule_for(rule, optimum))


def require_enough_tokens(tokens: float, constraints: Constraints) -> None:
    """Raises InputError if more tokens are planned than exist times the epochs permitted."""
    unique = constraints.unique_tokens
    if unique is None or tokens <= 1.01 * unique * constraints.max_epochs:
        return
    epochs = math.ceil(100 * tokens / unique) / 100
    raise InputError(
        f"unique_tokens: got {unique:.3g}, expected at least the plan's {tokens:.3g} tokens over "
        f"max_epochs {constraints.max_epochs:g}; allow repeats with --max-epochs {epochs:g}, or "
        "take a smaller budget"
    )


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


def _one_given(budget: Budget, flops: float, law: Law, constraints: Constraints) -> Allocation:
    if constraints.inference_tokens is not None:
        raise InputError(
            f"inference_tokens: got a budget of {budget.kind}, expected one of compute "
            "(--budget-flops, --time, --hours or --cost), which leaves N and D to choose"
        )
    ratio = law.frontier(flops).ratio
    if budget.kind == "params":
        optimum = Optimum(params=budget.value, tokens=budget.value * ratio)
    else:
        optimum = Optimum(params=budget.value / ratio, tokens=budget.value)
    rule = f"{budget.kind} as given, the other by {law.name}: {ratio:.1f} tokens a parameter"
    return Allocation(law=law, optimum=optimum, rule=optimum_rule_for(rule, optimum))


def _with_inference(flops: float, law: Law, inference_tokens: float) -> Allocation:
    """The lifetime-cheapest (N, D) whose training takes C: quality is lowered until it does."""
    low, high = flops / 1e3, flops
    while high / low > 1 + 1e-6:
        quality = math.sqrt(low * high)
        if inference_aware(law, quality, inference_tokens).flops > flops:
            high = quality
        else:
            low = quality
    optimum = inference_aware(law, low, inference_tokens)
    saved = 1 - optimum.params / law.frontier(low).params
    rule = (
        f"Sardana et al. 2023 (arXiv 2401.00448) over {law.name}: {saved:.0%} fewer parameters "
        f"than compute-optimal at the same loss, for {inference_tokens:.3g} tokens of inference"
    )
    return Allocation(law=law, optimum=optimum, rule=optimum_rule_for(rule, optimum))


def _loss(law: Law, params: float, tokens: float) -> float:
    loss = law.loss(params, tokens)
    assert loss is not None
    return loss


def optimum_rule_for(text: str, optimum: Optimum) -> Rule:
    """The entry of the plan's rules that says where N and D are from."""
    value = f"N {optimum.params:.4g}, D {optimum.tokens:.4g}"
    return Rule(field="optimum", value=value, rule=text)
