"""N blocks and a last norm: the only place that knows how layers are repeated."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from configs.model_config import ModelConfig
from configs.position_config import AlibiConfig, RelativeBiasConfig, RopeConfig
from model.attention import ATTENTION, Visible
from model.block import Block, BlockCache, LayerInputs, LayerKind, Shared
from model.constrain import Constrain
from model.initializers import Init
from model.kernels import Seen
from model.masks import MaskSpec, Places, segment_places
from model.mlp import Losses
from model.norms import make_norm
from model.positions import RelativeBias, alibi_bias
from model.rotary import local_rotation, rotation

LayerCaches = tuple[BlockCache, ...]  # one a layer, where layers are laid out
Tree = Any  # of arrays


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
    """Blocks under one `lax.scan`, over parameters that carry a leading layer axis.

    Scanned, the compiled program holds one period of layers and a loop; unrolled, the same loop
    laid out. A period is as many layers as the patterns of windows and of rematerialisation take to
    repeat, so that what a layer is like is known when it is compiled; layers left over after the
    last whole period follow one by one. Either way the parameters are the same tree, so
    checkpoints move between the two.

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
            of_memory=None
            if memory is None
            else Seen(
                MaskSpec(causal=False),
                segment_places(places.query_segments_BL, memory.segments_BM),
            ),
        )
        if self.stacked:
            assert cache is None or isinstance(cache, BlockCache)
            if self.is_initializing():
                self._declare(x_BLD, shared)
            x_BLD, cache, losses = self._scanned(x_BLD, cache, shared)
        else:
            assert not isinstance(cache, BlockCache)
            x_BLD, cache, losses = self._laid_out(x_BLD, cache, shared)
        if c.norm_placement != "post":
            x_BLD = make_norm(c.norm, jnp.dtype(c.compute_dtype), "final_norm")(x_BLD)
        return StackOutput(x_BLD, cache, losses)

    def _declare(self, x_BLD: Float[Array, "B L D"], shared: Shared) -> None:
        """Fresh parameters of all layers, stacked; they do not depend on what a layer is like."""
        layers = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),  # type: ignore[arg-type]
            out_axes=0,
            length=self.spec.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.config, self.constrain, self._kinds[0], self.spec.reads_memory, name="layers")
        layers(x_BLD, self._layer_inputs(None), shared)

    def _scanned(
        self, x_BLD: Float[Array, "B L D"], cache: BlockCache | None, shared: Shared
    ) -> tuple[Float[Array, "B L D"], BlockCache | None, Losses]:
        """The layers in a loop: one after another, or a period of them at a time."""
        layers = (nn.meta.unbox(self.variables["params"]["layers"]), self._layer_inputs(cache))
        if self._period == 1:
            # Each layer is the loop's own slice, of which the backward pass needs no copy.
            layer = self._layer(
                self._kinds[0], shared, in_loop=self._is_looped(self.spec.num_layers)
            )
            x_BLD, outputs = jax.lax.scan(
                lambda x_BLD, inputs: layer(x_BLD, *inputs),
                x_BLD,
                layers,
                unroll=1 if self.config.scan_layers else self.spec.num_layers,
            )
        else:
            x_BLD, outputs = self._scanned_by_periods(x_BLD, layers, shared)
        cache, losses, shown = outputs
        if shown:
            self.put_variable(ATTENTION, "layers", shown)
        return x_BLD, cache, {name: jnp.sum(loss) for name, loss in losses.items()}

    def _scanned_by_periods(
        self, x_BLD: Float[Array, "B L D"], layers: Tree, shared: Shared
    ) -> tuple[Float[Array, "B L D"], Tree]:
        """Whole periods in a loop, then what is left over; outputs with a leading N axis."""
        kinds, period = self._kinds, self._period
        num_periods, num_left = divmod(len(kinds), period)
        whole = left = layers
        if num_periods and num_left:
            whole, left = (
                jax.tree.map(lambda leaf, part=part: leaf[part], layers)
                for part in (slice(None, -num_left), slice(-num_left, None))
            )

        def run(
            x_BLD: jax.Array, layers: Tree, kinds: tuple[LayerKind, ...], in_loop: bool
        ) -> tuple[Any, Tree]:
            outputs = []
            for layer, kind in zip(_unstack(layers, len(kinds)), kinds, strict=True):
                x_BLD, output = self._layer(kind, shared, in_loop=in_loop)(x_BLD, *layer)
                outputs.append(output)
            return x_BLD, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)

        outputs = []
        if num_periods:
            x_BLD, of_periods = jax.lax.scan(
                lambda x_BLD, layers: run(
                    x_BLD, layers, kinds[:period], self._is_looped(num_periods)
                ),
                x_BLD,
                jax.tree.map(lambda leaf: _reshaped(leaf, num_periods, period), whole),
                unroll=1 if self.config.scan_layers else num_periods,
            )
            outputs.append(jax.tree.map(lambda leaf: _reshaped(leaf, -1), of_periods))
        if num_left:
            x_BLD, of_rest = run(x_BLD, left, kinds[num_periods * period :], False)
            outputs.append(of_rest)
        return x_BLD, jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)

    def _layer(self, kind: LayerKind, shared: Shared, *, in_loop: bool) -> Any:
        """A function of activations, one layer's parameters and inputs.

        in_loop: whether it runs in a loop, forward and backward in one each, which by itself keeps
        the recomputation from being merged away.
        """
        block = Block(self.config, self.constrain, kind, self.spec.reads_memory, parent=None)
        shows = self.is_mutable_collection(ATTENTION) and not self.is_initializing()

        def layer(x_BLD: jax.Array, params: Tree, inputs: LayerInputs) -> tuple[jax.Array, Tree]:
            mutable = [ATTENTION] if shows else []
            out, shown = block.apply({"params": params}, x_BLD, inputs, shared, mutable=mutable)
            x_BLD, (cache, losses) = out
            return x_BLD, (cache, losses, shown.get(ATTENTION, {}))

        if kind.remat not in POLICIES:
            return layer
        return jax.checkpoint(layer, policy=POLICIES[kind.remat], prevent_cse=not in_loop)

    def _laid_out(
        self, x_BLD: Float[Array, "B L D"], cache: LayerCaches | None, shared: Shared
    ) -> tuple[Float[Array, "B L D"], LayerCaches | None, Losses]:
        c = self.config
        caches, totals = [], {}
        for layer, kind in enumerate(self._kinds):
            reads_memory = self.spec.reads_memory
            block = Block(c, self.constrain, kind, reads_memory, name=f"layers_{layer}")
            inputs = LayerInputs(
                cache=None if cache is None else cache[layer],
                is_first=jnp.asarray(layer == 0) if c.skip_first_norm else None,
            )
            x_BLD, (layer_cache, losses) = block(x_BLD, inputs, shared)
            caches.append(layer_cache)
            totals = {name: loss + totals.get(name, 0.0) for name, loss in losses.items()}
        return x_BLD, None if cache is None else tuple(caches), totals

    def _visible(
        self, positions_BL: Int[Array, "B L"], places: Places
    ) -> tuple[Visible | None, Visible | None]:
        """What layers that see everything see, and what those with a window do."""
        c, spec, head_dim = self.config, self.spec, self.config.attention.head_dim
        is_window = c.attention.windowed_layers(spec.num_layers)
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
            full = Visible(Seen(MaskSpec(causal=spec.causal), places), bias_HLM, angles)
        if any(is_window):
            mask_spec = MaskSpec(causal=spec.causal, window=c.attention.window)
            window = Visible(Seen(mask_spec, places), bias_HLM, local_angles)
        return full, window

    def _layer_inputs(self, cache: BlockCache | None) -> LayerInputs:
        is_first = jnp.arange(self.spec.num_layers) == 0 if self.config.skip_first_norm else None
        return LayerInputs(cache, is_first)

    def _is_looped(self, trips: int) -> bool:
        return self.config.scan_layers and trips > 1

    @property
    def _kinds(self) -> tuple[LayerKind, ...]:
        c, N = self.config, self.spec.num_layers
        of_layers = zip(c.attention.windowed_layers(N), c.layer_remat(N), strict=True)
        return tuple(LayerKind(is_window, remat) for is_window, remat in of_layers)

    @property
    def _period(self) -> int:
        """After how many layers they are like the first ones again."""
        c = self.config
        pattern = 1 if c.remat == "none" else len(c.remat_pattern)
        return math.lcm(len(c.attention.layer_pattern), pattern)


# Products with kernels have no batch axes, since rows are flattened (`model.linear.project`).
POLICIES = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def _unstack(tree: Tree, count: int) -> list[Tree]:
    """The tree of each index of the leaves' first axis; gradients are stacked again, not added."""
    leaves, structure = jax.tree.flatten(tree)
    parts = [jax.lax.split(leaf, [1] * count) for leaf in leaves]
    return [
        jax.tree.unflatten(structure, [jnp.squeeze(part[i], 0) for part in parts])
        for i in range(count)
    ]


def _reshaped(leaf: jax.Array, *leading: int) -> jax.Array:
    """The first axis (first two axes, joined) as `leading`."""
    rest = leaf.shape[1:] if len(leading) == 2 else leaf.shape[2:]
    return jnp.reshape(leaf, (*leading, *rest))
