"""One layer: self-attention, in a decoder with memory cross-attention, then a feed-forward."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from configs.model_config import ModelConfig, Remat
from model.attention import Attention, CrossAttention, LayerCache, Visible
from model.constrain import Constrain
from model.kernels import Seen
from model.mlp import Losses, make_mlp
from model.norms import make_norm

Sublayer = Callable[[Float[Array, "B L D"]], Float[Array, "B L D"]]


class BlockCache(NamedTuple):
    """What generation keeps of a layer: its own keys and values, and those of the memory."""

    own: LayerCache
    memory: LayerCache | None = None


class LayerKind(NamedTuple):
    """What is known of a layer when it is compiled.

    is_window: whether it sees a window only. remat: what it computes again in the backward pass.
    """

    is_window: bool
    remat: Remat


class LayerInputs(NamedTuple):
    """What differs from layer to layer when it runs, each with a leading N axis outside of a block.

    is_first: of the stack; None where it makes no difference.
    """

    cache: BlockCache | None = None
    is_first: Bool[Array, ""] | None = None


class Shared(NamedTuple):
    """What all layers have in common.

    full, window: what layers of either kind see; None where no layer is of the kind. memory_BMD:
    the encoder's output; None without one, or where the cache holds its keys and values. of_memory:
    who sees which of its places.
    """

    full: Visible | None
    window: Visible | None
    is_token_BL: Bool[Array, "B L"]
    write_slot: Int[Array, ""] | None = None
    memory_BMD: Float[Array, "B M D"] | None = None
    of_memory: Seen | None = None


class Block(nn.Module):
    """Residual sublayers, normed as `norm_placement` says.

    pre: x + f(norm(x)) (Xiong et al. 2020, arXiv 2002.04745). post: norm(x + f(x)) (Vaswani et al.
    2017). sandwich: x + post_norm(f(norm(x))) (Gemma 2, arXiv 2408.00118).
    """

    config: ModelConfig
    constrain: Constrain
    kind: LayerKind
    reads_memory: bool

    @nn.compact
    def __call__(
        self, x_BLD: Float[Array, "B L D"], layer: LayerInputs, shared: Shared
    ) -> tuple[Float[Array, "B L D"], tuple[BlockCache | None, Losses]]:
        c, own, memory = self.config, None, None
        rematerialises = self.kind.remat == "attention"
        losses: Losses = {}

        def attend(h_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
            nonlocal own
            attention = Attention(c, self.constrain, rematerialises, name="attention")
            cache = layer.cache.own if layer.cache else None
            visible = shared.window if self.kind.is_window else shared.full
            assert visible is not None
            h_BLD, own = attention(h_BLD, visible, cache, shared.write_slot)
            return h_BLD

        def read_memory(h_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
            nonlocal memory
            assert shared.of_memory is not None
            attention = CrossAttention(c, self.constrain, rematerialises, name="cross_attention")
            cache = layer.cache.memory if layer.cache else None
            h_BLD, memory = attention(h_BLD, shared.memory_BMD, shared.of_memory, cache)
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
            if self.constrain.platform == "tpu":
                # Else its compiler makes the norm a part of every product that reads it: more to
                # compile, and more cycles than the memory traffic it saves.
                h_BLD = jax.lax.optimization_barrier(h_BLD)
            h_BLD = sublayer(h_BLD)
            if c.norm_placement == "sandwich":
                h_BLD = make_norm(c.norm, dtype, f"{name}_post_norm")(h_BLD)
            x_BLD = x_BLD + h_BLD
        return self.constrain(x_BLD, "batch", "residual_length", "activation_embed")
