"""Position encodings: how a model tells where a token stands."""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import require, require_at_least_zero, require_positive


@dataclass(frozen=True, kw_only=True)
class NoScalingConfig:
    """Angles as they are."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True)
class LinearScalingConfig:
    """Positions divided by `factor` (position interpolation; arXiv 2306.15595)."""

    kind: Literal["linear"] = "linear"
    factor: float = 1.0

    def __post_init__(self):
        require_positive("model.position.scaling", factor=self.factor)


@dataclass(frozen=True, kw_only=True)
class Llama3ScalingConfig:
    """Llama 3.1's: slow frequencies divided by `factor`, fast ones kept, a ramp between.

    A frequency is slow when its wavelength exceeds original_length / low_frequency_factor, fast
    when it is below original_length / high_frequency_factor (arXiv 2407.21783; the released code).
    """

    kind: Literal["llama3"] = "llama3"
    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_length: int = 8192

    def __post_init__(self):
        require_positive(
            "model.position.scaling",
            factor=self.factor,
            low_frequency_factor=self.low_frequency_factor,
            high_frequency_factor=self.high_frequency_factor,
            original_length=self.original_length,
        )
        require(
            self.low_frequency_factor < self.high_frequency_factor,
            "model.position.scaling.low_frequency_factor",
            self.low_frequency_factor,
            f"less than high_frequency_factor ({self.high_frequency_factor})",
        )


@dataclass(frozen=True, kw_only=True)
class YarnScalingConfig:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): interpolation by parts, and warmer attention.

    Features that turn more than `beta_fast` times over `original_length` are kept, those that turn
    less than `beta_slow` times are divided by `factor`, a ramp between. Cosine and sine are
    multiplied by `attention_factor`; 0: the paper's 0.1·ln(factor) + 1.
    """

    kind: Literal["yarn"] = "yarn"
    factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    original_length: int = 4096
    attention_factor: float = 0.0

    def __post_init__(self):
        require_positive(
            "model.position.scaling",
            factor=self.factor,
            beta_fast=self.beta_fast,
            beta_slow=self.beta_slow,
            original_length=self.original_length,
        )
        require_at_least_zero("model.position.scaling", attention_factor=self.attention_factor)


RopeScalingConfig = NoScalingConfig | LinearScalingConfig | Llama3ScalingConfig | YarnScalingConfig


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), rotating half against half.

    `local_theta` is the base in layers with a window, which are never scaled (Gemma 3,
    ModernBERT); 0: those layers turn as the others do.
    """

    kind: Literal["rope"] = "rope"
    theta: float = 10_000.0
    local_theta: float = 0.0
    scaling: RopeScalingConfig = field(default_factory=NoScalingConfig)

    def __post_init__(self):
        require_positive("model.position", theta=self.theta)
        require_at_least_zero("model.position", local_theta=self.local_theta)


@dataclass(frozen=True, kw_only=True)
class LearnedPositionConfig:
    """A table of one learned row per position, added to the embedding (GPT-2, BERT, BART).

    Position p takes row p + `offset`: RoBERTa and BART never use the first two of their rows.
    `start`: rows begin as random as other tables' ("normal"), or as sines and cosines of the same
    deviation ("sinusoidal"), from which "one place to the left" is a rotation from the first step
    on: short runs learn to look at neighbours much sooner.
    """

    kind: Literal["learned"] = "learned"
    num_positions: int = 512
    offset: int = 0
    start: Literal["normal", "sinusoidal"] = "normal"

    def __post_init__(self):
        require_positive("model.position", num_positions=self.num_positions)
        require_at_least_zero("model.position", offset=self.offset)
        require(
            self.offset < self.num_positions,
            "model.position.offset",
            self.offset,
            f"less than num_positions ({self.num_positions})",
        )


@dataclass(frozen=True, kw_only=True)
class SinusoidalPositionConfig:
    """Fixed sines and cosines added to the embedding (Vaswani et al. 2017, section 3.5)."""

    kind: Literal["sinusoidal"] = "sinusoidal"
    theta: float = 10_000.0

    def __post_init__(self):
        require_positive("model.position", theta=self.theta)


@dataclass(frozen=True, kw_only=True)
class RelativeBiasConfig:
    """A learned bias on the scores by head and distance bucket, one table for all layers (T5).

    Half of the buckets hold one distance each, the others grow logarithmically up to
    `max_distance` (Raffel et al. 2020, arXiv 1910.10683, section 2.1).
    """

    kind: Literal["relative_bias"] = "relative_bias"
    num_buckets: int = 32
    max_distance: int = 128

    def __post_init__(self):
        require(
            self.num_buckets >= 4 and self.num_buckets % 4 == 0,
            "model.position.num_buckets",
            self.num_buckets,
            "a multiple of 4",
        )
        require(
            self.max_distance > self.num_buckets // 2,
            "model.position.max_distance",
            self.max_distance,
            f"more than half of num_buckets ({self.num_buckets})",
        )


@dataclass(frozen=True, kw_only=True)
class AlibiConfig:
    """Scores fall linearly with distance, by a fixed slope per head (arXiv 2108.12409)."""

    kind: Literal["alibi"] = "alibi"


@dataclass(frozen=True, kw_only=True)
class NoPositionConfig:
    """No position encoding: a causal mask alone tells order (arXiv 2305.19466)."""

    kind: Literal["none"] = "none"


PositionConfig = (
    RopeConfig
    | LearnedPositionConfig
    | SinusoidalPositionConfig
    | RelativeBiasConfig
    | AlibiConfig
    | NoPositionConfig
)
