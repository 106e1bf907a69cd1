"""A plan: every number of a run before it starts, and the record that is written of it."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from configs.objective_config import ExampleLengths
from configs.schema import RunConfig
from planner.accounting import (
    active_params,
    kv_cache_bytes,
    matmul_params,
    non_embedding_params,
    total_params,
    training_flops_per_token,
)
from planner.budget import Budget, Constraints
from planner.hardware import Hardware
from planner.hyperparameters import Rule
from planner.law import Law, Optimum
from planner.on_hardware import needed_bytes
from planner.outlook import (
    LossPrediction,
    other_sizes,
    params_by_law,
    predict_loss,
    side_by_side,
    warnings_about,
)
from planner.roofline import Traffic


@dataclass(frozen=True, kw_only=True)
class CompiledStep:
    """What a compiler said of the planned step.

    Attributes:
      topology: what it was compiled for.
      needed_bytes: of one device, the program included; 0 where the compiler gave up without a
        figure. usable_bytes: what a device has for it.
      flops: executed by one device, of matrix products. planned_flops: by the planner.
      traffic: what one device sends, by kind and mesh axes. planned_traffic: by the planner.
      failure: why there is no program; "" if there is one.
    """

    topology: str
    needed_bytes: int
    usable_bytes: float
    planned_bytes: int
    flops: float
    planned_flops: float
    traffic: tuple[Traffic, ...]
    planned_traffic: tuple[Traffic, ...]
    failure: str = ""

    @property
    def fits(self) -> bool:
        return not self.failure and self.needed_bytes <= self.usable_bytes

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"fits": self.fits, "failure": self.failure or None}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A promise: every number of a run before it starts, and where it came from.

    optimum: N and D as the law gives them, in the law's convention. config: the concrete run,
    whose own counts differ a little (a shape is a whole number of layers). reserved_seconds: part
    of a time budget set aside for evaluations and saves. compiled: what a compiler said of the
    step; None if none was asked.
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
    compiled: CompiledStep | None = None

    @property
    def peak_bytes(self) -> int:
        """Of one device while a step runs: by the compiler where it was asked, else planned."""
        if self.compiled is not None and self.compiled.needed_bytes:
            return self.compiled.needed_bytes
        return needed_bytes(self.config, self.hardware).total

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
        """Places of all steps together, those of encoder and decoder: what the FLOPs are for."""
        return self.config.training.num_steps * self.config.batch_tokens

    @property
    def tokens_read(self) -> int:
        """Tokens of the corpus that all steps read."""
        t = self.config.training
        return t.num_steps * t.batch_size * tokens_per_row(self.config.lengths)

    @property
    def params_by_law(self) -> int:
        """N of the shape, as the law counts it."""
        return params_by_law(self.law.params_kind, self.config.model, self.config.lengths)

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
        return predict_loss(self.law, self.flops, c.model, c.lengths, self.tokens, c.objective.kind)

    def warnings(self, corpus_tokens: int | None = None) -> list[str]:
        """What should not be overlooked: laws out of their range, repeated data, odd shapes."""
        c = self.config
        return warnings_about(
            self.law,
            self.flops,
            self.optimum,
            c.model,
            c.lengths,
            c.objective.kind,
            self.epochs(corpus_tokens),
        )

    def epochs(self, corpus_tokens: int | None = None) -> float | None:
        """How often the training tokens there are would be read; None if nobody said how many."""
        unique = corpus_tokens or self.constraints.unique_tokens
        return None if unique is None else self.tokens_read / unique

    @property
    def _step_flops(self) -> float:
        per_token = training_flops_per_token(self.config.model, self.config.lengths).total
        return per_token * self.config.batch_tokens

    def with_config(self, config: RunConfig) -> "Plan":
        """The same plan for a config that the user changed: every count follows the config."""
        return replace(self, config=config, compiled=None)

    def to_json(self, corpus_tokens: int | None = None) -> dict[str, Any]:
        """The record of plan.json (docs/run_directory.md).

        Args:
          corpus_tokens: training tokens there are, for the number of epochs; None if unknown.
        """
        c, m = self.config, self.config.model
        lengths, law, loss = c.lengths, self.law, self.loss
        objective = c.objective.kind
        flops = training_flops_per_token(m, lengths)
        memory = needed_bytes(c, self.hardware)
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
            "laws": [
                asdict(answer)
                for answer in side_by_side(law, self.flops, model=m, objective=objective)
            ],
            "other_sizes": [
                asdict(size)
                for size in other_sizes(law, self.flops, self.optimum, model=m, objective=objective)
            ],
            "optimum": {
                "params": self.optimum.params,
                "tokens": self.optimum.tokens,
                "flops": self.optimum.flops,
                "tokens_per_param": self.optimum.ratio,
            },
            "model": {
                "architecture": m.architecture,
                "params": total_params(m),
                "active_params": active_params(m),
                "matmul_params": matmul_params(m),
                "non_embedding_params": non_embedding_params(m),
                "params_by_law": self.params_by_law,
                "flops_per_token": flops.total,
                "flops_per_token_palm": training_flops_per_token(m, lengths, causal=False).total,
                "emb_dim": m.emb_dim,
                "num_layers": m.num_layers,
                "num_encoder_layers": m.num_encoder_layers,
                "num_heads": m.attention.num_heads,
                "num_kv_heads": m.attention.num_kv_heads,
                "head_dim": m.attention.head_dim,
                "mlp_dim": m.mlp.mlp_dim,
                "vocab_size": m.vocab_size,
                "tie_embeddings": m.tie_embeddings,
            },
            "data": {
                "tokens": self.tokens,
                "tokens_per_param": self.tokens / self.params_by_law,
                "tokens_read": self.tokens_read,
                "epochs": self.epochs(corpus_tokens),
                "objective": objective,
                "seq_len": c.data.seq_len,
                "places_per_row": lengths.places,
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
                    part: self.tokens * per_token for part, per_token in asdict(flops).items()
                },
                "days": self.train_seconds / 86_400,
                "chip_hours": self.chip_hours,
                "cost": self.cost,
                "peak_bytes": self.peak_bytes,
                "bytes_by_kind": asdict(memory),
                "kv_cache_bytes_per_row": kv_cache_bytes(
                    m, 1, lengths.length, memory_length=lengths.encoder_length
                ),
                "loss": loss.value,
                "loss_low": loss.low,
                "loss_high": loss.high,
                "loss_law": loss.law,
                "loss_note": loss.note,
            },
            "compiled": None if self.compiled is None else self.compiled.to_json(),
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


def tokens_per_row(lengths: ExampleLengths) -> int:
    """Tokens of the corpus that a row reads and no other row of its epoch does."""
    return lengths.tokens - lengths.overlap
