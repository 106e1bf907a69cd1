"""One layer: attention, then a feed-forward, each normed before and added to the residual."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from configs.model_config import ModelConfig
from model.attention import Attention, LayerCache
from model.constrain import Constrain
from model.mlp import MLPS
from model.norms import make_norm
from model.positions import Rotation


class Block(nn.Module):
    """Pre-norm residual block (Xiong et al. 2020, arXiv 2002.04745).

    Projections back into the residual start smaller by 1/sqrt(2N): the 2N of them then add up to
    unit variance (Radford et al. 2019, section 2.3).
    """

    config: ModelConfig
    constrain: Constrain

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        cache: LayerCache | None,
        angles: Rotation,
        mask_BLM: Bool[Array, "B L M"],
        write_slot: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "B L D"], LayerCache | None]:
        c, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        out_init_scale = (2 * c.num_layers) ** -0.5
        h_BLD = make_norm(c.norm, dtype, "attention_norm")(x_BLD)
        attention = Attention(c.attention, dtype, self.constrain, out_init_scale, name="attention")
        h_BLD, cache = attention(h_BLD, angles, mask_BLM, cache, write_slot)
        x_BLD = self.constrain(x_BLD + h_BLD, "batch", "length", "activation_embed")
        h_BLD = make_norm(c.norm, dtype, "mlp_norm")(x_BLD)
        mlp = MLPS[type(c.mlp)](c.mlp, dtype, self.constrain, out_init_scale, name="mlp")
        x_BLD = self.constrain(x_BLD + mlp(h_BLD), "batch", "length", "activation_embed")
        return x_BLD, cache
