"""How large parameters start: one standard deviation per role, by the model's init config."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from configs.model_config import (
    FanInInitConfig,
    ModelConfig,
    MuPInitConfig,
    NormalInitConfig,
    T5InitConfig,
)

Role = Literal["hidden", "residual", "query", "router", "embedding", "head"]


@dataclass(frozen=True)
class Init:
    """Standard deviations of a model's fresh parameters.

    Roles: "residual" is a projection back into the residual; "query" projects to queries;
    "router" to expert scores; "embedding" is a table of vectors (tokens, positions, types, biases
    by distance); "head" projects to logits; "hidden" is every other kernel.
    """

    config: ModelConfig

    def stddev(self, role: Role, fan_in: int) -> float:
        """Standard deviation of a kernel that contracts `fan_in` numbers, or of a table's rows
        of `fan_in`."""
        return _STDDEVS[type(self.config.init)](self.config, role, fan_in)


def logit_multiplier(config: ModelConfig) -> float:
    """Factor on the last activations before the head: 1 but for T5 1.0's tied table and muP."""
    scale = getattr(config.head, "logit_scale", 1.0)
    return scale / width_multiplier(config)


def width_multiplier(config: ModelConfig) -> float:
    """muP's m: how many times wider than its base the model is; 1 without muP."""
    if not isinstance(config.init, MuPInitConfig):
        return 1.0
    return config.emb_dim / config.init.base_emb_dim


def _residual_scale(config: ModelConfig) -> float:
    """So that all projections into the residual add up to unit variance (Radford et al. 2019)."""
    return 1 / math.sqrt(config.num_residual_projections)


def _fan_in(config: ModelConfig, role: Role, fan_in: int) -> float:
    scale = _residual_scale(config) if role == "residual" else 1.0
    return scale / math.sqrt(fan_in)


def _normal(config: ModelConfig, role: Role, fan_in: int) -> float:
    assert isinstance(config.init, NormalInitConfig)
    del fan_in
    scaled = role == "residual" and config.init.scale_residual
    return config.init.stddev * (_residual_scale(config) if scaled else 1.0)


def _t5(config: ModelConfig, role: Role, fan_in: int) -> float:
    match role:
        case "embedding":
            return 1.0
        case "query":  # scores are not scaled by 1/sqrt(head_dim): the kernel is
            return 1 / math.sqrt(fan_in * config.attention.head_dim)
    return 1 / math.sqrt(fan_in)


def _mup(config: ModelConfig, role: Role, fan_in: int) -> float:
    assert isinstance(config.init, MuPInitConfig)
    if role in ("embedding", "head"):  # as at the base width, whatever the width
        return 1 / math.sqrt(config.init.base_emb_dim)
    return _fan_in(config, role, fan_in)


_STDDEVS: dict[type, Callable[[ModelConfig, Role, int], float]] = {
    FanInInitConfig: _fan_in,
    NormalInitConfig: _normal,
    T5InitConfig: _t5,
    MuPInitConfig: _mup,
}
