"""Batch size, learning rate, warm-up and weight decay from published rules."""

from dataclasses import dataclass, replace

from configs.schema import MuonConfig, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Where a number of the plan came from."""

    field: str
    value: float | int | str
    rule: str


# DeepSeek LLM (arXiv 2401.02954, equation 1), fitted from 1e17 to 2e19 FLOPs.
_DEEPSEEK = "DeepSeek LLM 2024, arXiv 2401.02954"
_DEEPSEEK_RANGE = (1e17, 2e19)
_MAX_LEARNING_RATE = 1e-2
_MIN_BATCH_TOKENS = 4096
_WARMUP_FRACTION = 0.02
_MAX_WARMUP_STEPS = 2000


def batch_tokens_for(flops: float) -> tuple[float, str]:
    """Tokens per optimizer step for a run of C FLOPs: .2920 · C^.3271, and the rule's name."""
    tokens = 0.2920 * flops**0.3271
    if tokens < _MIN_BATCH_TOKENS:
        return _MIN_BATCH_TOKENS, f"floor of {_MIN_BATCH_TOKENS} tokens ({_DEEPSEEK} says less)"
    return tokens, f".2920·C^.3271 ({_DEEPSEEK}{_range_note(flops)})"


def learning_rate_for(flops: float) -> tuple[float, str]:
    """Peak learning rate for a run of C FLOPs: .3118 · C^−.1250, and the rule's name."""
    rate = 0.3118 * flops**-0.1250
    if rate > _MAX_LEARNING_RATE:
        return _MAX_LEARNING_RATE, f"ceiling of {_MAX_LEARNING_RATE} ({_DEEPSEEK} says more)"
    return rate, f".3118·C^−.1250 ({_DEEPSEEK}{_range_note(flops)})"


def optimizer_for(
    template: OptimizerConfig, flops: float, num_steps: int
) -> tuple[OptimizerConfig, list[Rule]]:
    """The template's optimizer with rates and warm-up for this run, and where they came from.

    Args:
      template: its kind, moments, decay and the shape of its schedule are kept.
      flops: C of the run.
      num_steps: the schedule ends with exactly this step.
    """
    rate, rate_rule = learning_rate_for(flops)
    rate = float(f"{rate:.3g}")
    warmup_steps = min(_MAX_WARMUP_STEPS, round(_WARMUP_FRACTION * num_steps), num_steps - 1)
    schedule = replace(template.schedule, warmup_steps=warmup_steps)
    rules = [
        Rule(
            field="optimizer.schedule.warmup_steps",
            value=warmup_steps,
            rule=f"{_WARMUP_FRACTION:.0%} of the steps, at most {_MAX_WARMUP_STEPS}",
        ),
        Rule(
            field="optimizer.weight_decay",
            value=template.weight_decay,
            rule=f"the preset's, for {template.kind}",
        ),
    ]
    if isinstance(template, MuonConfig):
        muon_rule = Rule(
            field="optimizer.learning_rate",
            value=template.learning_rate,
            rule="the preset's: Muon scales its steps by each matrix' shape",
        )
        adam_rule = Rule(field="optimizer.adam_learning_rate", value=rate, rule=rate_rule)
        config = replace(template, adam_learning_rate=rate, schedule=schedule)
        return config, [muon_rule, adam_rule, *rules]
    adam_rule = Rule(field="optimizer.learning_rate", value=rate, rule=rate_rule)
    return replace(template, learning_rate=rate, schedule=schedule), [adam_rule, *rules]


def _range_note(flops: float) -> str:
    low, high = _DEEPSEEK_RANGE
    return "" if low <= flops <= high else f"; outside its fitted range {low:g}–{high:g} FLOPs"
