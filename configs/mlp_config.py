"""Feed-forward layers: one dense MLP, or a mixture of many."""

from dataclasses import dataclass
from typing import Literal

from configs.errors import require, require_at_least_zero, require_positive

Gelu = Literal["exact", "tanh"]


@dataclass(frozen=True, kw_only=True)
class SwiGLUConfig:
    """Gated MLP, down(silu(gate x) * up x) (Shazeer 2020, arXiv 2002.05202)."""

    kind: Literal["swiglu"] = "swiglu"
    mlp_dim: int = 512
    use_bias: bool = False

    def __post_init__(self):
        require_positive("model.mlp", mlp_dim=self.mlp_dim)


@dataclass(frozen=True, kw_only=True)
class GEGLUConfig:
    """Gated MLP, down(gelu(gate x) * up x) (Shazeer 2020): Gemma, T5 v1.1, ModernBERT."""

    kind: Literal["geglu"] = "geglu"
    mlp_dim: int = 512
    use_bias: bool = False
    gelu: Gelu = "tanh"

    def __post_init__(self):
        require_positive("model.mlp", mlp_dim=self.mlp_dim)


@dataclass(frozen=True, kw_only=True)
class GELUConfig:
    """down(gelu(up x)) (Hendrycks and Gimpel 2016, arXiv 1606.08415): GPT-2, BERT, BART."""

    kind: Literal["gelu"] = "gelu"
    mlp_dim: int = 512
    use_bias: bool = True
    gelu: Gelu = "tanh"

    def __post_init__(self):
        require_positive("model.mlp", mlp_dim=self.mlp_dim)


@dataclass(frozen=True, kw_only=True)
class ReLUConfig:
    """down(relu(up x)): the transformer of 2017, T5 1.0."""

    kind: Literal["relu"] = "relu"
    mlp_dim: int = 512
    use_bias: bool = False

    def __post_init__(self):
        require_positive("model.mlp", mlp_dim=self.mlp_dim)


@dataclass(frozen=True, kw_only=True)
class SquaredReLUConfig:
    """down(relu(up x)²) (Primer; So et al. 2021, arXiv 2109.08668)."""

    kind: Literal["squared_relu"] = "squared_relu"
    mlp_dim: int = 512
    use_bias: bool = False

    def __post_init__(self):
        require_positive("model.mlp", mlp_dim=self.mlp_dim)


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """Mixture of SwiGLU experts: each token goes to the `experts_per_token` it scores highest.

    Gates are the softmax over the chosen experts' router logits (Mixtral, arXiv 2401.04088).
    `dispatch` "dropless" computes every choice (MegaBlocks, arXiv 2211.15841); "capacity" gives
    each expert room for capacity_factor · tokens · experts_per_token / num_experts choices of a
    row and drops the rest (GShard, arXiv 2006.16668). `balance_loss` scales the load-balance loss
    num_experts · Σ share of choices · mean probability (Switch, arXiv 2101.03961, equation 4),
    `router_z_loss` the mean squared logsumexp of the router's logits (ST-MoE, arXiv 2202.08906).
    """

    kind: Literal["moe"] = "moe"
    mlp_dim: int = 512
    num_experts: int = 8
    experts_per_token: int = 2
    dispatch: Literal["dropless", "capacity"] = "dropless"
    capacity_factor: float = 1.25
    balance_loss: float = 1e-2
    router_z_loss: float = 1e-3

    def __post_init__(self):
        require_positive(
            "model.mlp",
            mlp_dim=self.mlp_dim,
            num_experts=self.num_experts,
            experts_per_token=self.experts_per_token,
            capacity_factor=self.capacity_factor,
        )
        require_at_least_zero(
            "model.mlp", balance_loss=self.balance_loss, router_z_loss=self.router_z_loss
        )
        require(
            self.experts_per_token <= self.num_experts,
            "model.mlp.experts_per_token",
            self.experts_per_token,
            f"at most num_experts ({self.num_experts})",
        )


MLPConfig = SwiGLUConfig | GEGLUConfig | GELUConfig | ReLUConfig | SquaredReLUConfig | MoEConfig

GATED = (SwiGLUConfig, GEGLUConfig)
"""Dense MLPs with a third kernel, whose product opens the second's."""
