"""Budget -> Plan -> RunConfig."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from configs.data_config import DataConfig
from configs.errors import InputError, require
from configs.model_config import ModelConfig
from configs.schema import MeshConfig, RunConfig
from planner.accounting import (
    kv_cache_bytes,
    matmul_params,
    non_embedding_params,
    total_params,
    training_bytes,
    training_flops_per_token,
)
from planner.allocation import COMPUTE_BUDGETS, allocate, assumed_flops, require_enough_tokens
from planner.budget import NO_CONSTRAINTS, Budget, Constraints
from planner.hardware import Hardware
from planner.hyperparameters import Rule, batch_tokens_for, optimizer_for
from planner.laws import BESIROGLU, TWENTY_TO_ONE, Law, Optimum
from planner.layout import fit_in_memory
from planner.outlook import (
    COUNT,
    LossPrediction,
    other_sizes,
    predict_loss,
    side_by_side,
    warnings_about,
)
from planner.shapes import ACCELERATOR_TILE, CPU_TILE, shape_for, vocabulary_for

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
    constraints: Constraints
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
    def chip_hours(self) -> float:
        """Chips times hours of training."""
        return self.train_seconds / 3600 * self.hardware.num_chips

    @property
    def cost(self) -> float | None:
        """Of training, in the currency of the price; None without a price."""
        price = self.hardware.price_per_chip_hour
        return None if price is None else price * self.chip_hours

    @property
    def loss(self) -> LossPrediction:
        """Held-out loss after the last step."""
        c = self.config
        return predict_loss(self.law, self.flops, c.model, self.tokens, c.objective.kind)

    def warnings(self, corpus_tokens: int | None = None) -> list[str]:
        """What should not be overlooked: laws out of their range, repeated data, odd shapes."""
        unique = corpus_tokens or self.constraints.unique_tokens
        return warnings_about(
            self.law, self.flops, self.optimum, self.config.model, self.tokens, unique
        )

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
        seq_len, law, loss = c.data.seq_len, self.law, self.loss
        memory = training_bytes(c)
        unique_tokens = corpus_tokens or self.constraints.unique_tokens
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
                "flops_meaning": law.flops_meaning,
                "in_range": law.covers(self.flops),
                "note": law.range_note(self.flops),
            },
            "laws": [asdict(answer) for answer in side_by_side(law, self.flops)],
            "other_sizes": [asdict(size) for size in other_sizes(law, self.flops, self.optimum)],
            "optimum": {
                "params": self.optimum.params,
                "tokens": self.optimum.tokens,
                "flops": self.optimum.flops,
                "tokens_per_param": self.optimum.ratio,
            },
            "model": {
                "params": total_params(m),
                "matmul_params": matmul_params(m),
                "non_embedding_params": non_embedding_params(m),
                "params_by_law": COUNT[law.params_kind](m),
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
                "tokens_per_param": self.tokens / COUNT[law.params_kind](m),
                "epochs": None if unique_tokens is None else self.tokens / unique_tokens,
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
                "flops_by_part": {
                    part: self.tokens * per_token
                    for part, per_token in asdict(training_flops_per_token(m, seq_len)).items()
                },
                "days": self.train_seconds / 86_400,
                "chip_hours": self.chip_hours,
                "cost": self.cost,
                "peak_bytes": memory.total,
                "bytes_by_kind": asdict(memory),
                "kv_cache_bytes_per_row": kv_cache_bytes(m, 1, seq_len),
                "loss": loss.value,
                "loss_low": loss.low,
                "loss_high": loss.high,
                "loss_law": loss.law,
                "loss_note": loss.note,
            },
            "warnings": self.warnings(corpus_tokens),
            "hardware": {
                "device": self.hardware.device,
                "num_devices": self.hardware.num_devices,
                "num_chips": self.hardware.num_chips,
                "price_per_chip_hour": self.hardware.price_per_chip_hour,
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
    law: Law | None = None,
    constraints: Constraints = NO_CONSTRAINTS,
    params: float | None = None,
    reserved_seconds: float = 0.0,
) -> Plan:
    """Turns a budget into a plan.

    Time: (seconds − reserved) × the hardware's FLOP/s is the compute C; the law gives N and D for
    C. Cost: the time that the price leaves. FLOPs: C itself. Parameters or tokens: the other one
    follows at the law's ratio. N becomes a shape; the steps are what C, or D, comes to in that
    shape's own FLOPs.

    Args:
      template: what is no size is taken from it (objective, seeds, norms, ties).
      law: None takes chinchilla-1 in its range and above, 20 tokens a parameter below.
      constraints: what else has to hold; what it leaves open is chosen by the model's size.
      params: matmul parameters the shape is to have, whatever the law asks for (a sweep's size);
        the budget then decides the tokens.

    Raises:
      InputError: the budget is too small for any model, too large for the memory or the data, or
        contradicts the constraints.
    """
    flops = _compute(budget, hardware, reserved_seconds)
    allocation = allocate(budget, flops, law, constraints)
    law, optimum = allocation.law, allocation.optimum
    count = total_params if budget.kind == "params" else COUNT[law.params_kind]
    if params is not None:
        optimum = Optimum(params=params, tokens=optimum.flops / (6 * params))
        count = matmul_params
    vocab_rule = "of the tokenizer given" if constraints.vocab_size else "rule of thumb by size"
    vocab_size = constraints.vocab_size or vocabulary_for(optimum.params)
    length_rule = "given" if constraints.seq_len else "rule of thumb by size"
    seq_len = constraints.seq_len or seq_len_for(optimum.params)
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
        at_most=constraints.max_params,
    )
    batch_tokens, batch_rule = batch_tokens_for(optimum.flops, _loss_for_batch(law, optimum))
    batch_size = _round_rows(batch_tokens / seq_len / hardware.num_devices) * hardware.num_devices
    per_step = training_flops_per_token(model, seq_len).total * batch_size * seq_len
    if budget.kind in COMPUTE_BUDGETS:
        num_steps = round(flops / per_step)
    else:
        num_steps = math.ceil(optimum.tokens / (batch_size * seq_len))
    if num_steps < 2:
        raise InputError(
            f"budget: got {budget.value:g} {budget.unit}, which is {num_steps} optimizer steps; "
            f"expected enough for at least 2"
        )
    require_enough_tokens(num_steps * batch_size * seq_len, constraints)
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
        allocation.rule,
        Rule(field="model", value=_shape_text(model), rule=_shape_rule(model, constraints)),
        Rule(field="model.vocab_size", value=vocab_size, rule=vocab_rule),
        Rule(field="data.seq_len", value=seq_len, rule=length_rule),
        Rule(field="training.batch_size", value=batch_size, rule=batch_rule),
        Rule(
            field="training.num_steps",
            value=num_steps,
            rule=f"{budget.kind} budget over this shape's own FLOPs a step"
            if budget.kind in COMPUTE_BUDGETS
            else "the law's tokens over the batch",
        ),
        *optimizer_rules,
        *layout_rules,
    ]
    return Plan(
        budget=budget,
        constraints=constraints,
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
    """C of the budget, model FLOPs."""
    if budget.kind == "flops":
        return budget.value
    if budget.kind in ("params", "tokens"):
        return assumed_flops(budget)
    seconds = budget.value
    if budget.kind == "cost":
        price = hardware.price_per_chip_hour
        if price is None:
            raise InputError("price: got none, expected the price per chip-hour for --cost")
        seconds = 3600 * budget.value / (price * hardware.num_chips)
    require(
        seconds > reserved_seconds,
        f"budget ({budget.kind})",
        budget.value,
        f"more than the {reserved_seconds:.0f} s that evaluations and saves take",
    )
    return (seconds - reserved_seconds) * hardware.flops_per_second


def _loss_for_batch(law: Law, optimum: Optimum) -> float | None:
    """A loss to reckon the critical batch with; None where no law applies."""
    if law is TWENTY_TO_ONE:
        return None
    return law.loss(optimum.params, optimum.tokens) or BESIROGLU.loss(
        optimum.params, optimum.tokens
    )


def _shape_text(model: ModelConfig) -> str:
    return f"{model.num_layers} × {model.emb_dim}"


def _shape_rule(model: ModelConfig, constraints: Constraints) -> str:
    rule = (
        f"closest count among well-proportioned shapes: width per layer "
        f"{model.emb_dim / model.num_layers:.0f}, heads of {model.attention.head_dim}, MLP 8/3 wide"
    )
    if constraints.max_params is None:
        return rule
    return f"{rule}, at most {constraints.max_params:,.0f} parameters"


def _round_rows(rows: float) -> int:
    """The nearest of 1, 2, 3, 4, 6, 8, 12, 16, …: numbers that halve well into microbatches."""
    steps = [base << shift for shift in range(20) for base in (2, 3)]
    return min([1, *steps], key=lambda step: abs(math.log(step / rows)))


def seq_len_for(params: float) -> int:
    """Row length by model size: the context published models of that size were trained with."""
    for below, seq_len in ((1e7, 256), (5e7, 512), (3e8, 1024), (3e9, 2048)):
        if params < below:
            return seq_len
    return 4096
