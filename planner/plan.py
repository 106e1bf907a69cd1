"""Budget -> Plan -> RunConfig."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from configs.errors import InputError, require
from configs.schema import DataConfig, MeshConfig, RunConfig
from planner.accounting import (
    matmul_params,
    total_params,
    training_bytes,
    training_flops_per_token,
)
from planner.budget import Budget
from planner.hardware import Hardware
from planner.hyperparameters import Rule, batch_tokens_for, optimizer_for
from planner.laws import TWENTY_TO_ONE, Law, Optimum, default_law
from planner.layout import fit_in_memory
from planner.shapes import ACCELERATOR_TILE, CPU_TILE, shape_for, vocabulary_for

_TOKENS_PER_PARAM = 20.0
_UNTIED_FROM = 1e9  # smaller models cannot afford a second table (Llama 3.2 1B ties, 8B does not)
_EVALUATIONS = 5  # during a run, and as many saves


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A promise: every number of a run before it starts, and where it came from.

    optimum: N and D as the law gives them, in the law's convention. config: the concrete run,
    whose own counts differ a little (a shape is a whole number of layers). reserved_seconds: part
    of a time budget set aside for evaluations and saves.
    """

    budget: Budget
    flops: float
    law: Law
    optimum: Optimum
    config: RunConfig
    rules: tuple[Rule, ...]
    hardware: Hardware
    reserved_seconds: float

    @property
    def step_seconds(self) -> float:
        """Predicted seconds of one optimizer step."""
        return self._step_flops / self.hardware.flops_per_second

    @property
    def train_seconds(self) -> float:
        """Predicted seconds of training: steps, evaluations and saves."""
        return self.step_seconds * self.config.training.num_steps + self.reserved_seconds

    @property
    def tokens(self) -> int:
        """Tokens of all steps together."""
        return self.config.training.num_steps * self.config.batch_tokens

    @property
    def _step_flops(self) -> float:
        per_token = training_flops_per_token(self.config.model, self.config.data.seq_len).total
        return per_token * self.config.batch_tokens

    def with_config(self, config: RunConfig) -> "Plan":
        """The same plan for a config that the user changed: every count follows the config."""
        return replace(self, config=config)

    def to_json(self, corpus_tokens: int | None = None) -> dict[str, Any]:
        """The record of plan.json (docs/run_directory.md).

        Args:
          corpus_tokens: training tokens there are, for the number of epochs; None if unknown.
        """
        c, m = self.config, self.config.model
        seq_len, law = c.data.seq_len, self.law
        return {
            "budget": {
                "kind": self.budget.kind,
                "value": self.budget.value,
                "unit": self.budget.unit,
                "flops": self.flops,
            },
            "law": {
                "name": law.name,
                "convention": law.convention,
                "source": law.source,
                "in_range": law.covers(self.flops),
                "note": _law_note(law, self.flops),
            },
            "optimum": {
                "params": self.optimum.params,
                "tokens": self.optimum.tokens,
                "flops": self.optimum.flops,
                "tokens_per_param": self.optimum.tokens / self.optimum.params,
            },
            "model": {
                "params": total_params(m),
                "matmul_params": matmul_params(m),
                "flops_per_token": training_flops_per_token(m, seq_len).total,
                "flops_per_token_palm": training_flops_per_token(m, seq_len, causal=False).total,
                "emb_dim": m.emb_dim,
                "num_layers": m.num_layers,
                "num_heads": m.attention.num_heads,
                "num_kv_heads": m.attention.num_kv_heads,
                "head_dim": m.attention.head_dim,
                "mlp_dim": m.mlp.mlp_dim,
                "vocab_size": m.vocab_size,
                "tie_embeddings": m.tie_embeddings,
            },
            "data": {
                "tokens": self.tokens,
                "epochs": None if corpus_tokens is None else self.tokens / corpus_tokens,
                "seq_len": seq_len,
                "batch_size": c.training.batch_size,
                "batch_tokens": c.batch_tokens,
            },
            "training": {
                "num_steps": c.training.num_steps,
                "learning_rate": c.optimizer.learning_rate,
                "warmup_steps": c.optimizer.schedule.warmup_steps,
                "schedule": c.optimizer.schedule.kind,
                "weight_decay": c.optimizer.weight_decay,
            },
            "rules": [asdict(rule) for rule in self.rules],
            "predicted": {
                "flops": self._step_flops * c.training.num_steps,
                "train_seconds": self.train_seconds,
                "step_seconds": self.step_seconds,
                "peak_bytes": training_bytes(c).total,
                "loss": None,
                "loss_note": "unfitted: no law was fitted on this data at this size",
            },
            "hardware": {
                "device": self.hardware.device,
                "num_devices": self.hardware.num_devices,
                "flops_per_second": self.hardware.flops_per_second,
                "peak_flops_per_second": self.hardware.peak_flops_per_second,
                "source": self.hardware.source,
            },
        }


def make_plan(
    budget: Budget,
    *,
    template: RunConfig,
    hardware: Hardware,
    vocab_size: int | None = None,
    seq_len: int | None = None,
    params: float | None = None,
    reserved_seconds: float = 0.0,
) -> Plan:
    """Turns a budget into a plan.

    Time: (seconds − reserved) × the hardware's measured FLOP/s is the compute C; the law gives N
    and D for C. FLOPs: C itself. Parameters or tokens: the other one follows at the law's
    ratio. N becomes a shape; the steps are what C, or D, comes to in that shape's own FLOPs.

    Args:
      template: what is no size is taken from it (objective, seeds, norms, ties).
      vocab_size: of a tokenizer that exists already; None chooses one for the size.
      seq_len: tokens a row; None chooses one for the size.
      params: matmul parameters the shape is to have, whatever the law asks for (a sweep's size);
        the budget then decides the tokens.

    Raises:
      InputError: the budget is too small for any model, or too large for the memory.
    """
    flops = _compute(budget, hardware, reserved_seconds)
    law, optimum = _optimum(budget, flops)
    count = matmul_params if law is TWENTY_TO_ONE else total_params
    if budget.kind == "params":
        count = total_params
    if params is not None:
        optimum = Optimum(params=params, tokens=optimum.flops / (6 * params))
        count = matmul_params
    vocab_rule = "of the tokenizer given" if vocab_size else "rule of thumb by model size"
    vocab_size = vocab_size or vocabulary_for(optimum.params)
    length_rule = "given" if seq_len else "rule of thumb by model size"
    seq_len = seq_len or _seq_len_for(optimum.params)
    model = replace(
        template.model,
        compute_dtype="bfloat16" if hardware.is_accelerator else "float32",
        scan_layers=hardware.is_accelerator,
        remat="none",
        tie_embeddings=optimum.params < _UNTIED_FROM,
        attention=replace(
            template.model.attention, causal_blocks=1 if hardware.is_accelerator else 2
        ),
    )
    model = shape_for(
        optimum.params,
        template=model,
        vocab_size=vocab_size,
        tile=ACCELERATOR_TILE if hardware.is_accelerator else CPU_TILE,
        count=count,
    )
    batch_tokens, batch_rule = batch_tokens_for(optimum.flops)
    batch_size = _round_rows(batch_tokens / seq_len / hardware.num_devices) * hardware.num_devices
    per_step = training_flops_per_token(model, seq_len).total * batch_size * seq_len
    if budget.kind in ("time", "flops"):
        num_steps = round(flops / per_step)
    else:
        num_steps = math.ceil(optimum.tokens / (batch_size * seq_len))
    if num_steps < 2:
        raise InputError(
            f"budget: got {budget.value:g} {budget.unit}, which is {num_steps} optimizer steps; "
            f"expected enough for at least 2"
        )
    optimizer, optimizer_rules = optimizer_for(template.optimizer, optimum.flops, num_steps)
    interval = max(1, math.ceil(num_steps / _EVALUATIONS))
    config = replace(
        template,
        model=model,
        data=DataConfig(corpus=template.data.corpus, seq_len=seq_len, seed=template.data.seed),
        optimizer=optimizer,
        mesh=MeshConfig(),
        training=replace(
            template.training,
            num_steps=num_steps,
            batch_size=batch_size,
            num_microbatches=1,
            eval_every=interval,
            checkpoint_every=interval,
        ),
    )
    config, layout_rules = fit_in_memory(config, hardware)
    rules = [
        Rule(field="model.vocab_size", value=vocab_size, rule=vocab_rule),
        Rule(field="data.seq_len", value=seq_len, rule=length_rule),
        Rule(field="training.batch_size", value=batch_size, rule=batch_rule),
        Rule(
            field="training.num_steps",
            value=num_steps,
            rule=f"{budget.kind} budget over this shape's own FLOPs a step"
            if budget.kind in ("time", "flops")
            else "the law's tokens over the batch",
        ),
        *optimizer_rules,
        *layout_rules,
    ]
    return Plan(
        budget=budget,
        flops=flops,
        law=law,
        optimum=optimum,
        config=config,
        rules=tuple(rules),
        hardware=hardware,
        reserved_seconds=reserved_seconds,
    )


def sweep_sizes(flops: float, number: int, spread: float) -> list[float]:
    """Matmul parameters for one budget of a sweep: 20 tokens a parameter in the middle.

    Args:
      flops: C of every run of this budget.
      number: how many sizes.
      spread: factor between neighbours.
    """
    middle = TWENTY_TO_ONE.frontier(flops).params
    return [middle * spread ** (i - (number - 1) / 2) for i in range(number)]


def _compute(budget: Budget, hardware: Hardware, reserved_seconds: float) -> float:
    if budget.kind == "time":
        require(
            budget.value > reserved_seconds,
            "budget (time)",
            budget.value,
            f"more than the {reserved_seconds:.0f} s that evaluations and saves take",
        )
        return (budget.value - reserved_seconds) * hardware.flops_per_second
    if budget.kind == "flops":
        return budget.value
    params = budget.value if budget.kind == "params" else budget.value / _TOKENS_PER_PARAM
    return 6.0 * params * params * _TOKENS_PER_PARAM


def _optimum(budget: Budget, flops: float) -> tuple[Law, Optimum]:
    law = default_law(flops)
    if budget.kind in ("time", "flops"):
        return law, law.frontier(flops)
    # The ratio of tokens to parameters at this compute, with the given quantity kept as given.
    at_flops = law.frontier(flops)
    ratio = at_flops.tokens / at_flops.params
    if budget.kind == "params":
        return law, Optimum(params=budget.value, tokens=budget.value * ratio)
    return law, Optimum(params=budget.value / ratio, tokens=budget.value)


def _round_rows(rows: float) -> int:
    """The nearest of 1, 2, 3, 4, 6, 8, 12, 16, …: numbers that halve well into microbatches."""
    steps = [base << shift for shift in range(20) for base in (2, 3)]
    return min([1, *steps], key=lambda step: abs(math.log(step / rows)))


def _seq_len_for(params: float) -> int:
    """Row length by model size: the context published models of that size were trained with."""
    for below, seq_len in ((1e7, 256), (5e7, 512), (3e8, 1024), (3e9, 2048)):
        if params < below:
            return seq_len
    return 4096


def _law_note(law: Law, flops: float) -> str:
    if law is TWENTY_TO_ONE:
        return "below every published law's range: 20 tokens a parameter, no loss promised"
    if law.covers(flops):
        return f"fitted from {law.min_flops:g} to {law.max_flops:g} FLOPs"
    return (
        f"extrapolated: {flops:.3g} FLOPs is outside the fitted {law.min_flops:g} to "
        f"{law.max_flops:g}"
    )
