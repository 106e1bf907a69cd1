"""The feed-forward half of a block: one table from a sub-config to its module."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from configs.mlp_config import (
    GATED,
    GEGLUConfig,
    GELUConfig,
    MLPConfig,
    MoEConfig,
    ReLUConfig,
    SquaredReLUConfig,
    SwiGLUConfig,
)
from configs.model_config import ModelConfig
from model.constrain import Constrain
from model.initializers import Init
from model.linear import Linear
from model.moe import MoE

Losses = dict[str, Float[Array, ""]]


class MLP(nn.Module):
    """down(activation(up x)), or gated: down(activation(gate x) · up x). D → F → D."""

    config: MLPConfig
    dtype: jnp.dtype
    constrain: Constrain
    init: Init

    @nn.compact
    def __call__(
        self, x_BLD: Float[Array, "B L D"], is_token_BL: Bool[Array, "B L"]
    ) -> tuple[Float[Array, "B L D"], Losses]:
        """Returns the outputs, and no auxiliary losses: places without a token are not told
        apart."""
        del is_token_BL
        c, D, F = self.config, x_BLD.shape[-1], self.config.mlp_dim
        has_bias = getattr(c, "use_bias", False)
        wide = partial(
            Linear,
            (D,),
            (F,),
            ("embed", "mlp"),
            self.dtype,
            self.init.stddev("hidden", D),
            self.constrain,
            ("mlp",) if has_bias else (),
        )
        h_BLF = wide(name="up")(x_BLD)
        if isinstance(c, GATED):
            h_BLF = activation(c)(wide(name="gate")(x_BLD)) * h_BLF
        else:
            h_BLF = activation(c)(h_BLF)
        h_BLF = self.constrain(h_BLF, "batch", "length", "mlp")
        down = Linear(
            (F,),
            (D,),
            ("mlp", "embed"),
            self.dtype,
            self.init.stddev("residual", F),
            self.constrain,
            ("norm",) if has_bias else (),
            name="down",
        )
        return down(h_BLF), {}


MLPS: dict[type, type[nn.Module]] = {
    SwiGLUConfig: MLP,
    GEGLUConfig: MLP,
    GELUConfig: MLP,
    ReLUConfig: MLP,
    SquaredReLUConfig: MLP,
    MoEConfig: MoE,
}


def gelu(kind: str) -> Callable[[jax.Array], jax.Array]:
    """x·Φ(x), exactly or by the tanh approximation."""
    return partial(nn.gelu, approximate=kind == "tanh")


def activation(config: Any) -> Callable[[jax.Array], jax.Array]:
    """The elementwise function of a dense MLP."""
    match config:
        case SwiGLUConfig():
            return nn.silu
        case GEGLUConfig() | GELUConfig():
            return gelu(config.gelu)
        case ReLUConfig():
            return nn.relu
        case SquaredReLUConfig():
            return lambda x: jnp.square(nn.relu(x))
    raise AssertionError(config)


def make_mlp(config: ModelConfig, constrain: Constrain, name: str) -> nn.Module:
    """The module for a model's MLP: (x_BLD, is_token_BL) -> (y_BLD, auxiliary losses by name)."""
    return MLPS[type(config.mlp)](
        config=config.mlp,
        dtype=jnp.dtype(config.compute_dtype),
        constrain=constrain,
        init=Init(config),
        name=name,
    )
