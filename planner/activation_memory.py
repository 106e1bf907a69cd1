"""What layers keep of a microbatch for their backward pass, and what one of them adds to it.

Letters: D model width, H heads, K key/value heads of one device, C head dim, F MLP width of one
device.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from configs.mlp_config import (
    GATED,
    GEGLUConfig,
    GELUConfig,
    MoEConfig,
    ReLUConfig,
    SquaredReLUConfig,
    SwiGLUConfig,
)
from configs.model_config import Remat
from configs.schema import RunConfig
from planner.attention_kernel import (
    Platform,
    attention_kernel,
    memory_pairs_visited,
    own_pairs_visited,
)
from planner.flops import expert_slots
from planner.parameters import Side, sides

# Arrays of MLP width that autodiff keeps of an ungated MLP, the input of its last product among
# them; a gate adds itself and the product with it.
_WIDE_ARRAYS: Mapping[type, int] = {
    SwiGLUConfig: 4,
    MoEConfig: 4,
    ReLUConfig: 2,
    SquaredReLUConfig: 3,
}
_GELU_ARRAYS = {"exact": 4, "tanh": 6}


class LayersBytes(NamedTuple):
    """Bytes of one device. kept: by all layers of both sides. added: by one layer's backward."""

    kept: int
    added: int


def layers_bytes(config: RunConfig, platform: Platform) -> LayersBytes:
    """What layers keep for a microbatch's backward pass by their policy, and what one adds to it.

    none: what autodiff stores of every product and elementwise function. attention: the same
    without what lies between queries, keys, values and what attention gives. dots: a layer's input
    and the products with kernels that a gradient needs. full: a layer's input. What is not kept is
    there again while the layer's own backward pass runs; so is the gradient of its scores, where a
    kernel does not spare them, and copies of about half of what the layer kept, taken out of the
    stack that the loop over layers made of it. Besides its layers an encoder leaves a decoder its
    output and collects its gradient, in fp32.
    """
    of_sides = [_of_side(config, side, platform) for side in sides(config.model)]
    return LayersBytes(sum(of.kept for of in of_sides), max(of.added for of in of_sides))


def kept_until(config: RunConfig, side: Side, platform: Platform) -> int:
    """What layers keep when a side's backward pass begins: a decoder's comes before its encoder's,
    and leaves nothing of what it kept."""
    before = sides(config.model)
    before = before[: before.index(side) + 1]
    return sum(_of_side(config, one, platform).kept for one in before)


def _of_side(config: RunConfig, side: Side, platform: Platform) -> LayersBytes:
    rows, kept, added = rows_per_device(config), 0, 0
    all_of_it = _of_layer(config, side, "none", platform)
    gradient = rows * 4 * held_scores(config, side, platform)
    for remat in config.model.layer_remat(side.num_layers):
        of_layer = _of_layer(config, side, remat, platform)
        kept += of_layer
        again = all_of_it if remat == "full" else all_of_it - of_layer
        if remat in ("none", "attention"):
            again += of_layer // 2
        added = max(added, gradient + again)
    if side.reads_memory:
        kept += (
            rows * config.lengths.encoder_length * config.model.emb_dim * (item_bytes(config) + 4)
        )
    return LayersBytes(kept, added)


def item_bytes(config: RunConfig) -> int:
    """Of a scalar in compute dtype."""
    return 2 if config.model.compute_dtype == "bfloat16" else 4


def rows_per_device(config: RunConfig) -> int:
    """Of a microbatch."""
    rows = config.training.batch_size // config.training.num_microbatches
    return rows // config.mesh.rules.shards("batch", config.mesh.axis_sizes)


def places_per_row(config: RunConfig, side: Side, axis: str = "length") -> int:
    """Places of a row that one device has: rows are cut over a sequence axis."""
    return side.length(config.lengths) // config.mesh.rules.shards(axis, config.mesh.axis_sizes)


def heads_per_device(config: RunConfig) -> tuple[int, int]:
    """Heads of queries, and of keys and values."""
    a, rules, sizes = config.model.attention, config.mesh.rules, config.mesh.axis_sizes
    return (
        a.num_heads // rules.shards("heads", sizes),
        a.num_kv_heads // rules.shards("kv_heads", sizes),
    )


def mlp_width_per_device(config: RunConfig) -> int:
    return config.model.mlp.mlp_dim // config.mesh.rules.shards("mlp", config.mesh.axis_sizes)


def held_scores(config: RunConfig, side: Side, platform: Platform) -> int:
    """Attention scores of a row that one layer holds at once on one device; 0 where kernels never
    hold a row's."""
    heads, _ = heads_per_device(config)
    cut = config.mesh.rules.shards("length", config.mesh.axis_sizes)
    held = 0
    if attention_kernel(config, side, platform) == "reference":
        held += own_pairs_visited(config.model, side, config.lengths)
    if side.reads_memory and _cross_kernel(config, side, platform) == "reference":
        held += memory_pairs_visited(side, config.lengths)
    return heads * held // cut


def _cross_kernel(config: RunConfig, side: Side, platform: Platform) -> str:
    return attention_kernel(config, side, platform, of_memory=True)


def _of_layer(config: RunConfig, side: Side, remat: Remat, platform: Platform) -> int:
    """What a layer of a side keeps of all rows of a microbatch on one device."""
    rows = rows_per_device(config)
    if remat == "full":
        return rows * _input_bytes_per_row(config, side)
    if remat == "dots":
        return rows * _products_per_row(config, side)
    kept = rows * _autodiff_per_row(config, side)
    if remat == "none":
        kept += rows * _inside_attention_per_row(config, side, platform)
    return kept + item_bytes(config) * _expert_elements(config)


def _input_bytes_per_row(config: RunConfig, side: Side) -> int:
    places = places_per_row(config, side, "residual_length")
    return places * config.model.emb_dim * item_bytes(config)


def _products_per_row(config: RunConfig, side: Side) -> int:
    """A layer's input; queries, keys and values; what attention and MLP add to the residual, where
    a later gradient needs it; the MLP's first products. A mixture's are no plain products."""
    m, item = config.model, item_bytes(config)
    heads, kv_heads = heads_per_device(config)
    D, C = m.emb_dim, m.attention.head_dim
    places, kept = places_per_row(config, side), _input_bytes_per_row(config, side)
    num_attentions = 2 if side.reads_memory else 1
    kept += item * places * num_attentions * (D + heads * C)
    kept += item * places * 2 * kv_heads * C
    if side.reads_memory:
        kept += item * config.lengths.encoder_length * 2 * kv_heads * C
    if not isinstance(m.mlp, MoEConfig):
        num_wide = 2 if isinstance(m.mlp, GATED) else 1
        num_after = 0 if m.norm_placement == "pre" else 1
        kept += item * places * (num_wide * mlp_width_per_device(config) + num_after * D)
    return kept


def _autodiff_per_row(config: RunConfig, side: Side) -> int:
    """Bytes a layer keeps of a row outside of its attention's scores: what autodiff stores.

    fp32: three arrays for the statistics of each norm. Compute dtype: every product's own input (D
    for each of query, key, value, gate and up, H·C for out, F for down), queries, keys and values
    (H·C, 2·K·C), and of the MLP gate, up, the activation and the factors of its derivative.
    """
    m, a, lengths = config.model, config.model.attention, config.lengths
    heads, kv_heads = heads_per_device(config)
    D, C, item = m.emb_dim, a.head_dim, item_bytes(config)
    length = places_per_row(config, side)
    num_attentions = 2 if side.reads_memory else 1
    num_norms = (num_attentions + 1) * (2 if m.norm_placement == "sandwich" else 1)
    per_place = num_norms * 3 * 4 * D
    # Cross-attention's keys and values are of the encoder's places.
    per_place += item * (3 * D + 2 * (heads + kv_heads) * C)
    if side.reads_memory:
        per_place += item * (D + 2 * heads * C)
    kept = length * per_place + _mlp_bytes_per_row(config, length)
    if side.reads_memory:
        kept += lengths.encoder_length * item * 2 * (D + kv_heads * C)
    if a.qk_norm:
        keys = length + (lengths.encoder_length if side.reads_memory else 0)
        kept += 3 * 4 * C * (num_attentions * length * heads + keys * kv_heads)
    return kept


def _inside_attention_per_row(config: RunConfig, side: Side, platform: Platform) -> int:
    """Bytes kept between queries, keys, values and what attention gives.

    The reference: fp32 weights, the weights again as the second product reads them, two fp32
    arrays of a softcap; the causal half is skipped block by block where `causal_blocks` says so.
    Kernels: the output, and the logarithm of a query's sum in fp32.
    """
    a, item = config.model.attention, item_bytes(config)
    heads, _ = heads_per_device(config)
    places = places_per_row(config, side)
    kernels = [attention_kernel(config, side, platform)]
    if side.reads_memory:
        kernels.append(_cross_kernel(config, side, platform))
    per_score = 4 + item + (8 if a.logit_softcap else 0)
    kept = per_score * held_scores(config, side, platform)
    num_fused = sum(kernel != "reference" for kernel in kernels)
    return kept + num_fused * places * heads * (item * a.head_dim + 4)


def _mlp_bytes_per_row(config: RunConfig, length: int) -> int:
    """Bytes that a layer's MLP keeps of a row's `length` places.

    A mixture keeps of every slot what a dense MLP keeps of a place, and of every choice its
    result, which the gate's gradient needs.
    """
    m, mlp, item = config.model, config.model.mlp, item_bytes(config)
    is_gated = isinstance(mlp, (*GATED, MoEConfig))
    if isinstance(mlp, (GEGLUConfig, GELUConfig)):
        num_wide = _GELU_ARRAYS[mlp.gelu] + 2 * is_gated
    else:
        num_wide = _WIDE_ARRAYS[type(mlp)] + 2 * is_gated
    num_inputs = 2 if is_gated else 1
    per_place = item * (num_inputs * m.emb_dim + num_wide * mlp_width_per_device(config))
    if not isinstance(mlp, MoEConfig):
        return length * per_place
    slots = expert_slots(config)
    choices = length * mlp.experts_per_token
    # Without a capacity a device has room for the choices of all that share its tokens.
    shared = sharing_tokens(config) if mlp.dispatch == "dropless" else 1
    return (
        shared * round(choices * slots.computed / slots.chosen) * per_place
        + choices * item * m.emb_dim
        + length * 4 * 2 * mlp.num_experts
    )


def sharing_tokens(config: RunConfig) -> int:
    """Devices whose tokens meet the experts of each of them: those along the expert axis, where it
    cuts rows too."""
    rules, sizes = config.mesh.rules, config.mesh.axis_sizes
    return math.prod(sizes[axis] for axis in rules.experts if axis in rules.batch + rules.length)


def _expert_elements(config: RunConfig) -> int:
    """Scalars of one layer's experts on one device, gathered over what cuts the model's width: a
    mixture keeps its experts' kernels as it multiplied by them."""
    m, rules, sizes = config.model, config.mesh.rules, config.mesh.axis_sizes
    if not isinstance(m.mlp, MoEConfig):
        return 0
    whole = 3 * m.mlp.num_experts * m.emb_dim * m.mlp.mlp_dim
    return whole // math.prod(rules.shards(axis, sizes) for axis in ("experts", "mlp"))
