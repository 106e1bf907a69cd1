"""N blocks and a last norm: the only place that knows how layers are repeated."""

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from configs.model_config import ModelConfig
from configs.position_config import AlibiConfig, RelativeBiasConfig, RopeConfig
from model.attention import ATTENTION, Visible
from model.block import Block, BlockCache, LayerInputs, Shared
from model.constrain import Constrain
from model.initializers import Init
from model.masks import MaskSpec, Places, attention_mask, segment_mask
from model.mlp import Losses
from model.norms import make_norm
from model.positions import RelativeBias, alibi_bias
from model.rotary import local_rotation, rotation

LayerCaches = tuple[BlockCache, ...]  # one a layer, where layers are laid out


@dataclass(frozen=True, kw_only=True)
class StackSpec:
    """What makes a stack an encoder or a decoder.

    causal: no place sees a later one. reads_memory: every layer has cross-attention.
    """

    num_layers: int
    causal: bool
    reads_memory: bool = False


class Memory(NamedTuple):
    """What a decoder reads: the encoder's output, and the segment of each of its places.

    activations_BMD: None where the cache holds its keys and values already.
    """

    activations_BMD: Float[Array, "B M D"] | None
    segments_BM: Int[Array, "B M"]


class StackOutput(NamedTuple):
    """Normed activations; the cache with the new tokens added; auxiliary losses summed."""

    x_BLD: Float[Array, "B L D"]
    cache: BlockCache | LayerCaches | None
    losses: Losses


class Stack(nn.Module):
    """Blocks under one `nn.scan`, whose parameters carry a leading layer axis.

    Scanned, the compiled program holds one block and a loop; unrolled, the same loop laid out N
    times. Either way the parameters are the same tree, so checkpoints move between the two.

    Attributes:
      stacked: False lays out one block a layer, with parameters and a cache of its own, for
        generation: cutting a layer out of stacked ones would copy it at every token.
    """

    config: ModelConfig
    constrain: Constrain
    spec: StackSpec
    stacked: bool = True

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        positions_BL: Int[Array, "B L"],
        places: Places,
        *,
        memory: Memory | None = None,
        cache: BlockCache | LayerCaches | None = None,
        write_slot: Int[Array, ""] | None = None,
    ) -> StackOutput:
        """Runs the layers in order.

        Args:
          places: where queries and keys stand: the row itself, or its place in the cache.
          memory: what cross-attention reads, in a stack that does.
          cache: keys and values of all layers, each leaf with a leading N axis, or one cache a
            layer; None in training.
        """
        c = self.config
        full, window = self._visible(positions_BL, places)
        shared = Shared(
            full=full,
            window=window,
            is_token_BL=places.query_segments_BL > 0,
            write_slot=write_slot,
            memory_BMD=None if memory is None else memory.activations_BMD,
            memory_mask_BLM=None
            if memory is None
            else segment_mask(places.query_segments_BL, memory.segments_BM),
        )
        # A prefix sees itself both ways, and a cache has slots beyond the row.
        in_blocks = self.spec.causal and cache is None and places.key_prefix_BM is None
        causal_blocks = c.attention.causal_blocks if in_blocks else 1
        if self.stacked:
            assert cache is None or isinstance(cache, BlockCache)
            x_BLD, cache, losses = self._scanned(x_BLD, cache, shared, causal_blocks)
        else:
            assert not isinstance(cache, BlockCache)
            x_BLD, cache, losses = self._laid_out(x_BLD, cache, shared, causal_blocks)
        if c.norm_placement != "post":
            x_BLD = make_norm(c.norm, jnp.dtype(c.compute_dtype), "final_norm")(x_BLD)
        return StackOutput(x_BLD, cache, losses)

    def _scanned(
        self,
        x_BLD: Float[Array, "B L D"],
        cache: BlockCache | None,
        shared: Shared,
        causal_blocks: int,
    ) -> tuple[Float[Array, "B L D"], BlockCache | None, Losses]:
        c, spec = self.config, self.spec
        block = Block
        if c.remat == "full":
            # Under scan the loop itself keeps the recomputation from being merged away.
            block = nn.remat(Block, prevent_cse=not c.scan_layers)
        layers = nn.scan(
            block,
            variable_axes={"params": 0, ATTENTION: 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),  # type: ignore[arg-type]
            out_axes=0,
            length=spec.num_layers,
            unroll=1 if c.scan_layers else spec.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, self.constrain, causal_blocks, spec.reads_memory, name="layers")
        x_BLD, (cache, losses) = layers(x_BLD, self._layer_inputs(cache), shared)
        return x_BLD, cache, {name: jnp.sum(loss) for name, loss in losses.items()}

    def _laid_out(
        self,
        x_BLD: Float[Array, "B L D"],
        cache: LayerCaches | None,
        shared: Shared,
        causal_blocks: int,
    ) -> tuple[Float[Array, "B L D"], LayerCaches | None, Losses]:
        c, spec = self.config, self.spec
        caches, totals = [], {}
        for layer, is_window in enumerate(self._is_window):
            block = Block(
                c, self.constrain, causal_blocks, spec.reads_memory, name=f"layers_{layer}"
            )
            inputs = LayerInputs(
                cache=None if cache is None else cache[layer],
                is_first=jnp.asarray(layer == 0) if c.skip_first_norm else None,
            )
            of_layer = shared._replace(**{"full" if is_window else "window": None})
            x_BLD, (layer_cache, losses) = block(x_BLD, inputs, of_layer)
            caches.append(layer_cache)
            totals = {name: loss + totals.get(name, 0.0) for name, loss in losses.items()}
        return x_BLD, None if cache is None else tuple(caches), totals

    def _visible(
        self, positions_BL: Int[Array, "B L"], places: Places
    ) -> tuple[Visible | None, Visible | None]:
        """What layers that see everything see, and what those with a window do."""
        c, spec, head_dim = self.config, self.spec, self.config.attention.head_dim
        is_window = self._is_window
        bias_HLM, angles, local_angles = None, None, None
        match c.position:
            case RopeConfig():
                angles = rotation(c.position, positions_BL, head_dim)
                local_angles = local_rotation(c.position, positions_BL, head_dim)
            case RelativeBiasConfig():
                stddev = Init(c).stddev("hidden", c.emb_dim)
                table = RelativeBias(
                    c.position,
                    c.attention.num_heads,
                    not spec.causal,
                    stddev,
                    name="relative_bias",
                )
                bias_HLM = table(places.distance_LM)
            case AlibiConfig():
                bias_HLM = alibi_bias(c.position, places.distance_LM, c.attention.num_heads)
        full, window = None, None
        if not all(is_window):
            mask_BLM = attention_mask(MaskSpec(causal=spec.causal), places)
            full = Visible(mask_BLM, bias_HLM, angles)
        if any(is_window):
            mask_spec = MaskSpec(causal=spec.causal, window=c.attention.window)
            window = Visible(attention_mask(mask_spec, places), bias_HLM, local_angles)
        return full, window

    def _layer_inputs(self, cache: BlockCache | None) -> LayerInputs:
        is_window: Bool[Array, " N"] | None = None
        if len(set(self._is_window)) > 1:
            is_window = jnp.array(self._is_window)
        is_first = jnp.arange(self.spec.num_layers) == 0 if self.config.skip_first_norm else None
        return LayerInputs(cache, is_window, is_first)

    @property
    def _is_window(self) -> tuple[bool, ...]:
        return self.config.attention.windowed_layers(self.spec.num_layers)
