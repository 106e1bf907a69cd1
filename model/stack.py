"""N blocks and a last norm: the only place that knows how layers are repeated."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from configs.model_config import ModelConfig
from model.attention import LayerCache
from model.block import Block
from model.constrain import Constrain
from model.norms import make_norm
from model.positions import Rotation


class Stack(nn.Module):
    """Blocks under one `nn.scan`, whose parameters carry a leading layer axis.

    Scanned, the compiled program holds one block and a loop; unrolled, the same loop laid out N
    times. Either way the parameters are the same tree, so checkpoints move between the two.
    """

    config: ModelConfig
    constrain: Constrain

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        angles: Rotation,
        mask_BLM: Bool[Array, "B L M"],
        cache: LayerCache | None = None,
        write_slot: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B L D"], LayerCache | None]:
        """Runs the layers in order.

        Args:
          cache: keys and values of all layers, each leaf with a leading N axis; None in training.

        Returns:
          The normed activations, and the cache with the new tokens' keys and values.
        """
        c = self.config
        block = Block
        if c.remat == "full":
            # Under scan the loop itself keeps the recomputation from being merged away.
            block = nn.remat(Block, prevent_cse=not c.scan_layers)
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),  # type: ignore[arg-type]
            out_axes=0,
            length=c.num_layers,
            unroll=1 if c.scan_layers else c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, self.constrain, name="layers")
        x_BLD, cache = layers(x_BLD, cache, angles, mask_BLM, write_slot)
        return make_norm(c.norm, jnp.dtype(c.compute_dtype), "final_norm")(x_BLD), cache
