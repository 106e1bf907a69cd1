"""One layer: self-attention, in a decoder with memory cross-attention, then a feed-forward."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from configs.model_config import ModelConfig
from model.attention import Attention, CrossAttention, LayerCache, Visible
from model.constrain import Constrain
from model.mlp import Losses, make_mlp
from model.norms import make_norm

Sublayer = Callable[[Float[Array, "B L D"]], Float[Array, "B L D"]]


class BlockCache(NamedTuple):
    """What generation keeps of a layer: its own keys and values, and those of the memory."""

    own: LayerCache
    memory: LayerCache | None = None


class LayerInputs(NamedTuple):
    """What differs from layer to layer, each with a leading N axis outside of a block.

    is_window: whether this layer sees a window only; None where all layers are alike. is_first:
    of the stack; None where it makes no difference.
    """

    cache: BlockCache | None = None
    is_window: Bool[Array, ""] | None = None
    is_first: Bool[Array, ""] | None = None


class Shared(NamedTuple):
    """What all layers have in common.

    full, window: what layers of either kind see; None where no layer is of the kind. memory_BMD:
    the encoder's output; None without one, or where the cache holds its keys and values.
    """

    full: Visible | None
    window: Visible | None
    is_token_BL: Bool[Array, "B L"]
    write_slot: Int[Array, ""] | None = None
    memory_BMD: Float[Array, "B M D"] | None = None
    memory_mask_BLM: Bool[Array, "B L M"] | None = None


class Block(nn.Module):
    """Residual sublayers, normed as `norm_placement` says.

    pre: x + f(norm(x)) (Xiong et al. 2020, arXiv 2002.04745). post: norm(x + f(x)) (Vaswani et al.
    2017). sandwich: x + post_norm(f(norm(x))) (Gemma 2, arXiv 2408.00118).
    """

    config: ModelConfig
    constrain: Constrain
    causal_blocks: int
    reads_memory: bool

    @nn.compact
    def __call__(
        self, x_BLD: Float[Array, "B L D"], layer: LayerInputs, shared: Shared
    ) -> tuple[Float[Array, "B L D"], tuple[BlockCache | None, Losses]]:
        c, own, memory = self.config, None, None
        losses: Losses = {}

        def attend(h_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
            nonlocal own
            attention = Attention(c, self.constrain, self.causal_blocks, name="attention")
            cache = layer.cache.own if layer.cache else None
            visible = _visible(layer.is_window, shared)
            h_BLD, own = attention(h_BLD, visible, cache, shared.write_slot)
            return h_BLD

        def read_memory(h_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
            nonlocal memory
            assert shared.memory_mask_BLM is not None
            attention = CrossAttention(c, self.constrain, name="cross_attention")
            cache = layer.cache.memory if layer.cache else None
            h_BLD, memory = attention(h_BLD, shared.memory_BMD, shared.memory_mask_BLM, cache)
            return h_BLD

        def feed_forward(h_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
            h_BLD, of_mlp = make_mlp(c, self.constrain, "mlp")(h_BLD, shared.is_token_BL)
            losses.update(of_mlp)
            return h_BLD

        x_BLD = self._residual(x_BLD, "attention", attend, skip_norm=layer.is_first)
        if self.reads_memory:
            x_BLD = self._residual(x_BLD, "cross_attention", read_memory)
        x_BLD = self._residual(x_BLD, "mlp", feed_forward)
        cache = None if own is None else BlockCache(own, memory)
        return x_BLD, (cache, losses)

    def _residual(
        self,
        x_BLD: Float[Array, "B L D"],
        name: str,
        sublayer: Sublayer,
        skip_norm: Bool[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        c, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        norm = make_norm(c.norm, dtype, f"{name}_norm")
        if c.norm_placement == "post":
            x_BLD = norm(x_BLD + sublayer(x_BLD))
        else:
            h_BLD = norm(x_BLD)
            if skip_norm is not None:
                h_BLD = jnp.where(skip_norm, x_BLD, h_BLD)
            h_BLD = sublayer(h_BLD)
            if c.norm_placement == "sandwich":
                h_BLD = make_norm(c.norm, dtype, f"{name}_post_norm")(h_BLD)
            x_BLD = x_BLD + h_BLD
        return self.constrain(x_BLD, "batch", "length", "activation_embed")


def _visible(is_window: Bool[Array, ""] | None, shared: Shared) -> Visible:
    if is_window is None:
        visible = shared.full or shared.window
        assert visible is not None
        return visible
    return jax.tree.map(lambda w, f: jnp.where(is_window, w, f), shared.window, shared.full)
