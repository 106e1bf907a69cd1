"""Batch size, learning rate, warm-up and weight decay from published rules."""

import math
from dataclasses import dataclass, replace

from configs.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    InverseSquareRootConfig,
    LionConfig,
    MuonConfig,
    OptimizerConfig,
    ScheduleConfig,
    SGDConfig,
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Where a number of the plan came from."""

    field: str
    value: float | int | str
    rule: str


# DeepSeek LLM (arXiv 2401.02954, equation 1), fitted from 1e17 to 2e19 FLOPs.
_DEEPSEEK = "DeepSeek LLM 2024, arXiv 2401.02954"
_DEEPSEEK_RANGE = (1e17, 2e19)
_LARGEST_BATCH_TOKENS = 4608.0 * 4096  # DeepSeek 67B, table 2
_MAX_LEARNING_RATE = 1e-2
_POST_NORM = "Liu et al. 2019, arXiv 1907.11692, table 9 (base), or the preset's own"
_POST_NORM_LEARNING_RATE = 6e-4
_WARMUP_FRACTION = 0.02
_MAX_WARMUP_STEPS = 2000
# Chen et al. 2023, section 5: rates 3 to 10 times smaller than AdamW's, decay as much larger.
_LION = "Chen et al. 2023, arXiv 2302.06675, section 5: 3 to 10"
_LIONS_SHARE = 5.0
_OWN_RATES = {
    "adafactor": "steps are relative: 0.01 is T5's, arXiv 1910.10683, section 3.1.2",
    "sgd": "no law for SGD: 0.1 with momentum 0.9 is Goyal et al. 2017's, arXiv 1706.02677",
}
# Measured on the embedded corpus (benchmarks/RESULTS.md): 2,048 tokens beat 4,096 and 1,024 here.
_ANCHOR_FLOPS, _ANCHOR_BATCH_TOKENS = 2.5e13, 2048


def batch_tokens_for(flops: float, loss: float | None = None) -> tuple[float, str]:
    """Tokens per optimizer step for a run of C FLOPs, and the rule's name.

    .2920 · C^.3271 from the law's range upward. Below it the law is far too large for the runs
    we measured: there a straight line in logarithms goes from the measured point to the law's
    value at the lower end of its range, and stays level below the measured point. Two ceilings:
    the critical batch 2e8/L^(1/.21) of Kaplan et al. 2020 (equation 5.3), beyond which more tokens
    a step save few steps, and the largest batch the rule was used with.

    Args:
      loss: nats per token at the end of the run; None leaves the critical batch out.
    """
    low, _ = _DEEPSEEK_RANGE
    if flops < low:
        exponent = math.log(_deepseek_batch(low) / _ANCHOR_BATCH_TOKENS)
        exponent /= math.log(low / _ANCHOR_FLOPS)
        tokens = _ANCHOR_BATCH_TOKENS * max(1.0, flops / _ANCHOR_FLOPS) ** exponent
        return tokens, (
            f"between {_ANCHOR_BATCH_TOKENS} tokens at {_ANCHOR_FLOPS:g} FLOPs, measured, and "
            f"{_DEEPSEEK} at {low:g}"
        )
    tokens = _deepseek_batch(flops)
    rule = f".2920·C^.3271 ({_DEEPSEEK}{_range_note(flops)})"
    ceilings = [(_LARGEST_BATCH_TOKENS, "the largest batch that rule was used with")]
    if loss is not None:
        note = f"critical batch 2e8/L^(1/.21) at L = {loss:.2f}, Kaplan et al. 2020"
        ceilings.append((critical_batch_tokens(loss), note))
    ceiling, note = min(ceilings)
    if tokens <= ceiling:
        return tokens, f"{rule}; below the ceiling of {ceiling:,.0f} ({note})"
    return ceiling, f"{note}; {rule} would be {tokens:,.0f}"


def critical_batch_tokens(loss: float) -> float:
    """Tokens a step beyond which larger batches save few steps, for L nats per token."""
    return 2e8 / loss ** (1 / 0.21)


def learning_rate_for(flops: float) -> tuple[float, str]:
    """Peak learning rate for a run of C FLOPs: .3118 · C^−.1250, and the rule's name."""
    rate = 0.3118 * flops**-0.1250
    if rate > _MAX_LEARNING_RATE:
        return _MAX_LEARNING_RATE, f"ceiling of {_MAX_LEARNING_RATE} ({_DEEPSEEK} says more)"
    return rate, f".3118·C^−.1250 ({_DEEPSEEK}{_range_note(flops)})"


def optimizer_for(
    template: OptimizerConfig, flops: float, num_steps: int, *, norm_placement: str = "pre"
) -> tuple[OptimizerConfig, list[Rule]]:
    """The template's optimizer with rates and warm-up for this run, and where they came from.

    AdamW's rate follows the law. Lion's is a fifth of it. Adafactor's and SGD's are the template's
    own at any size.

    Args:
      template: its kind, moments, decay and the shape of its schedule are kept; only Muon gives
        way to AdamW where nobody measured its rates.
      flops: C of the run.
      num_steps: the schedule ends with exactly this step.
      norm_placement: models that norm after the sum do not bear the rule's rates; theirs are at
        most the highest of RoBERTa's and the template's own.
    """
    schedule, schedule_rules = _schedule_for(template.schedule, num_steps)
    own_rate = template.learning_rate if isinstance(template, AdamWConfig) else 0.0
    post_norm_ceiling = max(_POST_NORM_LEARNING_RATE, own_rate)
    ceiling = post_norm_ceiling if norm_placement == "post" else math.inf
    rules = []
    if isinstance(template, MuonConfig) and flops >= _DEEPSEEK_RANGE[0]:
        template = AdamWConfig(schedule=template.schedule)
        reason = f"Muon's rates were measured below {_DEEPSEEK_RANGE[0]:g} FLOPs only"
        rules.append(Rule(field="optimizer.kind", value=template.kind, rule=reason))
    rate, rate_rule = _rate_for(template, flops, ceiling)
    decay_rule = f"the preset's, for {template.kind}"
    if isinstance(template, LionConfig) and template.weight_decay == LionConfig().weight_decay:
        decay_rule = f"AdamW's {AdamWConfig().weight_decay:g} × {_LIONS_SHARE:g} ({_LION})"
    rules += schedule_rules
    rules.append(Rule(field="optimizer.weight_decay", value=template.weight_decay, rule=decay_rule))
    first = [Rule(field="optimizer.learning_rate", value=rate, rule=rate_rule)]
    if isinstance(template, MuonConfig):
        first.append(
            Rule(
                field="optimizer.adam_learning_rate",
                value=template.adam_learning_rate,
                rule="the preset's, measured at small scale",
            )
        )
    return replace(template, learning_rate=rate, schedule=schedule), [*first, *rules]


def _rate_for(template: OptimizerConfig, flops: float, ceiling: float) -> tuple[float, str]:
    """Peak learning rate of the template's kind of optimizer, and where it came from.

    Args:
      ceiling: on AdamW's rate, for post-norm models; infinite for others.
    """
    if isinstance(template, MuonConfig):
        rule = "the preset's: Muon scales its steps by each matrix' shape"
        return template.learning_rate, rule
    if isinstance(template, AdafactorConfig | SGDConfig):
        own = template.learning_rate == type(template)().learning_rate
        return template.learning_rate, _OWN_RATES[template.kind] if own else "the preset's"
    rate, rule = learning_rate_for(flops)
    if rate > ceiling:
        rate, rule = ceiling, f"ceiling of {ceiling:g} for post-norm models: {_POST_NORM}"
    if isinstance(template, LionConfig):
        rate, rule = rate / _LIONS_SHARE, f"1/{_LIONS_SHARE:g} of AdamW's ({_LION}); AdamW: {rule}"
    return float(f"{rate:.3g}"), rule


def _schedule_for(template: ScheduleConfig, num_steps: int) -> tuple[ScheduleConfig, list[Rule]]:
    """The template's schedule over this many steps, and where its numbers came from."""
    warmup_steps = min(_MAX_WARMUP_STEPS, round(_WARMUP_FRACTION * num_steps), num_steps - 1)
    rules = [
        Rule(
            field="optimizer.schedule.warmup_steps",
            value=warmup_steps,
            rule=f"{_WARMUP_FRACTION:.0%} of the steps, at most {_MAX_WARMUP_STEPS}",
        )
    ]
    if not isinstance(template, InverseSquareRootConfig):
        return replace(template, warmup_steps=warmup_steps), rules
    # As T5, not in proportion to the run: held for 2% of a short one, the rate is soon too small.
    constant_steps = max(warmup_steps, template.constant_steps)
    rules.append(
        Rule(
            field="optimizer.schedule.constant_steps",
            value=constant_steps,
            rule="the preset's; T5's are 10,000 for runs of any length",
        )
    )
    schedule = replace(template, warmup_steps=warmup_steps, constant_steps=constant_steps)
    return schedule, rules


def _deepseek_batch(flops: float) -> float:
    return 0.2920 * flops**0.3271


def _range_note(flops: float) -> str:
    low, high = _DEEPSEEK_RANGE
    return "" if low <= flops <= high else f"; outside its fitted range {low:g}–{high:g} FLOPs"
