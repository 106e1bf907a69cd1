"""The feed-forward half of a block."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from configs.model_config import SwiGLUConfig
from model.constrain import Constrain
from model.linear import Linear


class SwiGLU(nn.Module):
    """down(silu(gate x) · up x): D → F → D, three kernels, no biases."""

    config: SwiGLUConfig
    dtype: jnp.dtype
    constrain: Constrain
    out_init_scale: float

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        D, F = x_BLD.shape[-1], self.config.mlp_dim
        gate_BLF = Linear((D,), (F,), ("embed", "mlp"), self.dtype, name="gate")(x_BLD)
        up_BLF = Linear((D,), (F,), ("embed", "mlp"), self.dtype, name="up")(x_BLD)
        h_BLF = self.constrain(nn.silu(gate_BLF) * up_BLF, "batch", "length", "mlp")
        down = Linear((F,), (D,), ("mlp", "embed"), self.dtype, self.out_init_scale, name="down")
        return down(h_BLF)


MLPS = {SwiGLUConfig: SwiGLU}
