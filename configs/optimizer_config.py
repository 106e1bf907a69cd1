"""Optimizers and their learning-rate schedules."""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import require, require_at_least_zero, require_positive


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Linear warm-up, then half a cosine down to `final_fraction` of the peak at the last step."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: int = 100
    final_fraction: float = 0.1

    def __post_init__(self):
        require_at_least_zero("optimizer.schedule", warmup_steps=self.warmup_steps)
        require(
            0 <= self.final_fraction <= 1,
            "optimizer.schedule.final_fraction",
            self.final_fraction,
            "a fraction from 0 to 1",
        )


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecayConfig:
    """Linear warm-up, constant, linear decay over the last `decay_fraction` of all steps.

    MiniCPM (arXiv 2404.06395) decays over about a tenth of the run.
    """

    kind: Literal["warmup_stable_decay"] = "warmup_stable_decay"
    warmup_steps: int = 100
    decay_fraction: float = 0.2
    final_fraction: float = 0.0

    def __post_init__(self):
        require_at_least_zero("optimizer.schedule", warmup_steps=self.warmup_steps)
        for name in ("decay_fraction", "final_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"optimizer.schedule.{name}", value, "a fraction from 0 to 1")


ScheduleConfig = CosineConfig | WarmupStableDecayConfig


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) after clipping to a global norm.

    Weight decay is scaled by the learning rate and spares norm scales. `clip_norm` 0 clips
    nothing.
    """

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = 3e-3
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    schedule: ScheduleConfig = field(default_factory=CosineConfig)

    def __post_init__(self):
        require_positive("optimizer", learning_rate=self.learning_rate, epsilon=self.epsilon)
        require_at_least_zero("optimizer", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "a number from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon for the layers' matrices, AdamW for the rest (Jordan et al. 2024; arXiv 2502.16982).

    Muon steps along the orthogonalised momentum, scaled by sqrt(max(1, outputs / inputs)), so one
    `learning_rate` serves matrices of every shape and size. Embedding table, head and norm scales
    take `adam_learning_rate` with b1, b2 and epsilon, and no weight decay. `weight_decay` is
    scaled by the learning rate. `clip_norm` 0 clips nothing.
    """

    kind: Literal["muon"] = "muon"
    learning_rate: float = 0.02
    momentum: float = 0.95
    adam_learning_rate: float = 1e-2
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    schedule: ScheduleConfig = field(default_factory=CosineConfig)

    def __post_init__(self):
        require_positive(
            "optimizer",
            learning_rate=self.learning_rate,
            adam_learning_rate=self.adam_learning_rate,
            epsilon=self.epsilon,
        )
        require_at_least_zero("optimizer", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        for name in ("b1", "b2", "momentum"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "a number from 0 to below 1")


OptimizerConfig = AdamWConfig | MuonConfig
