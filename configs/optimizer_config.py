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


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Linear warm-up, then a straight line down to `final_fraction` of the peak at the last step.

    BERT (Devlin et al. 2019, arXiv 1810.04805, appendix A.2) falls to zero so.
    """

    kind: Literal["linear"] = "linear"
    warmup_steps: int = 100
    final_fraction: float = 0.0

    def __post_init__(self):
        require_at_least_zero("optimizer.schedule", warmup_steps=self.warmup_steps)
        require(
            0 <= self.final_fraction <= 1,
            "optimizer.schedule.final_fraction",
            self.final_fraction,
            "a fraction from 0 to 1",
        )


@dataclass(frozen=True, kw_only=True)
class InverseSquareRootConfig:
    """The peak for `constant_steps` steps, then peak · sqrt(constant_steps / step).

    T5's (Raffel et al. 2020, arXiv 1910.10683, section 3.1.2): 1/sqrt(max(step, 10,000)) is a peak
    of 0.01 held for 10,000 steps, without warm-up. The Transformer's (Vaswani et al. 2017, arXiv
    1706.03762, equation 3): as many `warmup_steps`, which rise linearly, as `constant_steps`.

    The rate never ends by itself: the last `cooldown_fraction` of all steps bring it linearly to
    zero (Zhai et al. 2022, arXiv 2106.04560, section 3.5); 0 leaves it as it is, as T5 did.
    """

    kind: Literal["inverse_square_root"] = "inverse_square_root"
    warmup_steps: int = 0
    constant_steps: int = 10_000
    cooldown_fraction: float = 0.1

    def __post_init__(self):
        owner = "optimizer.schedule"
        require_at_least_zero(owner, warmup_steps=self.warmup_steps)
        require_positive(owner, constant_steps=self.constant_steps)
        require(
            self.warmup_steps <= self.constant_steps,
            f"{owner}.constant_steps",
            self.constant_steps,
            f"warmup_steps ({self.warmup_steps}) or more",
        )
        require(
            0 <= self.cooldown_fraction <= 1,
            f"{owner}.cooldown_fraction",
            self.cooldown_fraction,
            "a fraction from 0 to 1",
        )


ScheduleConfig = CosineConfig | LinearConfig | WarmupStableDecayConfig | InverseSquareRootConfig


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


@dataclass(frozen=True, kw_only=True)
class AdafactorConfig:
    """Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, algorithms 4 and 5), as T5 was trained.

    Of a matrix' second moments only the means of rows and of columns are kept, where both of its
    sides have `min_factored_dim` or more entries. Their decay at step t (from 1) is
    1 − t^(−`decay_exponent`). A step whose root mean square exceeds `clipping_threshold` is scaled
    down to it (0: never). Steps are relative: `learning_rate` times the root mean square of the
    parameter, which counts as `min_scale` at least. `epsilon` is added to squared gradients.

    `momentum` 0 keeps none, as T5; above 0 the steps are averaged, at the cost of a moment.
    `clip_norm` and `weight_decay` (scaled by the learning rate, sparing norm scales) are off: T5
    used neither.
    """

    kind: Literal["adafactor"] = "adafactor"
    learning_rate: float = 1e-2
    decay_exponent: float = 0.8
    clipping_threshold: float = 1.0
    min_factored_dim: int = 128
    min_scale: float = 1e-3
    epsilon: float = 1e-30
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    schedule: ScheduleConfig = field(default_factory=InverseSquareRootConfig)

    def __post_init__(self):
        require_positive(
            "optimizer",
            learning_rate=self.learning_rate,
            decay_exponent=self.decay_exponent,
            min_factored_dim=self.min_factored_dim,
            min_scale=self.min_scale,
            epsilon=self.epsilon,
        )
        require_at_least_zero(
            "optimizer",
            clipping_threshold=self.clipping_threshold,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )
        require(
            0 <= self.momentum < 1,
            "optimizer.momentum",
            self.momentum,
            "a number from 0 to below 1",
        )


@dataclass(frozen=True, kw_only=True)
class LionConfig:
    """Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2): the sign of an averaged gradient.

    The step mixes the gradient into the momentum with `b1`, the momentum itself is kept with `b2`.
    Every entry moves by the whole learning rate, so rates are 3 to 10 times smaller than AdamW's
    and the weight decay, which is scaled by them, as much larger (section 5): the defaults are
    AdamW's here, divided and multiplied by 5. Weight decay spares norm scales; `clip_norm` 0 clips
    nothing.
    """

    kind: Literal["lion"] = "lion"
    learning_rate: float = 6e-4
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.5
    clip_norm: float = 1.0
    schedule: ScheduleConfig = field(default_factory=CosineConfig)

    def __post_init__(self):
        require_positive("optimizer", learning_rate=self.learning_rate)
        require_at_least_zero("optimizer", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "a number from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class SGDConfig:
    """Stochastic gradient descent with momentum (Sutskever et al. 2013), a baseline.

    The momentum is a sum, not a mean: m ← `momentum` · m + gradient; `nesterov` looks one step
    ahead; 0 keeps none. Rate and momentum are those of Goyal et al. 2017 (arXiv 1706.02677). Their
    weight decay of 1e-4, added to the gradient, adds up to 1e-3 in a momentum of 0.9: here it is
    decoupled (arXiv 1711.05101), scaled by the learning rate, and spares norm scales. `clip_norm` 0
    clips nothing.
    """

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-3
    clip_norm: float = 1.0
    schedule: ScheduleConfig = field(default_factory=CosineConfig)

    def __post_init__(self):
        require_positive("optimizer", learning_rate=self.learning_rate)
        require_at_least_zero("optimizer", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        require(
            0 <= self.momentum < 1,
            "optimizer.momentum",
            self.momentum,
            "a number from 0 to below 1",
        )
        require(
            self.momentum > 0 or not self.nesterov,
            "optimizer.momentum",
            self.momentum,
            "a number above 0 for nesterov",
        )


OptimizerConfig = AdamWConfig | MuonConfig | AdafactorConfig | LionConfig | SGDConfig
